"""Several processes, one a host, that make one run: who writes, what all of them are told, and which one is missing.

All processes run the same code in the same order. The first decides what follows a clock or a file, and writes; the
others are told. A process that fails says so where the others meet next; one that is gone or stands still is missed by
a thread of the others. So all stop with a sentence. With a single process every function here is trivial.
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from lotto_jax import progress
from lotto_jax.training import roll

GRACE_SECONDS = 5.0  # that a process which stops waits for the others to hear of it
LOOK_SECONDS = 1.0  # between two signs of life
MEETING_SECONDS = 86_400.0  # that a process waits for others that are alive; the first may measure for long
MESSAGE_BYTES = 1024  # messages are padded to multiples, so that few programs are compiled

Inputs = ParamSpec("Inputs")
Value = TypeVar("Value")

_meetings = itertools.count()
_over: list[int] = []  # the exit status, once nothing is left to do but to end
_LIBC = ctypes.CDLL(None)  # Python's own handlers of signals run in the main thread, which waits for a lost process


class Lost(Exception):
    """Another process of the run is missing, or has stopped."""


def initialize(distributed: Mapping[str, Any], workdir: Path) -> None:
    """Find the other processes of the run, before JAX computes anything.

    A program that has called `jax.distributed.initialize` is left as it is. If the others do not come in time the
    process ends with a sentence, which names them where the processes are numbered and share the run directory.

    Args:
      distributed: `config.distributed`.
      workdir: the run directory, which need not exist.

    Raises:
      ValueError: if the fields make no sense, or JAX computes already.
    """
    coordinator, timeout = distributed["coordinator"], distributed["timeout"]
    if coordinator == "off" or jax.distributed.is_initialized():
        return
    arguments = {} if coordinator == "auto" else _arguments(**distributed)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from `Preemption`
    # Our own limits are to come first: they end in a sentence, JAX's limits in an abort.
    arguments["initialization_timeout"] = arguments["heartbeat_timeout_seconds"] = int(timeout + 60)
    place = roll.place(distributed, os.environ)
    marks = roll.Roll(workdir, place, timeout) if place and place.processes != 1 else None
    patience = threading.Timer(timeout, lambda: _end(_waited(marks, timeout)))
    patience.daemon = True
    patience.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a cluster that could be one of several processes
            jax.distributed.initialize(**arguments)
        jax.devices()  # all of them report theirs
        if jax.process_count() > 1:
            _LIBC.signal(signal.SIGABRT, _aborted)
        if marks and is_first():
            marks.end()
    except (ValueError, RuntimeError) as error:
        if marks:
            marks.withdraw()
        undetected = isinstance(error, ValueError) or "must be called before" in str(error)
        if coordinator != "auto" or not undetected:
            raise ValueError(
                f"config.distributed.coordinator is {coordinator!r}, but the processes cannot be joined "
                f"({_first_line(error)}); set it to 'off' for a single process."
            ) from error
    finally:
        patience.cancel()


def _waited(marks: roll.Roll | None, seconds: float) -> str:
    """What a process says that has waited in vain at the start."""
    remedy = "Start all with the same config.distributed.coordinator, or raise config.distributed.timeout."
    if marks and (absent := marks.absent()):
        return f"{_listed(absent)} did not come within {seconds:g} s. {remedy}"
    if marks and (came := marks.came()):
        return f"Only {_listed(came).lower()} came within {seconds:g} s, or they cannot reach each other. {remedy}"
    return (
        f"Not all processes of the run came within {seconds:g} s; each that came says this, so the one that does not "
        f"is missing. {remedy}"
    )


def _arguments(coordinator: str, processes: int, process: int, **_: Any) -> dict[str, Any]:
    if not re.fullmatch(r"\S+:\d+", coordinator):
        raise ValueError(f"config.distributed.coordinator is {coordinator!r}; it takes auto, off, or host:port.")
    if not 0 <= process < processes:
        raise ValueError(
            f"config.distributed.process is {process}, of config.distributed.processes = {processes}; "
            "processes are numbered from 0."
        )
    return {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}


def is_first() -> bool:
    """Whether this process is the one that decides and writes."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """A line on the terminal of the first process."""
    if is_first():
        progress.say(text)


def everyones(value: Any) -> list[Any]:
    """The values that all processes give, in their order; each waits for the others here.

    Args:
      value: a JSON value.

    Raises:
      Lost: if a process has stopped.
    """
    if jax.process_count() == 1:
        return [value]
    found = _exchange({"value": value}, MEETING_SECONDS)
    for process, other in enumerate(found):
        if "stopped" in other:
            raise Lost(f"Process {process} stopped: {other['stopped']}")
    return [other["value"] for other in found]


def told(value: Any) -> Any:
    """The value that the first process gives, on all of them; a JSON value. Raises as `everyones` does."""
    return everyones(value if is_first() else None)[0]


def first(function: Callable[Inputs, Value], *args: Inputs.args, **kwargs: Inputs.kwargs) -> Value:
    """What the function, called by the first process alone, returns; the others wait. Raises as `everyones` does.

    Args:
      function: returns a JSON value.
      *args, **kwargs: its arguments.
    """
    return told(function(*args, **kwargs) if is_first() else None)


def _exchange(message: Any, seconds: float) -> list[Any]:
    _meet(f"lotto_jax-meeting-{next(_meetings)}", seconds)
    text = np.frombuffer(json.dumps(message).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(text.size))
    padded = np.zeros(-(-max(sizes) // MESSAGE_BYTES) * MESSAGE_BYTES, np.uint8)
    padded[: text.size] = text
    texts = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(texts, sizes, strict=True)]


def _meet(name: str, seconds: float) -> None:
    """Wait for all processes to come; on the hosts, as devices would wait for a lost process without end."""
    try:
        everyone = set(range(jax.process_count()))
        ocp.multihost.sync_global_processes(name, timeout=max(1, int(seconds)), processes=everyone)
    except jax.errors.JaxRuntimeError as error:
        names = _missing(str(error))
        if jax.process_index() in names:  # this one came late to others that had stopped
            what = "Another process has stopped and says on its terminal why"
        elif names:
            what = f"{_listed(names)} has given no sign of life for {seconds:g} s"
        else:
            what = f"Another process is lost ({_first_line(error)})"
        raise Lost(
            f"{what}; the same command goes on from what is saved, with as many processes as there are."
        ) from error


class _Lookout:
    """A thread in which the processes wait for a sign of life of each other, whatever else they do."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._started, self._last = 0, -1
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while True:
            with self._gate:
                if self._started == self._last:
                    return
                self._started += 1
            try:
                _meet(f"lotto_jax-alive-{self._started}", self.seconds)
            except Lost as lost:
                _end(str(lost))
            time.sleep(LOOK_SECONDS)

    def wait(self) -> None:
        """Give it the time to miss a process."""
        self._thread.join(self.seconds + GRACE_SECONDS)

    def end(self) -> None:
        """End it in all processes, after as many signs of life as the furthest of them has begun."""
        with self._gate:
            self._last = max(_exchange(self._started, GRACE_SECONDS))
        self._thread.join()


