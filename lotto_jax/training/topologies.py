"""Devices by name, whether they are here or only their compiler is: what `lotto-jax preflight` compiles for.

The TPU compiler comes with the package libtpu and the CUDA compiler with JAX's CUDA plugin; both run on any machine.
JAX is imported when devices are asked for, since `environment` has to be set before.
"""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import jax

HERE = "this"
NAMES = "v4:2x2x1, v5p:2x2x1, v5e:2x4, v6e:16x16 and so on, h100:1x1x8 (slices x hosts x GPUs), or this"
_NAME = re.compile(r"(v4|v5p|v5e|v6e|h100):(\d+(?:x\d+)+)")
# GiB of a device as JAX has them without megacore: a chip, but on a TPU v4 one of the chip's two cores.
_TPU_MEMORY = {"v4": 16, "v5p": 95, "v5e": 16, "v6e": 32}
# What the compiler has to know about an H100 SXM: NVIDIA's data sheet and the limits of compute capability 9.0.
_H100_CORES = {
    "core_count": 132,
    "fpus_per_core": 128,
    "clock_rate_ghz": 1.98,
    "threads_per_warp": 32,
    "threads_per_block_limit": 1024,
    "threads_per_core_limit": 2048,
    "registers_per_block_limit": 65536,
    "registers_per_core_limit": 65536,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "shared_memory_per_core": 228 * 2**10,
    "l2_cache_size": 50 * 2**20,
    "memory_bandwidth": 3_352_320_000_000,
    "device_memory_size": 79 * 2**30,
}
# JAX's allocator takes this share of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_GPU_SHARE = 0.75


class Topology(NamedTuple):
    """Devices that programs can be compiled for.

    Attributes:
      name: as it was asked for.
      devices: all of them.
      chips: how many chips they are, which is what is paid for.
      memory: bytes that programs can use on a device; 0 if unknown.
    """

    name: str
    devices: "Sequence[jax.Device]"
    chips: int
    memory: int

    @property
    def platform(self) -> str:
        """`cpu`, `gpu` or `tpu`."""
        return self.devices[0].platform


def environment(name: str) -> dict[str, str]:
    """The environment variables to set before JAX is imported: no accelerator is looked for where none is needed."""
    if name == HERE:
        return {}
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # what is compiled for absent devices cannot be read from it
        "TPU_SKIP_MDS_QUERY": "1",  # the metadata server of TPU machines
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # compilers, unlike TPUs, can be used by several processes
    }


def of(name: str) -> Topology:
    """The devices of a topology.

    Args:
      name: one of `NAMES`.

    Raises:
      ValueError: if there is no such topology, or its compiler is not installed.
    """
    if name == HERE:
        return _here()
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"--topology is {name!r}; it takes {NAMES}.")
    kind, shape = match.groups()
    return _h100(name, shape) if kind == "h100" else _tpu(name, kind, shape)


def _here() -> Topology:
    import jax

    devices = jax.devices()
    memory = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
    return Topology(HERE, devices, len(devices), memory)


def _tpu(name: str, kind: str, shape: str) -> Topology:
    sides = [int(side) for side in shape.split("x")]
    # A host has 2x2 chips; slices of fewer are hosts of their own.
    bounds = [min(side, 2) for side in (*sides, 1, 1)[:2]] + [1]
    devices = _devices(name, "tpu", 'pip install "lotto_jax[tpu]"', topology_name=name, chips_per_host_bounds=bounds)
    return Topology(name, devices, math.prod(sides), _TPU_MEMORY[kind] * 2**30)


def _h100(name: str, shape: str) -> Topology:
    described = "\n".join(f"{key}: {value}" for key, value in _H100_CORES.items())
    target = (
        f"gpu_device_info {{ {described} cuda_compute_capability {{ major: 9 }} }} "
        'platform_name: "CUDA" runtime_version { major: 12 minor: 8 } dnn_version_info { major: 9 minor: 7 } '
        'device_description_str: "NVIDIA H100 80GB HBM3"'
    )
    devices = _devices(
        name, "cuda", "pip install jax-cuda12-plugin jax-cuda12-pjrt", topology=shape, target_config=target
    )
    return Topology(name, devices, len(devices), int(_GPU_SHARE * _H100_CORES["device_memory_size"]))


def _devices(name: str, platform: str, remedy: str, topology_name: str = "", **options: Any) -> "Sequence[jax.Device]":
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(topology_name, platform, **options).devices
    except JaxRuntimeError as error:
        raise ValueError(f"--topology is {name!r}, which the compiler refuses ({error}); it takes {NAMES}.") from error
    except (RuntimeError, NotImplementedError) as error:  # the plugin is not there
        raise ValueError(f"--topology is {name!r}, but its compiler is not installed here; {remedy}.") from error
