"""Looks at report pages in a headless Chromium: `python scripts/report_test.py PAGE.html ... [--out=DIR]`.

Every page is opened without a network, light and dark, as wide as a phone and a desk. It fails (exit status 1) on an
error in the console, a request, a page wider than the screen, a chart that is not drawn, a legend that does not tell
the value under the pointer, or a chart that the keyboard cannot step through and zoom. Screenshots go to DIR.

Without PAGE, it makes and looks at the reports of `.assets/results`. Needs Chromium (`apt-get install chromium`) and
`pip install -c constraints.txt -e ".[browser]"`; `bash scripts/test.sh --report` installs the latter.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WIDTHS = {"phone": 390, "desk": 1280}
SCROLL = """async () => {
  for (const chart of document.querySelectorAll(".chart")) {
    chart.scrollIntoView();
    for (let i = 0; i < 60 && !chart.querySelector("canvas"); i++) await new Promise(requestAnimationFrame);
  }
}"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """The installed Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        sys.exit("Chromium is not installed; apt-get install chromium, or name one in $CHROMIUM.")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


def complaints(opened: Any, file: Path, scheme: str, width: int, screenshot: Path) -> list[str]:
    """What is wrong with a page."""
    found: list[str] = []
    context = opened.new_context(color_scheme=scheme, viewport={"width": width, "height": 844}, offline=True)
    page = context.new_page()
    page.on("console", lambda m: found.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else found.append(f"asks for {r.url}"))
    page.goto(file.resolve().as_uri())
    folded = "document.querySelectorAll('details').forEach(part => part.open = {})"
    page.evaluate(folded.format("true"))
    page.evaluate(SCROLL)
    charts = page.locator(".chart")
    drawn = page.locator(".chart canvas").count()
    if drawn != charts.count():
        found.append(f"{drawn} of {charts.count()} charts are drawn")
    if charts.count():
        found += _chart(page, charts.first)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if wide > 0:
        found.append(f"{wide} px wider than the screen")
    page.evaluate(folded.format("false"))
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=screenshot, full_page=True, timeout=120_000)
    context.close()
    return found


def _chart(page: Any, chart: Any) -> list[str]:
    """What is wrong with a chart by pointer and by keyboard."""
    found = []
    chart.scroll_into_view_if_needed()
    chart.locator(".u-over").hover()
    if not page.locator(".chart .u-legend .u-value").first.inner_text().strip(" -\u2013"):
        found.append("the legend tells no value under the pointer")
    plot = chart.locator(".plot")
    seen = lambda: plot.get_attribute("data-seen")  # noqa: E731
    plot.focus()
    page.keyboard.press("ArrowRight")
    if not chart.locator("output").inner_text():
        found.append("arrow keys tell no value")
    whole = seen()
    page.keyboard.press("+")
    page.wait_for_timeout(100)
    zoomed = seen()
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    if zoomed == whole:
        found.append("+ does not zoom")
    if seen() != whole:
        found.append("0 does not show all again")
    return found


def made(directory: Path) -> list[Path]:
    """The reports of the results that are kept: of all together, and of one."""
    from lotto_jax.experiments.report import merge

    kept = ROOT / ".assets" / "results"
    merge([kept], directory / "all")
    merge([kept / "linear_ae_mnist"], directory / "one")
    return [directory / "all" / "report.html", directory / "one" / "report.html"]


def main() -> None:
    """Look, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--out", type=Path, help="where screenshots go; default: a temporary directory")
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary, browser() as opened:
        out = args.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        for file in args.pages or made(Path(temporary)):
            for scheme in ("light", "dark"):
                for name, width in WIDTHS.items():
                    shot = out / f"{file.parent.name}-{scheme}-{name}.png"
                    found = complaints(opened, file, scheme, width, shot)
                    wrong += len(found)
                    print(f"{file}, {scheme}, {name}: {'; '.join(found) or 'fine'}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
