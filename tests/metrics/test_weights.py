"""Weights, from files that are written here byte by byte: these tests run without PyTorch."""

import functools
import http.server
import io
import pickle
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from lotto_jax.metrics import weights


class _Fake:
    """Pickles as a call of a function of another module."""

    def __init__(self, module: str, name: str, *args):
        self.module, self.name, self.args = module, name, args


class _Global:
    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Pickler(pickle._Pickler):
    """A pickler (protocol 2) that writes references to modules that need not exist here."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_global_name(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def save_call(self, obj):
        self.save_global_name(obj)
        self.save(obj.args)
        self.write(pickle.REDUCE)

    def persistent_id(self, obj):
        return obj[1:] if isinstance(obj, tuple) and obj[:1] == ("persistent",) else None

    dispatch[_Global] = save_global_name
    dispatch[_Fake] = save_call


def write_zip(path: Path, tensors: dict[str, np.ndarray], extra: object = None) -> Path:
    """What torch.save writes for a state_dict of contiguous tensors."""
    state: dict = OrderedDict()
    storages = {}
    for index, (name, value) in enumerate(tensors.items()):
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[value.dtype.name]
        storage = ("persistent", "storage", _Global("torch", kind), str(index), "cpu", value.size)
        strides = tuple(s // value.itemsize for s in value.strides)
        state[name] = _Fake(
            "torch._utils", "_rebuild_tensor_v2", storage, 0, value.shape, strides, False, OrderedDict()
        )
        storages[str(index)] = value.tobytes()
    if extra is not None:
        state["extra"] = extra
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, value in storages.items():
            archive.writestr(f"archive/data/{key}", value)
    return path


@functools.cache
def random_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: np.abs(rng.standard_normal(shape, dtype=np.float32)) for name, shape in weights.expected_shapes().items()
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LOTTO_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_shapes_are_those_of_the_published_network():
    shapes = weights.expected_shapes()
    assert len(shapes) == 94 * 5 + 2
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)
    assert shapes["Mixed_7c.branch_pool.bn.running_var"] == (192,)
    assert shapes["fc.weight"] == (1008, 2048)
    assert sum(np.prod(s) for s in shapes.values()) == 23_885_392


def test_convert_and_load(tmp_path, cache):
    tensors = random_tensors()
    counters = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.asarray(3)}
    path = write_zip(tmp_path / "random.pth", tensors | counters)
    assert weights.convert(path) == weights.default_path() == cache / "inception-2015-12-05.safetensors"
    params, digest = weights.load()
    np.testing.assert_array_equal(params["fc"]["kernel"][0, 0], tensors["fc.weight"].T)
    prefix = "Mixed_6b.branch7x7_2."
    scale = tensors[prefix + "bn.weight"] / np.sqrt(tensors[prefix + "bn.running_var"] + 1e-3)
    np.testing.assert_allclose(
        params["Mixed_6b"]["branch7x7_2"]["kernel"],
        tensors[prefix + "conv.weight"].transpose(2, 3, 1, 0) * scale,
        rtol=1e-5,
    )
    assert len(digest) == 64 and weights.load()[1] == digest


def test_missing_weights_name_both_commands():
    with pytest.raises(FileNotFoundError) as error:
        weights.load()
    assert "`lotto-jax weights convert PATH`" in str(error.value)
    assert "`lotto-jax weights fetch`" in str(error.value)


def test_pickled_code_does_not_run(tmp_path):
    witness = tmp_path / "witness"
    path = write_zip(tmp_path / "evil.pth", {}, _Fake("os", "mkdir", str(witness)))
    with pytest.raises(ValueError, match=r"evil\.pth .*asks for os\.mkdir"):
        weights.read_pytorch(path)
    assert not witness.exists()


@pytest.mark.parametrize("offset, strides", [(3, (2, 1)), (0, (4, 1)), (-1, (2, 1)), (0, (-2, 1))])
def test_tensors_outside_their_storage_are_refused(tmp_path, offset, strides):
    storage = ("persistent", "storage", _Global("torch", "FloatStorage"), "0", "cpu", 6)
    call = _Fake("torch._utils", "_rebuild_tensor_v2", storage, offset, (3, 2), strides, False, OrderedDict())
    path = write_zip(tmp_path / "short.pth", {"a": np.zeros(6, np.float32)}, call)
    with pytest.raises(ValueError, match="'extra' does not fit into its storage"):
        weights.read_pytorch(path)


def test_strided_tensors_are_read_in_their_order(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = write_zip(tmp_path / "t.pth", {"a": value.T})
    with zipfile.ZipFile(path) as archive:
        assert "archive/data/0" in archive.namelist()
    # tobytes() wrote the transposed array in its own order, so its strides read the storage crosswise.
    stored = np.frombuffer(value.T.tobytes(), np.float32)
    expected = np.lib.stride_tricks.as_strided(stored, (3, 2), (4, 12))
    np.testing.assert_array_equal(weights.read_pytorch(path)["a"], expected)


def test_wrong_names_shapes_and_numbers_are_named(tmp_path):
    tensors = random_tensors()
    name = "Mixed_7a.branch3x3_1.conv.weight"
    cases = {
        "has no 'fc.bias'": {n: v for n, v in tensors.items() if n != "fc.bias"},
        "has 'AuxLogits.fc.weight'": tensors | {"AuxLogits.fc.weight": np.zeros((1, 1), np.float32)},
        "'fc.weight' has shape \\(1000, 2048\\)": tensors | {"fc.weight": np.zeros((1000, 2048), np.float32)},
        f"'{name}' has entries that are not finite": tensors | {name: tensors[name] * np.float32("nan")},
    }
    for sentence, changed in cases.items():
        with pytest.raises(ValueError, match=sentence):
            weights.convert(write_zip(tmp_path / "wrong.pth", changed))
    assert not weights.default_path().exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps([1, 2]), b"PK\x03\x04 broken"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.pth is"):
        weights.convert(path)


def test_published_file_is_checked_by_its_sum(tmp_path):
    path = write_zip(tmp_path / weights.PUBLIC_NAMES[0], {"a": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match=r"has SHA-256 .*, expected 6726825d"):
        weights.convert(path)


def test_changed_safetensors_file_is_refused(tmp_path):
    path = weights.convert(write_zip(tmp_path / "random.pth", random_tensors()))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="does not match the checksum"):
        weights.load()
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="is no safetensors file"):
        weights.load()


def test_fetch_downloads_and_converts(tmp_path):
    write_zip(tmp_path / "random.pth", random_tensors())
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            path = weights.fetch(url=f"http://127.0.0.1:{server.server_port}/random.pth")
            missing = f"http://127.0.0.1:{server.server_port}/none.pth"
            with pytest.raises(ConnectionError, match=r"none\.pth .*weights convert PATH"):
                weights.fetch(url=missing)
        finally:
            server.shutdown()
            thread.join()
    assert weights.load(path)[0]["fc"]["bias"].shape == (1008,)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass
