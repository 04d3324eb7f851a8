"""What a run will need of its devices, found by compiling its programs for them. The devices need not be here."""

import contextlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax import experiments, progress
from lotto_jax.data import sources
from lotto_jax.experiments import build, costs, programs
from lotto_jax.experiments.run import check_read, feed_of
from lotto_jax.experiments.runner import Run
from lotto_jax.models import platforms
from lotto_jax.runs.directory import RunDirectory
from lotto_jax.training.placement import Placement
from lotto_jax.training.preemption import Preemption
from lotto_jax.training.topologies import Topology

# The compiler's estimate counts these as -1 s each. On a TPU they are bitcasts, which take no time.
_UNCOUNTED = re.compile(r"custom_call_target=\"(\w+)\"")
COLLECTIVES = re.compile(r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


class Compiled(NamedTuple):
    """A program of a run; bytes are those on one device.

    Attributes:
      name: what it does.
      tickets: how many it works on.
      split: devices that share a batch of a ticket.
      arguments, temporaries, outputs, code: bytes; outputs that take the place of arguments do not count.
      collectives: operations between devices, by kind.
      seconds: that it takes by the compiler's estimate; None where that has none.
    """

    name: str
    tickets: int
    split: int
    arguments: int
    temporaries: int
    outputs: int
    code: int
    collectives: dict[str, int]
    seconds: float | None

    @property
    def memory(self) -> int:
        """Bytes that it needs on a device."""
        return self.arguments + self.temporaries + self.outputs + self.code


class Report(NamedTuple):
    """What a run needs.

    Attributes:
      topology: name of the devices.
      platform: "tpu", "gpu" or "cpu".
      devices, chips: how many there are.
      device_memory: bytes that programs can use on one; 0 if unknown.
      mesh: devices on the axes `ticket` and `data`.
      parallel: how tickets share a program, see `loop.over_tickets`.
      abreast: tickets that train at the same time on devices of their own.
      idle: share of the devices' time without work, over all ticket-steps of the run.
      steps: of every ticket.
      phases: how many train one after the other.
      ticket_steps: of the whole run.
      step_flops: FLOPs of a step of one ticket, as counted on the computation.
      programs: what is compiled.
      hours: of training on these devices, by the compiler's estimate of a step; None where that has none.
      chip_hours: the same for all chips together.
    """

    topology: str
    platform: str
    devices: int
    chips: int
    device_memory: int
    mesh: dict[str, int]
    parallel: str
    abreast: int
    idle: float
    steps: int
    phases: int
    ticket_steps: int
    step_flops: int
    programs: list[Compiled]
    hours: float | None
    chip_hours: float | None


@contextlib.contextmanager
def planned(config: ConfigDict, topology: Topology) -> Iterator[list[Run]]:
    """The run of a configuration on the devices of a topology, to look at; `table2` is made of two.

    Raises:
      ValueError: with one sentence that names the field, if the configuration makes no sense.
    """
    configuration.validate(config)
    experiment = experiments.of(config)
    check_read(config, experiment.reads)
    dataset = sources.outline(**config.dataset)
    with contextlib.ExitStack() as closing:
        feed = closing.enter_context(contextlib.closing(feed_of(config, dataset)))
        closing.enter_context(platforms.compiling_for(topology.platform))
        experiment.check(config, build.objective(config, dataset.image_shape, dataset.classes, feed.steps), feed)
        runs = []
        for part in experiments.parts_of(config) or [config]:
            objective = build.objective(part, dataset.image_shape, dataset.classes, feed.steps)
            experiments.of(part).check(part, objective, feed)
            path = Path(closing.enter_context(tempfile.TemporaryDirectory()))
            directory = closing.enter_context(contextlib.closing(RunDirectory(path, part)))
            run = Run(part, experiments.of(part), objective, feed, directory, Preemption(), devices=topology.devices)
            runs.append(closing.enter_context(contextlib.closing(run)))
        yield runs


def preflight(config: ConfigDict, topology: Topology, only: Collection[str] = ()) -> list[Report]:
    """A report on the run of a configuration; of `table2`, which is two runs, one on each.

    Args:
      config: of the run.
      topology: the devices.
      only: names of programs to compile next to the step, which says how long training takes; empty: all.

    Raises:
      ValueError: as `planned`, or if a program does not fit on the devices or the run has none of a name.
    """
    with planned(config, topology) as runs:
        return [_report(run, topology, only) for run in runs]


def _report(run: Run, topology: Topology, only: Collection[str]) -> Report:
    devices, most = len(topology.devices), max(phase.tickets for phase in run.phases)
    placed = run.place_tickets(run.objective, most)
    places = {phase.tickets: run.place_tickets(run.objective, phase.tickets) for phase in run.phases}
    chosen = _chosen(programs.of(run), only)
    with progress.bar(iterable=chosen, desc="compiling", unit=" programs", leave=False, position=0) as bar:
        compiled = [_compiled(run, topology, program) for program in bar]
    ticket_steps = sum(phase.work for phase in run.phases)
    hours = training_hours(
        run, places, {program.split: program.seconds for program in compiled if program.name == "step"}
    )
    state = jax.eval_shape(run.objective.init, jax.random.key(0))
    return Report(
        topology=topology.name,
        platform=topology.platform,
        devices=devices,
        chips=topology.chips,
        device_memory=topology.memory,
        mesh=dict(placed.mesh.shape),
        parallel=placed.parallel,
        abreast=placed.abreast,
        idle=sum(p.work * places[p.tickets].idle(p.tickets, devices) for p in run.phases) / ticket_steps,
        steps=run.steps,
        phases=len(run.phases),
        ticket_steps=ticket_steps,
        step_flops=costs.step_flops(run.objective, state, run.feed.batch),
        programs=compiled,
        hours=hours,
        chip_hours=None if hours is None else hours * topology.chips,
    )


def training_hours(run: Run, places: dict[int, Placement], seconds: dict[int, float | None]) -> float | None:
    """Of training, where tickets of a phase that find no device of their own wait for their turn.

    Args:
      run: whose phases train.
      places: where so many tickets train.
      seconds: of a ticket's step, by the number of devices that share it.
    """
    total = 0.0
    for phase in run.phases:
        placed = places[phase.tickets]
        step = seconds[placed.mesh.shape["data"]]
        if step is None:
            return None
        total += -(-phase.tickets // placed.abreast) * phase.work / phase.tickets * step
    return total / 3600


def _chosen(found: list[programs.Program], only: Collection[str]) -> list[programs.Program]:
    """The step and the programs of these names; all if there are no names."""
    names = [program.name for program in found]
    if unknown := set(only) - set(names):
        there = ", ".join(dict.fromkeys(names))
        raise ValueError(f"--only names {min(unknown)!r}, but this run has no such program; it has {there}.")
    return [program for program in found if not only or program.name in {"step", *only}]


def _compiled(run: Run, topology: Topology, program: programs.Program) -> Compiled:
    """A program and what its compiler says.

    Raises:
      ValueError: if it does not fit on the devices.
    """
    name, tickets, split, field, lower = program
    what = f"The program {name!r} of {tickets} ticket{'s' if tickets > 1 else ''}"
    device = f"a device ({topology.devices[0].device_kind})"
    value = configuration.flatten(run.config.to_dict())[field.removeprefix("config.")]
    remedy = f"reduce {field} (now {value}), or take larger devices or more of them"
    try:
        compiled = lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0].partition("RESOURCE_EXHAUSTED: ")[2].rstrip(".")
        raise ValueError(f"{what} does not fit on {device}: {reason}; {remedy}.") from error
    plan: Any = compiled.memory_analysis()
    found = Compiled(
        name,
        tickets,
        split,
        plan.argument_size_in_bytes,
        plan.temp_size_in_bytes,
        plan.output_size_in_bytes - plan.alias_size_in_bytes,
        plan.generated_code_size_in_bytes,
        dict(Counter(COLLECTIVES.findall(compiled.as_text() or ""))),
        estimated_seconds(compiled),
    )
    if 0 < topology.memory < found.memory:
        raise ValueError(f"{what} needs {_mib(found.memory)} MiB of {_mib(topology.memory)} on {device}; {remedy}.")
    return found


def estimated_seconds(compiled: jax.stages.Compiled) -> float | None:
    """What a program takes by the estimate of its compiler; None where it has none, as for loops."""
    estimate, text = (compiled.cost_analysis() or {}).get("optimal_seconds"), compiled.as_text() or ""
    uncounted = _UNCOUNTED.findall(text)
    if not estimate or set(uncounted) - {"ConcatBitcast"} or " while(" in text:
        return None
    return estimate + len(uncounted)


def as_json(report: Report) -> str:
    """The report as a JSON object, bytes as numbers."""
    return json.dumps(report._asdict() | {"programs": [program._asdict() for program in report.programs]})


def _mib(size: int) -> str:
    mib = size / 2**20
    return f"{mib:,.0f}" if mib >= 1000 else f"{mib:.4g}"


@dataclass
class _Row:
    """A line of the table."""

    program: str
    tickets: int
    devices_a_ticket: int
    memory: str
    arguments: str
    temporaries: str
    outputs: str
    code: str
    milliseconds: str
    collectives: str


def _row(program: Compiled) -> _Row:
    return _Row(
        program.name,
        program.tickets,
        program.split,
        _mib(program.memory),
        _mib(program.arguments),
        _mib(program.temporaries),
        _mib(program.outputs),
        _mib(program.code),
        "unknown" if program.seconds is None else f"{1e3 * program.seconds:,.4g}",
        ", ".join(f"{count} {kind}" for kind, count in sorted(program.collectives.items())) or "none",
    )


def table(report: Report) -> str:
    """The report as text; memory is in MiB on every device."""
    memory = f"{_mib(report.device_memory)} MiB each" if report.device_memory else "memory unknown"
    axes = " x ".join(f"{size} ({axis})" for axis, size in report.mesh.items())
    cost = "unknown, the compiler has no estimate"
    if report.hours is not None and report.chip_hours is not None:
        cost = f"{report.hours:,.3g} h, {report.chip_hours:,.3g} chip-hours, by the compiler's estimate of a step"
    lines = (
        f"devices: {report.topology}, {report.devices} on {report.chips} chips ({report.platform}, {memory})",
        f"mesh: {axes}, tickets {report.parallel}, {report.abreast} side by side; {report.idle:.0%} idle",
        f"run: {report.phases} phases, {report.steps:,} steps a ticket, {report.ticket_steps:,} ticket-steps",
        f"step: {report.step_flops / 1e9:,.4g} GFLOP a ticket",
        f"training: {cost}",
        "memory: MiB on every device",
        parameter_overview.make_table([_row(program) for program in report.programs]),
    )
    return "\n".join(lines)
