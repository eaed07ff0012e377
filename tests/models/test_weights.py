from __future__ import annotations

import collections

import pytest
import torch
from torch import nn

from wsss.errors import UserError
from wsss.models.weights import load_model_file, load_strict, read_state_dict, save_model


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_model_file_round_trip_and_same_bytes(tmp_path):
    net = network().to(memory_format=torch.channels_last)
    metadata = {"b": [1, 2], "a": {"z": 1.5, "y": "é"}}
    save_model(tmp_path / "a.safetensors", net.state_dict(), stage="cam", metadata=metadata)
    reordered = dict(reversed(net.state_dict().items()))
    other = {"a": {"y": "é", "z": 1.5}, "b": [1, 2]}
    save_model(tmp_path / "b.safetensors", reordered, stage="cam", metadata=other)
    bytes_ = [(tmp_path / f"{name}.safetensors").read_bytes() for name in "ab"]
    assert bytes_[0] == bytes_[1]
    state, read = load_model_file(tmp_path / "a.safetensors", "cam")
    assert read == {**metadata, "stage": "cam", "format_version": 2}
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


def test_a_foreign_or_damaged_model_file_is_an_error(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata={"a": "b"})
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 32)
    causes = {"foreign": "not written by", "damaged": "not a readable", "missing": "does not exist"}
    for name, cause in causes.items():
        with pytest.raises(UserError, match=cause):
            load_model_file(tmp_path / f"{name}.safetensors", "cam")


def test_a_model_of_another_stage_is_an_error(tmp_path):
    save_model(tmp_path / "m.safetensors", network().state_dict(), stage="irn", metadata={})
    with pytest.raises(UserError, match="of stage 'irn', version 2"):
        load_model_file(tmp_path / "m.safetensors", "cam")


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_pickles_bare_or_wrapped(tmp_path, wrap):
    state = network().state_dict()
    path = tmp_path / "x.pth"
    torch.save(state if wrap is None else {wrap: state, "epoch": 3}, path)
    read = read_state_dict(path)
    assert list(read) == list(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


class Unwanted:
    def __reduce__(self):
        return (collections.namedtuple, ("x", "y"))


def test_a_pickle_with_more_than_weights_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": network().state_dict(), "callback": Unwanted()}, path)
    with pytest.raises(UserError, match="weights_only=False"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(100)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".params", ".txt"])
def test_files_that_are_something_else(tmp_path, content, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError):
        read_state_dict(path)


def test_a_pickle_without_a_state_dict(tmp_path):
    for value in ([1, 2], {"epoch": 3}, {}):
        torch.save(value, tmp_path / "x.pth")
        with pytest.raises(UserError):
            read_state_dict(tmp_path / "x.pth")


def test_load_strict_reports_and_copies():
    source, target = network(), network()
    state = {f"net.{key}": value for key, value in source.state_dict().items()}
    state["net.fc.weight"] = torch.zeros(2)
    report = load_strict(
        target,
        state,
        rename=lambda name: name.removeprefix("net."),
        leave_out=["net.fc.weight"],
    )
    assert report.left_out == ("net.fc.weight",)
    assert set(report.used) | set(report.left_out) == set(state)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def broken_states() -> dict[str, dict[str, torch.Tensor]]:
    state = network().state_dict()
    missing = {key: value for key, value in state.items() if key != "0.weight"}
    return {
        "missing": missing,
        "unknown": {**state, "2.weight": torch.zeros(1)},
        "shape": {**state, "0.weight": torch.zeros(4, 3, 1, 1)},
        "twice": {**state, "again.0.weight": state["0.weight"]},
    }


@pytest.mark.parametrize("what", broken_states())
def test_load_strict_refuses_and_changes_nothing(what):
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UserError):
        load_strict(target, broken_states()[what], rename=lambda name: name.removeprefix("again."))
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_batchnorm_counters_may_be_missing():
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    load_strict(network(), state)
