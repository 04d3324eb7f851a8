"""TensorBoard events: written where the extra is installed, and no cost where it is not."""

import sys

import pytest

from lotto_jax.runs import events


def test_without_the_extra_nothing_is_written_or_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "installed", lambda: False)
    writer = events.Events(tmp_path)
    writer.write("curve", 1, {"loss": 1.0})
    writer.close()
    assert list(tmp_path.iterdir()) == [] and "tensorflow" not in sys.modules


@pytest.mark.skipif(not events.installed(), reason="the tensorboard extra (TensorFlow) is not installed")
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_with_the_extra_a_curve_can_be_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = events.Events(tmp_path)
    for step in range(3):
        writer.write("curve", step, {"loss": 1.0 / (step + 1)})
    writer.close()
    accumulator = EventAccumulator(str(tmp_path / "tensorboard" / "curve"), size_guidance={"tensors": 0})
    accumulator.Reload()
    assert [event.step for event in accumulator.Tensors("loss")] == [0, 1, 2]
