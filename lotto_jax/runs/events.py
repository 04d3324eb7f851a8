"""TensorBoard events through clu, where the `tensorboard` extra is installed; nothing elsewhere."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path


def installed() -> bool:
    """Whether TensorFlow, which clu writes events with, is there. Looks without importing: the import takes seconds."""
    return importlib.util.find_spec("tensorflow") is not None


class Events:
    """Scalars of a run as TensorBoard events under <run directory>/tensorboard/<curve>."""

    def __init__(self, directory: Path):
        """Write below `directory`, if the extra is installed."""
        self._directory = directory / "tensorboard" if installed() else None
        self._writers: dict[str, object] = {}

    def write(self, curve: str, step: int, scalars: Mapping[str, float]) -> None:
        """Add one point of a curve."""
        if self._directory is None:
            return
        from clu import metric_writers

        if curve not in self._writers:
            self._writers[curve] = metric_writers.SummaryWriter(str(self._directory / curve))
        self._writers[curve].write_scalars(step, dict(scalars))  # type: ignore[attr-defined]

    def close(self) -> None:
        """Flush everything; curves can be written on with."""
        while self._writers:
            self._writers.popitem()[1].close()  # type: ignore[attr-defined]
