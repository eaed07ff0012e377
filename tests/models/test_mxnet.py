from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from wsss.errors import UserError
from wsss.models.published.mxnet import read_mxnet_params
from wsss.models.resnet38 import rename_from_mxnet

DATA = Path(__file__).parents[1] / "reference"
LAYOUTS = ["sample_mxnet.params", "sample_mxnet_v1.params", "sample_mxnet_v0.params"]


def expected_arrays() -> dict[str, np.ndarray]:
    with np.load(DATA / "sample_mxnet.npz") as file:
        return {key.replace("__", ":", 1): file[key] for key in file.files}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_mxnets_own_arrays(name):
    expected = expected_arrays()
    read = read_mxnet_params(DATA / name)
    assert len(read) == (14 if name == "sample_mxnet.params" else 5)
    for key, tensor in read.items():
        assert tensor.numpy().dtype == expected[key].dtype
        np.testing.assert_array_equal(tensor.numpy(), expected[key])


def params_file(array: bytes, names: list[bytes] = [b"arg:x"], count: int = 1) -> bytes:  # noqa: B006
    listed = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    head = struct.pack("<QQQ", 0x112, 0, count)
    return head + array + struct.pack("<Q", len(names)) + listed


def v2_array(shape: tuple[int, ...], flag: int, data: bytes) -> bytes:
    head = struct.pack("<IiI", 0xF993FAC9, 0, len(shape)) + struct.pack(f"<{len(shape)}q", *shape)
    return head + struct.pack("<iii", 1, 0, flag) + data


@pytest.mark.parametrize(
    ("flag", "dtype"),
    [(0, "f4"), (1, "f8"), (2, "f2"), (3, "u1"), (4, "i4"), (5, "i1"), (6, "i8")],
)
def test_types(tmp_path, flag, dtype):
    values = np.array([[1, 2, 3], [4, 5, 100]], dtype=dtype)
    path = tmp_path / "x.params"
    path.write_bytes(params_file(v2_array((2, 3), flag, values.tobytes())))
    read = read_mxnet_params(path)["arg:x"]
    assert read.numpy().dtype == values.dtype
    np.testing.assert_array_equal(read.numpy(), values)


DAMAGED = {
    "empty": b"",
    "something else": b"PK\x03\x04" + bytes(60),
    "more arrays than bytes": struct.pack("<QQQ", 0x112, 0, 2**40) + bytes(64),
    "huge shape": params_file(v2_array((2**31, 2**31), 0, bytes(16))),
    "product beyond 64 bits": params_file(v2_array((2**40, 2**40, 2**40), 0, bytes(16))),
    "negative size": params_file(v2_array((-1, 4), 0, bytes(16))),
    "zero size": params_file(v2_array((0, 4), 0, b"")),
    "no dimensions": params_file(v2_array((), 0, bytes(4))),
    "unknown type": params_file(v2_array((4,), 99, bytes(16))),
    "sparse": params_file(struct.pack("<Ii", 0xF993FAC9, 1) + bytes(40)),
    "dimensions by the million": params_file(struct.pack("<I", 1_000_000) + bytes(64)),
    "long name": struct.pack("<QQQ", 0x112, 0, 1)
    + v2_array((4,), 0, bytes(16))
    + struct.pack("<QQ", 1, 2**50)
    + b"arg:x",
    "a name too few": params_file(v2_array((4,), 0, bytes(16)), names=[]),
    "bytes after the end": params_file(v2_array((4,), 0, bytes(16))) + b"x",
    "a name twice": params_file(
        2 * v2_array((4,), 0, bytes(16)), names=[b"arg:x", b"arg:x"], count=2
    ),
    "a name not UTF-8": params_file(v2_array((4,), 0, bytes(16)), names=[b"\xff\xfe"]),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_errors_and_cost_no_memory(tmp_path, content):
    path = tmp_path / "x.params"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read_mxnet_params(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_cut_anywhere_is_an_error(tmp_path):
    whole = (DATA / "sample_mxnet_v0.params").read_bytes()
    path = tmp_path / "x.params"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_mxnet_params(path)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("arg:conv1a_weight", "conv1a.weight"),
        ("arg:bn2a_branch2a_gamma", "blocks.b2.norm1.weight"),
        ("arg:bn2a_branch2a_beta", "blocks.b2.norm1.bias"),
        ("aux:bn2a_branch2a_moving_mean", "blocks.b2.norm1.running_mean"),
        ("aux:bn2a_branch2a_moving_var", "blocks.b2.norm1.running_var"),
        ("arg:res2a_branch1_weight", "blocks.b2.shortcut.weight"),
        ("arg:res4b5_branch2b1_weight", "blocks.b4_5.conv2.weight"),
        ("arg:res7a_branch2b2_weight", "blocks.b7.conv3.weight"),
        ("aux:bn7_moving_mean", "norm7.running_mean"),
        ("arg:linear1000_weight", "arg:linear1000_weight"),
    ],
)
def test_names(theirs, ours):
    assert rename_from_mxnet(theirs) == ours
