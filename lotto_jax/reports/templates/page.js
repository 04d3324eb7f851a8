// Draws the charts of a page with uPlot: error bars, the dense network's band, the winning sparsity; zoom, values under
// the pointer, and all of it by keyboard. A chart is described by the JSON in its element, see charts.py.
(() => {
  "use strict";
  const color = (name) => {
    const style = getComputedStyle(document.documentElement);
    return style.getPropertyValue(`--${name}`).trim() || style.getPropertyValue("--other").trim();
  };
  const alone = (style) => style === "winning" || style.startsWith("shade") || style.startsWith("method");

  function padded(xs) {
    const low = xs[0], high = xs[xs.length - 1], room = 0.04 * (high - low) || 0.5;
    return [low - room, high + room];
  }

  // The dense network's line and band and the stripe of the winning sparsity lie below the series, its word above.
  function below(spec) {
    return (u) => {
      const { ctx, bbox } = u, ratio = devicePixelRatio;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      if (spec.dense) {
        const at = (value) => u.valToPos(value, "y", true), { mean, std } = spec.dense;
        ctx.fillStyle = color("band");
        ctx.fillRect(bbox.left, at(mean + std), bbox.width, at(mean - std) - at(mean + std));
        if (u.series[u.series.length - 1].show) {
          ctx.strokeStyle = color("fg");
          ctx.lineWidth = 1.3 * ratio;
          ctx.beginPath();
          ctx.moveTo(bbox.left, at(mean));
          ctx.lineTo(bbox.left + bbox.width, at(mean));
          ctx.stroke();
        }
      }
      ctx.globalAlpha = 0.25;
      ctx.fillStyle = color("winning");
      for (const mark of spec.marks) {
        ctx.fillRect(u.valToPos(mark.x, "x", true) - 4 * ratio, bbox.top, 8 * ratio, bbox.height);
      }
      ctx.restore();
    };
  }

  function above(spec) {
    return (u) => {
      const { ctx, bbox } = u, ratio = devicePixelRatio;
      ctx.save();
      ctx.font = `600 ${12 * ratio}px system-ui, sans-serif`;
      ctx.textBaseline = "top";
      ctx.textAlign = "left"; // uPlot leaves that of its axes
      for (const mark of spec.marks) {
        const x = u.valToPos(mark.x, "x", true), left = x < bbox.left + bbox.width / 2;
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        const wide = ctx.measureText(mark.label).width, begin = left ? x + 8 * ratio : x - 8 * ratio - wide;
        ctx.fillStyle = color("bg");
        ctx.fillRect(begin - 3 * ratio, bbox.top + 2 * ratio, wide + 6 * ratio, 17 * ratio);
        ctx.fillStyle = color("fg");
        ctx.fillText(mark.label, begin, bbox.top + 4 * ratio);
      }
      ctx.restore();
    };
  }

  function bars(spec) {
    return (u, number) => {
      const series = spec.series[number - 1];
      if (!series || !series.std || !u.series[number].show) return;
      const { ctx, bbox } = u, ratio = devicePixelRatio;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      ctx.strokeStyle = color(series.style);
      ctx.lineWidth = 1.3 * ratio;
      ctx.beginPath();
      spec.xs.forEach((place, i) => {
        if (series.y[i] === null || !series.std[i]) return;
        const x = u.valToPos(place, "x", true);
        const [low, high] = [-1, 1].map((sign) => u.valToPos(series.y[i] + sign * series.std[i], "y", true));
        ctx.moveTo(x, low);
        ctx.lineTo(x, high);
        for (const end of [low, high]) {
          ctx.moveTo(x - 3 * ratio, end);
          ctx.lineTo(x + 3 * ratio, end);
        }
      });
      ctx.stroke();
      ctx.restore();
    };
  }

  // What is in view, for programs that look at the page.
  function seen(u) {
    const ends = ["x", "y"].flatMap((key) => [u.scales[key].min, u.scales[key].max]);
    u.root.parentElement.dataset.seen = ends.map((end) => end === null ? "" : end.toPrecision(6)).join(" ");
  }

  function options(spec, width) {
    const axis = { stroke: color("soft"), grid: { stroke: color("grid"), width: 1 }, ticks: { stroke: color("grid"), width: 1 } };
    const short = (value) => value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5)
      ? String(+value.toPrecision(6)) : value.toExponential(1).replace("e+", "e");
    const x = { ...axis, label: spec.x.label, labelSize: 22, labelFont: "13px system-ui, sans-serif", font: "12px system-ui, sans-serif", size: 34 };
    if (spec.x.ticks) {
      const words = new Map(spec.x.ticks);
      const places = [...words.keys()];
      x.splits = (u) => {  // as many as there is room for
        const every = Math.ceil((places.length * 58 * devicePixelRatio) / Math.max(u.bbox.width, 1));
        return places.filter((_, i) => i % every === 0);
      };
      x.values = (u, splits) => splits.map((place) => words.get(place));
      x.filter = (u, splits) => splits;
    } else {
      x.values = (u, splits) => splits.map((value) => spec.x.percent ? `${Math.round(100 * value)} %` : short(value));
    }
    const y = { ...axis, label: spec.y.label, labelSize: 22, labelFont: "13px system-ui, sans-serif", font: "12px system-ui, sans-serif",
      size: (u, values) => Math.max(44, 22 + 7 * Math.max(...(values || [""]).map((text) => (text || "").length))),
      values: (u, splits) => splits.map((value) => value === null ? "" : short(value)) };
    const scale = spec.y.log ? { distr: 3 } : {};
    if (spec.y.range) scale.range = () => spec.y.range;
    const dense = spec.dense ? [{ label: `dense ${spec.dense.text}`, stroke: color("fg"), width: 0, points: { show: false, width: 1.6 }, value: () => "" }] : [];
    return {
      width,
      height: Math.max(240, Math.min(380, Math.round(width * 0.62))),
      scales: { x: { time: false, range: (u, low, high) => low === spec.xs[0] && high === spec.xs[spec.xs.length - 1] ? padded(spec.xs) : [low, high] }, y: scale },
      axes: [x, y],
      cursor: { drag: { x: true, y: true, uni: 24 }, points: { size: 9 }, focus: { prox: 24 } },
      focus: { alpha: 0.35 },
      legend: { live: true },
      series: [
        { label: spec.x.label, value: (u, value, number, i) => i === null || i === undefined ? "" : spec.names[i] },
        ...spec.series.map((series) => ({
          label: series.label,
          stroke: color(series.style),
          width: 1.8,
          dash: alone(series.style) ? undefined : [6, 4],
          spanGaps: true,
          points: { show: !spec.lines, size: 7, width: 1.6, fill: alone(series.style) ? color(series.style) : color("bg") },
          value: (u, value, number, i) => i === null || i === undefined ? "" : series.text[i] || "–",
        })),
        ...dense,
      ],
      hooks: { drawAxes: [below(spec)], drawSeries: [bars(spec)], draw: [above(spec), seen] },
    };
  }

  function build(chart) {
    const spec = JSON.parse(chart.querySelector("script").textContent), plot = chart.querySelector(".plot");
    const said = chart.querySelector("output");
    let u = null, at = -1;
    const make = () => {
      if (u) u.destroy();
      const data = [spec.xs, ...spec.series.map((series) => series.y)];
      if (spec.dense) data.push(spec.xs.map(() => spec.dense.mean));
      u = new uPlot(options(spec, plot.clientWidth), data, plot);
      u.over.style.cursor = "crosshair";
      u.root.querySelectorAll(".u-legend .u-series > th").forEach((entry, i) => {
        if (i === 0) return;
        entry.tabIndex = 0;
        entry.setAttribute("role", "button");
        entry.setAttribute("aria-pressed", "true");
        const press = () => entry.setAttribute("aria-pressed", String(u.series[i].show));
        entry.addEventListener("click", () => setTimeout(press));
        entry.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          event.stopPropagation();
          entry.click();
        });
      });
    };
    const zoom = (factor, shift) => {
      for (const key of ["x", "y"]) {
        const { min, max } = u.scales[key], log = key === "y" && spec.y.log;
        const [low, high] = log ? [Math.log(min), Math.log(max)] : [min, max];
        const middle = (low + high) / 2 + (key === "x" ? shift * (high - low) : 0), half = (factor * (high - low)) / 2;
        if (key === "y" && factor === 1) continue;
        const ends = [middle - half, middle + half].map((end) => log ? Math.exp(end) : end);
        u.setScale(key, { min: ends[0], max: ends[1] });
      }
    };
    const all = () => u.setData(u.data, true);
    const step = (by) => {
      at = Math.max(0, Math.min(spec.xs.length - 1, at < 0 ? (by > 0 ? 0 : spec.xs.length - 1) : at + by));
      const first = spec.series.find((series) => series.y[at] !== null);
      const top = first ? u.valToPos(first.y[at], "y") : 0;
      u.setCursor({ left: u.valToPos(spec.xs[at], "x"), top });
      const values = spec.series.filter((series) => series.text[at]).map((series) => `${series.label} ${series.text[at]}`);
      said.textContent = `${spec.x.label} ${spec.names[at]}: ${values.join(", ")}`;
    };
    const actions = { in: () => zoom(0.6, 0), out: () => zoom(1 / 0.6, 0), left: () => zoom(1, -0.25), right: () => zoom(1, 0.25), all };
    chart.querySelectorAll("button").forEach((button) => button.addEventListener("click", () => actions[button.dataset.do]()));
    plot.addEventListener("keydown", (event) => {
      const keys = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), "+": actions.in, "-": actions.out, 0: all, Escape: all };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    make();
    new ResizeObserver(() => {
      if (plot.clientWidth && plot.clientWidth !== u.width) {
        u.setSize({ width: plot.clientWidth, height: Math.max(240, Math.min(380, Math.round(plot.clientWidth * 0.62))) });
      }
    }).observe(plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", make);
  }

  // A chart is made when it comes near the screen, or before the page is printed.
  const waiting = new Set(document.querySelectorAll(".chart"));
  const begin = (chart) => {
    if (waiting.delete(chart)) build(chart);
  };
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    near.unobserve(entry.target);
    begin(entry.target);
  }), { rootMargin: "400px" });
  waiting.forEach((chart) => near.observe(chart));
  addEventListener("beforeprint", () => [...waiting].forEach(begin));

  // A link into a folded part opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = target && target.parentElement; part; part = part.parentElement) {
      if (part.tagName === "DETAILS") part.open = true;
    }
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
