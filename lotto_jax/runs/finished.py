"""`finished.json`: the configuration that a run of a sweep was finished with, so that it is left alone from then on."""

import contextlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lotto_jax import config as configuration
from lotto_jax.runs.files import DamagedError, read_json, write_sealed

FINISHED = "finished.json"


def _values(config: ConfigDict) -> dict[str, Any]:
    return {name: value for name, value in configuration.as_dict(config).items() if name != "distributed"}


def declare(path: Path, config: ConfigDict) -> None:
    """Say that the run in a directory, its metrics and its report are finished."""
    write_sealed(path / FINISHED, json.dumps(_values(config), indent=2) + "\n")


def is_finished(path: Path, config: ConfigDict) -> bool:
    """Whether the run in a directory was finished with this configuration, whatever processes computed it.

    A damaged file says nothing: the run is started again, finds everything done, and ends at once.
    """
    with contextlib.suppress(FileNotFoundError, DamagedError):
        return read_json(path / FINISHED) == _values(config)
    return False
