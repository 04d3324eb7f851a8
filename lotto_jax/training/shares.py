"""Shares of a host's devices, for several runs at once: what there is, who gets what, and how a process keeps to it.

A share is an aligned block of neighbouring devices, whose size divides the number of devices: blocks of different sizes
then never overlap in part, and neighbouring chips of a TPU are a rectangle.
"""

import multiprocessing
import socket
from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import jax

from lotto_jax.training import hosts

BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}  # of so many neighbouring chips of a TPU host


class Host(NamedTuple):
    """What a process may use.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      devices: numbers of its GPUs, or of its TPU chips; (0,) for a CPU, which is not shared.
      process: which of the processes it is, from 0.
      processes: how many there are, as a rule one a host.
    """

    platform: str
    devices: tuple[int, ...]
    process: int
    processes: int


def look(distributed: Mapping[str, Any], root: Path) -> Host:
    """What this process may use, found by another one that gives it back: only one at a time can have a TPU.

    Args:
      distributed: `config.distributed`; the processes wait for each other here.
      root: of the run directories.

    Raises:
      Lost: if the others do not come within `config.distributed.timeout`; the reason is on stderr then.
      ValueError: as `hosts.initialize`.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_look, dict(distributed), root).result()
        except BrokenProcessPool as error:  # so it ends, with a sentence, where it waits in vain for others
            raise hosts.Lost("The process that looks for devices and other processes has ended; see above.") from error


def _look(distributed: dict[str, Any], root: Path) -> Host:
    hosts.initialize(distributed, root)
    local: list[Any] = jax.local_devices()
    found: Collection[int] = (0,)
    if local[0].platform == "gpu":
        found = [device.local_hardware_id for device in local]
    elif local[0].platform == "tpu":  # some generations have two devices on a chip
        found = range(len({tuple(device.coords) for device in local}))
    host = Host(local[0].platform, tuple(found), jax.process_index(), jax.process_count())
    if host.processes > 1:
        jax.distributed.shutdown()
    return host


def size(tickets: int, host: Host, wanted: int = 0) -> int:
    """How many devices a run gets: as many as it has tickets, rounded down to a divisor of what there is.

    Args:
      tickets: that train together.
      host: whose devices are shared.
      wanted: so many instead; 0: by the tickets.

    Raises:
      ValueError: if the devices cannot be divided so.
    """
    there = len(host.devices)
    divisors = [n for n in range(1, there + 1) if there % n == 0]
    if not wanted:
        return max(n for n in divisors if n <= max(tickets, 1))
    if host.platform == "cpu" and wanted != 1:
        raise ValueError(f"--share is {wanted}, but on a CPU one run goes after the other; leave it out.")
    if wanted not in divisors:
        raise ValueError(f"--share is {wanted}; {there} devices can be shared by {', '.join(map(str, divisors))}.")
    return wanted


def starts(waiting: Mapping[str, int], busy: Collection[int], devices: int) -> dict[str, range]:
    """Which runs begin now, and where.

    Args:
      waiting: sizes of the shares that runs wait for, in the order in which they are served.
      busy: positions of the devices that are in use.
      devices: how many there are; every size divides it.

    Returns:
      Positions of the devices, for the runs that find theirs free.
    """
    taken, found = set(busy), {}
    for name, wanted in waiting.items():
        blocks = (range(first, first + wanted) for first in range(0, devices, wanted))
        block = next((block for block in blocks if taken.isdisjoint(block)), None)
        if block is not None:
            found[name] = block
            taken.update(block)
    return found


def environment(host: Host, share: range, outer: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that keep a process to its share.

    Args:
      host: whose devices are shared.
      share: positions in `host.devices`.
      outer: the environment variables of this process, which may itself have been given some GPUs only.

    Returns:
      What to add to `outer`; nothing where the share is all there is.
    """
    if host.platform == "cpu" or (len(share) == len(host.devices) and host.processes == 1):
        return {}
    numbers = [host.devices[i] for i in share]
    if host.platform == "gpu":
        visible = outer.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else None
        return {"CUDA_VISIBLE_DEVICES": ",".join(names[n] if names else str(n) for n in numbers)}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    return {
        "TPU_VISIBLE_CHIPS": ",".join(map(str, numbers)),
        "TPU_CHIPS_PER_PROCESS_BOUNDS": BOUNDS[len(share)],
        "TPU_PROCESS_BOUNDS": "1,1,1",  # one process is the whole of its slice
        "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
        "TPU_PROCESS_PORT": port,
        "CLOUD_TPU_TASK_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
