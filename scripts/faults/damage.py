"""Every kind of file truncated, changed in a bit, and deleted, in a finished and in an interrupted run.

The next start makes again what is damaged, or says in one sentence which file it is and what to do. Nothing else is
lost. The training curves are a log, of which what is damaged stays lost. Starts are in this process, where the programs
are compiled already.
"""

import functools
import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.faults.bench import CURVES, Bench, Verdict, difference, files_by_kind, here, outcome, sentence, wait


def truncated(path: Path, chance: random.Random) -> None:
    """The first half stays."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path, chance: random.Random) -> None:
    """One bit is another."""
    data = bytearray(path.read_bytes())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def deleted(path: Path, chance: random.Random) -> None:
    """It is gone."""
    path.unlink()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (truncated, flipped, deleted)
STATES = ("finished", "interrupted")
NOT_MENDED = (*CURVES, "channel_masks.safetensors")  # what a run learns on its way and does not keep elsewhere


def _source(bench: Bench, experiment: str, state: str) -> Path:
    return bench.undisturbed(experiment) if state == "finished" else _interrupted(bench, experiment)


def _interrupted(bench: Bench, experiment: str) -> Path:
    """A run that SIGTERM stopped while it trained one of its last phases."""
    path = bench.root / f"{experiment}-interrupted"
    if not path.exists():
        last = path / "early_bird" if experiment == "table2" else path
        process = bench.start(experiment, path)
        wait(lambda: _done(last) >= (2 if experiment == "imp" else 1), process)
        process.send_signal(signal.SIGTERM)
        done = bench.finish(process)
        if done.status != 143:
            raise RuntimeError(f"The interrupted run of {experiment} ended with {done.status}:\n{done.output}")
    return path


def _done(path: Path) -> int:
    file = path / "progress.json"
    return json.loads(file.read_text())["done"] if file.exists() else 0


@functools.cache
def _cases(bench: Bench, experiment: str) -> list[tuple[str, str, Callable[[Path, random.Random], None]]]:
    """State, kind of file and damage: all of them, or as many of them, drawn, as the bench allows."""
    cases = [
        (state, kind, damage)
        for state in STATES
        for kind in files_by_kind(_source(bench, experiment, state))
        for damage in DAMAGES
    ]
    return cases if len(cases) <= bench.damages else sorted(bench.random.sample(cases, bench.damages), key=cases.index)


def count(bench: Bench) -> int:
    """Verdicts that there will be."""
    return sum(len(_cases(bench, experiment)) for experiment in bench.experiments)


def run(bench: Bench) -> Iterator[Verdict]:
    """A verdict for every damage."""
    for experiment in bench.experiments:
        for state, kind, damage in _cases(bench, experiment):
            source = _source(bench, experiment, state)
            path = bench.random.choice(files_by_kind(source)[kind])
            workdir = bench.copy(source, f"{experiment}-damaged")
            relative = str(path.relative_to(source))
            damage(workdir / relative, bench.random)
            yield _verdict(bench, experiment, f"{state}: {relative} {damage.__name__}", workdir, relative)


def _verdict(bench: Bench, experiment: str, case: str, workdir: Path, relative: str) -> Verdict:
    before = outcome(workdir)
    done = here(experiment, workdir)
    said = sentence(done)
    if not said:
        gone = Path(relative).name in NOT_MENDED
        return bench.verdict("damage", experiment, case, workdir, done, without=relative if gone else "")
    lost = difference(before, outcome(workdir))
    named = Path(relative).name in said
    wrong = f"{lost}; it said: {said}" if lost else "" if named else f"the file is not named: {said}"
    return Verdict("damage", experiment, case, not wrong, wrong or said)
