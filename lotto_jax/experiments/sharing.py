"""Searches that differ in their rewind step only share their dense networks: these are trained once."""

import contextlib
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax.runs import curves, kept, results
from lotto_jax.runs import directory as directories
from lotto_jax.runs.directory import RunDirectory

FREE = ("imp.rewind_step", "imp.rewind_steps")


def share_dense(source: Path, config: ConfigDict, workdir: Path) -> None:
    """Begin the run of `config` in `workdir` with the dense phase of the search in `source`, if it has none yet.

    The result is that of training it anew, bit for bit. The search in `source` keeps the states that this one starts
    from where `config.imp.rewind_steps` names the step there.

    Raises:
      RunDirectoryError: if `workdir` is in use or belongs to another configuration.
      ValueError: if the source's dense phase is not finished, was trained otherwise, or did not keep the rewind step.
    """
    theirs, mine = (configuration.flatten(configuration.as_dict(c)) for c in (directories.config_of(source), config))
    for key in sorted(theirs.keys() | mine.keys()):
        free = key in FREE or key in configuration.NOT_COMPUTED
        if not free and theirs.get(key) != mine.get(key):
            raise ValueError(
                f"config.{key} is {mine.get(key)!r}, but {theirs.get(key)!r} in {source}; searches that share their "
                "dense networks differ in config.imp.rewind_step only."
            )
    rounds, snapshots = (Path(kept.CHECKPOINTS) / name for name in (kept.ROUNDS, kept.SNAPSHOTS))
    with kept.opened(source) as store:
        meta = store.meta(0)
    steps = meta["snapshots"]
    if config.imp.rewind_step not in steps:
        raise ValueError(
            f"The search in {source} kept no state of step {config.imp.rewind_step}; name it in its "
            "config.imp.rewind_steps."
        )
    data = directories.read_config(source)["data"]
    with contextlib.closing(RunDirectory(workdir, config, data)) as directory:
        path, temporary = directory.path, directory.path / ".shared"
        if (path / rounds / "0").exists():
            return
        results.add(path, [results.Result(*row) for row in meta["rows"]])
        for name in (curves.CURVES, curves.HELD_OUT):
            if (source / name).exists() and not (path / name).exists():
                curves.append(path, [point for point in curves.read(source, name) if point["round"] == 0], name)
        for part in (*(snapshots / str(step) for step in steps), rounds / "0"):  # with the last one the phase is done
            for old in (temporary, path / part):
                shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(source / part, temporary)
            (path / part).parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(path / part)
