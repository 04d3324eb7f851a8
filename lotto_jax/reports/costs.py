"""What a run cost so far: seconds of its phases, from the final states that it keeps."""

from typing import NamedTuple

from lotto_jax.reports import sections, tables
from lotto_jax.reports.panels import words
from lotto_jax.reports.source import Section, Source
from lotto_jax.reports.tables import Table
from lotto_jax.runs import kept
from lotto_jax.runs.tickets import Ticket
from lotto_jax.training.checkpoints import StorageError

FROM_THE_SNAPSHOT = ("winning", "random_pruned", "one_shot")  # arms with the steps up to the rewind step behind them
SAID = "Time of training steps on the devices of one ticket, without evaluation, pruning, saving and compilation."


class Phase(NamedTuple):
    """What tickets that trained together took: ticket-steps, device-seconds of one, and seconds of compilation."""

    title: str
    tickets: int
    steps: int
    step_seconds: float
    compilation_seconds: float


def phases(source: Source) -> list[Phase]:
    """The phases of a run that are kept, named by their arms; none where there are none, or one cannot be read."""
    rewind, made = source.config["imp"]["rewind_step"], list[Phase]()
    try:
        with kept.opened(source.path) as store:
            metas = [store.meta(number) for number in store.steps()]
    except (ValueError, StorageError):  # none yet, or damaged, which the run mends at its next start
        return made
    for meta in metas:
        own = [Ticket(**fields) for fields in meta["tickets"]]
        steps = sum(meta["steps"] - rewind * (ticket.arm in FROM_THE_SNAPSHOT) for ticket in own)
        title = ", ".join(dict.fromkeys(words(ticket.arm) for ticket in own))
        made.append(Phase(title, len(own), steps, meta["step_seconds"], meta["compilation_seconds"]))
    return made


def section(source: Source) -> list[Section]:
    """A table of phases and their sum."""
    found = phases(source)
    if not found:
        return []
    total = _together("all", found)
    rows = [
        [p.title, str(p.tickets), f"{p.steps:,}", f"{1e3 * p.step_seconds:.3g}", _time(p.steps * p.step_seconds)]
        for p in [*_by_arms(found), total]
    ]
    header = ["phase", "tickets", "ticket-steps", "ms a step", "device time"]
    table = Table(header, rows, "costs", "What the run cost", text=(0,))
    compiled = total.compilation_seconds
    said = f"{SAID} Compilation took {_time(compiled)} besides." if compiled else SAID
    files = tables.write(table, source.tables)
    return [Section([], [tables.as_html(table), sections.paragraph(said)], files, "Costs")]


def _by_arms(found: list[Phase]) -> list[Phase]:
    """Rounds of the same arms together."""
    groups: dict[str, list[Phase]] = {}
    for phase in found:
        groups.setdefault(phase.title, []).append(phase)
    rounds = lambda own: f", {len(own)} rounds" if len(own) > 1 else ""  # noqa: E731
    return [_together(title + rounds(own), own) for title, own in groups.items()]


def _together(title: str, found: list[Phase]) -> Phase:
    steps = sum(p.steps for p in found)
    seconds = sum(p.steps * p.step_seconds for p in found)
    compiled = sum(p.compilation_seconds for p in found)
    return Phase(title, sum(p.tickets for p in found), steps, seconds / max(steps, 1), compiled)


def _time(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