def _end(message: str) -> None:
    """End the process from a thread: the main one may wait without end for what a lost process has to do."""
    print(f"lotto-jax: {message}", file=sys.stderr, flush=True)
    os._exit(1)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    """What a process says that JAX aborts, from a thread of its own, since it has lost the coordination service.

    Where all is done, the first process has only ended a moment earlier than JAX had let go of it.
    """
    if _over:
        os._exit(_over[0])
    _end(
        "Process 0, where JAX's coordination service lives, is lost; the same command goes on from what is saved, with "
        "as many processes as there are."
    )


def _missing(report: str) -> list[int]:
    """Which processes the coordination service does not hear of any more, by its report on a barrier."""
    listed = re.search(r"timed out task names:\s*((?:\S+\s*\n)+)", report)
    names = re.findall(r"(\d+)\s*$", listed[1], re.MULTILINE) if listed else re.findall(r"Task (\d+) heartbeat", report)
    if not names and report.startswith("UNAVAILABLE"):
        names = ["0"]  # which is where the service lives
    return [int(name) for name in names]


def _listed(names: list[int]) -> str:
    *others, last = map(str, names)
    return f"Processes {', '.join(others)} and {last}" if others else f"Process {last}"


def complain(error: BaseException) -> None:
    """Say once, as the command line does, what went wrong."""
    if str(error) and not getattr(error, "_complained", False):
        progress.fault(error)
        vars(error)["_complained"] = True


@contextlib.contextmanager
def together(seconds: float) -> Iterator[None]:
    """What is done inside fails in all processes if it fails in one.

    The process ends, with a sentence, if another one gives no sign of life for so many seconds.

    Raises:
      Lost: if another process has stopped.
    """
    if jax.process_count() == 1:
        yield
        return
    _over.clear()
    lookout = _Lookout(seconds)
    try:
        yield
        _over[:] = [0]
    except Lost:
        raise
    except Exception as error:
        complain(error)  # now: JAX aborts this process once another one has left
        try:
            # The others hear of it where they meet next, which may be behind a compilation.
            _exchange({"stopped": _first_line(error)}, seconds)
        except Lost:
            lookout.wait()  # what failed may have needed a process that is gone
        raise
    finally:
        with contextlib.suppress(Lost):
            lookout.end()


def leave(status: int) -> NoReturn:
    """End this process: with the others, or without them if they do not come."""
    if jax.process_count() > 1 and status:
        try:
            _exchange({"stopped": f"exit status {status}"}, GRACE_SECONDS)
            _over[:] = [status]
        except (Lost, jax.errors.JaxRuntimeError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # the regular end waits for all, and aborts if one is missing
    if status:
        # What Orbax could not write it drops when the interpreter ends, with complaints that would hide the sentence.
        atexit.register(setattr, sys, "unraisablehook", lambda unraisable: None)
        atexit.register(warnings.simplefilter, "ignore")
    sys.exit(status)


def gathered(tree: PyTree) -> PyTree:
    """Arrays that all processes hold together as NumPy arrays in each of them; keys stay keys, on a local device."""

    def gather(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(gather(_key_data(x))))
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(gather, tree)


def place(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Arrays under a sharding over the devices of all processes, each of which copies only to its own.

    Args:
      tree: NumPy arrays, or arrays of local devices, the same in every process; or arrays that lie on all of them.
      sharding: what for.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(x: Any) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(_key_data(x)))
        if isinstance(x, jax.Array) and x.sharding.device_set == sharding.device_set:
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and x.is_fully_replicated and sharding.is_fully_replicated:
            held = {shard.device: shard.data for shard in x.addressable_shards}  # which the result shares
            any_of = next(iter(held.values()))
            own = [held[d] if d in held else jax.device_put(any_of, d) for d in sharding.addressable_devices]
            return jax.make_array_from_single_device_arrays(x.shape, sharding, own)
        host = gathered(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree)


_key_data = jax.jit(jax.random.key_data)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
