"""Shares of devices: none in two runs at a time, every run once, and what keeps a run to its own."""

import math

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotto_jax.config import default
from lotto_jax.training import hosts, shares
from lotto_jax.training.shares import Host

GPUS = Host("gpu", (0, 1, 2, 3, 4, 5, 6, 7), 0, 1)


@given(st.data(), st.integers(1, 12))
def test_a_queue_gives_no_device_twice_and_every_run_its_share_once(data, devices):
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    sizes = dict(enumerate(data.draw(st.lists(st.sampled_from(divisors), max_size=12))))
    waiting, running, begun = dict(sizes), {}, []
    while waiting or running:
        busy = {i for share in running.values() for i in share}
        for name, share in shares.starts(waiting, busy, devices).items():
            assert len(share) == waiting.pop(name) and busy.isdisjoint(share) and max(share) < devices
            running[name] = share
            busy |= set(share)
            begun.append(name)
        assert running, "runs wait, and all devices are free"
        for size in waiting.values():
            blocks = [set(range(first, first + size)) for first in range(0, devices, size)]
            assert all(block & busy for block in blocks), "a run waits for devices that are free"
        del running[data.draw(st.sampled_from(sorted(running)))]
    assert sorted(begun) == sorted(sizes)


@given(st.integers(0, 100), st.integers(1, 12))
def test_a_run_gets_as_many_devices_as_it_has_tickets_if_these_divide_what_there_is(tickets, devices):
    size = shares.size(tickets, Host("gpu", tuple(range(devices)), 0, 1))
    larger = [n for n in range(size + 1, devices + 1) if math.gcd(n, devices) == n]
    assert 1 <= size <= max(tickets, 1) and devices % size == 0 and all(n > tickets for n in larger)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        (GPUS, "--share is 3; 8 devices can be shared by 1, 2, 4, 8."),
        (Host("cpu", (0,), 0, 1), "--share is 3, but on a CPU one run goes after the other; leave it out."),
    ],
)
def test_a_share_that_cannot_be_had_is_one_sentence(host, sentence):
    assert shares.size(30, GPUS, 2) == 2
    with pytest.raises(ValueError, match="--share is 3") as error:
        shares.size(30, host, 3)
    assert str(error.value) == sentence


def test_gpus_are_named_as_the_process_itself_got_them():
    assert shares.environment(GPUS, range(4, 6), {}) == {"CUDA_VISIBLE_DEVICES": "4,5"}
    some = Host("gpu", (0, 1, 2), 0, 1)
    assert shares.environment(some, range(1, 2), {"CUDA_VISIBLE_DEVICES": "5,GPU-3f,7"}) == {
        "CUDA_VISIBLE_DEVICES": "GPU-3f"
    }
    assert shares.environment(GPUS, range(8), {}) == {}
    one_of_a_node = Host("gpu", (3,), 3, 8)
    assert shares.environment(one_of_a_node, range(1), {}) == {"CUDA_VISIBLE_DEVICES": "3"}


def test_tpu_chips_are_a_slice_of_one_process_with_a_port_of_its_own():
    host = Host("tpu", (0, 1, 2, 3), 1, 4)
    first, second = (shares.environment(host, share, {}) for share in (range(2), range(2, 4)))
    assert (first["TPU_VISIBLE_CHIPS"], second["TPU_VISIBLE_CHIPS"]) == ("0,1", "2,3")
    assert first["TPU_PROCESS_BOUNDS"] == "1,1,1" and first["TPU_CHIPS_PER_PROCESS_BOUNDS"] == "1,2,1"
    assert first["TPU_PROCESS_ADDRESSES"] == f"localhost:{first['TPU_PROCESS_PORT']}"
    assert shares.environment(host, range(4), {})["TPU_CHIPS_PER_PROCESS_BOUNDS"] == "2,2,1"
    assert shares.environment(host._replace(process=0, processes=1), range(4), {}) == {}


def test_a_process_that_waits_in_vain_for_the_first_one_says_so(tmp_path, capfd):
    alone = {"coordinator": "127.0.0.1:9", "processes": 2, "process": 1, "timeout": 1.0}
    with pytest.raises(hosts.Lost, match="has ended; see above"):
        shares.look(alone, tmp_path)
    assert "lotto-jax: Process 0 did not come within 1 s. Start all" in capfd.readouterr().err


def test_another_process_looks_at_the_devices(tmp_path):
    found = shares.look({**default().distributed, "coordinator": "off"}, tmp_path)
    assert found == Host("cpu", (0,), 0, 1) and jax.default_backend() == "cpu"
