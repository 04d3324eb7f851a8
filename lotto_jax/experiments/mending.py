"""Damaged or missing files outside of the checkpoints, written again from what the final states of phases say."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lotto_jax.experiments.protocol import Record, Stack, Trained, join
from lotto_jax.runs import provenance, results, tickets
from lotto_jax.runs.directory import RunDirectoryError
from lotto_jax.runs.files import DamagedError
from lotto_jax.training.clock import Clock

if TYPE_CHECKING:
    from lotto_jax.experiments.runner import Run


def discard(run: Run) -> None:
    """Empty results.csv and metrics.json if they are damaged, so that phases can write to them.

    Raises:
      RunDirectoryError: if results.csv has rows of phases whose final states are not kept.
    """
    path, there = run.directory.path, run.rounds.steps()
    dropped = set(range(max(there, default=-1) + 1)) - set(there)
    lost = ""
    try:
        if not results.read(path) and dropped:
            lost = f"{path / results.RESULTS} is missing."
    except DamagedError as error:
        lost = str(error)
    if lost and dropped and run.config.checkpoint.keep_states == "last":
        raise RunDirectoryError(
            f"{lost} It cannot be made again, since config.checkpoint.keep_states is 'last'; put back a copy of the "
            "file, or choose another --workdir."
        )
    if lost:
        warnings.warn(f"{lost} What `lotto-jax evaluate` added has to be measured again.", stacklevel=2)
        results.replace(path, [])
    try:
        provenance.read(path)
    except DamagedError as error:
        warnings.warn(str(error), stacklevel=2)
        provenance.write(path, {})


def mend(run: Run) -> list[int]:
    """Write what is missing of the rows of finished phases, all of whose kept states can be read.

    Returns:
      Numbers of the phases of which a ticket is damaged or missing.
    """
    path = run.directory.path
    metas = {number: run.rounds.meta(number) for number in run.rounds.steps()}
    rows = []
    for meta in metas.values():
        own = [results.Result(*row) for row in meta.get("rows", [])]
        run.declare(own, meta.get("batch_split_over", 1))
        rows += own
    if lost := results.missing(path, rows):
        warnings.warn(f"{path / results.RESULTS}: {len(lost)} rows are missing; writing them again.", stacklevel=2)
        results.add(path, lost)
    damaged = []
    for number, meta in metas.items():
        for name in meta.get("stored", []):
            try:
                tickets.read(path, name)
            except ValueError as error:
                warnings.warn(f"{error} Writing the tickets of {run.phases[number].title} again.", stacklevel=2)
                damaged.append(number)
                break
        for name in meta.get("stored_before", []):
            try:
                tickets.read(path, name)
            except ValueError:
                warnings.warn(
                    f"The ticket {name} of {path} is damaged or missing. It cannot be made again, since "
                    "config.checkpoint.keep_states is 'last'; nothing else depends on it.",
                    stacklevel=2,
                )
    return damaged


def untrained(run: Run, number: int) -> Record:
    """What a phase records, from its final states; compacted ones begin again, with the masks that they end with."""
    phase = run.phases[number]
    if phase.drawn:
        done = run.finished(number)
        states = run.fresh._replace(params=done.params, model_state=done.model_state)
        stack = Stack(done.tickets, states, done.mask)
    else:
        start = phase.start()
        stack = join(start.body, start.head)
    return phase.record(Trained(stack, run.steps, Clock(), run.placement))
