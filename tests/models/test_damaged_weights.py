"""Weights that are not what was written, or claim more than they hold, are never used."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from segmentation_helpers import CLASSES, tiny_config
from torch import nn

from wsss.errors import UserError
from wsss.models.digests import content_digest
from wsss.models.weights import load_model_file, load_strict, read_state_dict, save_model
from wsss.segmentation.model_file import SEGMENTATION, build_network


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "m.safetensors"
    save_model(path, network().state_dict(), stage="cam", metadata={"settings": {"q": 0.5}})
    return path


def rewrite(path: Path, changes: dict[str, Any], *, tensors: Any = None) -> None:
    """Write a model again with other metadata, as no `save_model` would."""
    with safetensors.safe_open(str(path), framework="pt") as handle:
        described = {**json.loads(handle.metadata()["wsss"]), **changes}
    kept = {key: value for key, value in described.items() if value is not None}
    state = tensors or safetensors.torch.load_file(path)
    safetensors.torch.save_file(state, path, metadata={"wsss": json.dumps(kept)})


def test_the_digest_is_of_values_and_can_be_made_by_hand() -> None:
    state = {"b": torch.arange(3, dtype=torch.float32), "a": [1, None, "é"]}
    value = hashlib.sha256(state["b"].numpy().tobytes()).hexdigest()  # type: ignore[attr-defined]
    inner = ["list", [["int", "1"], ["NoneType", "None"], ["str", "'é'"]]]
    outline = ["mapping", [["'a'", inner], ["'b'", ["tensor", "torch.float32", [3]]]]]
    expected = hashlib.sha256(f"{json.dumps(outline)}\n{value}".encode()).hexdigest()
    assert content_digest(state) == expected
    assert content_digest(dict(reversed(state.items()))) == expected
    assert content_digest({**state, "b": torch.arange(3.0)[None]}) != expected
    assert content_digest({**state, "b": torch.arange(3)}) != expected
    assert content_digest({**state, "a": [1.0, None, "é"]}) != expected


def test_layout_in_memory_does_not_count() -> None:
    image = torch.rand(2, 3, 4, 5)
    spread = torch.zeros(2, 3, 4, 10)[..., ::2].copy_(image)
    others = [image.to(memory_format=torch.channels_last), spread]
    assert {content_digest(one) for one in [image, *others]} == {content_digest(image)}
    content_digest([torch.zeros(()), torch.zeros(0, 3), torch.zeros(2, dtype=torch.bfloat16)])
    with pytest.raises(TypeError):
        content_digest(object())


def test_classes_are_read_without_the_network(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(
        path, network().state_dict(), stage=SEGMENTATION.stage, metadata={"classes": ["a", "b"]}
    )
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert SEGMENTATION.classes(path) == ("a", "b")
    with pytest.raises(UserError, match="this model file is damaged"):
        SEGMENTATION.load(path)


def test_every_flipped_bit_of_a_model_is_noticed(model: Path) -> None:
    sound = model.read_bytes()
    start = 8 + int.from_bytes(sound[:8], "little")
    # All tensors, and the metadata; what stands between are names, shapes and places.
    for position in [*range(8, start, 3), *range(start, len(sound), 5)]:
        damaged = bytearray(sound)
        damaged[position] ^= 1 << (position % 8)
        model.write_bytes(damaged)
        try:
            state, _ = load_model_file(model, "cam")
        except UserError as error:
            assert str(model) in str(error)
            continue
        # A blank for another one, say: nothing that counts may differ.
        safe = safetensors.torch.load(sound)
        assert state.keys() == safe.keys()
        assert all(torch.equal(state[key], safe[key]) for key in safe), position
        assert position < start


def test_a_model_from_before_digests_loads_and_says_so_once(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(model, {"format_version": 1, "sha256": None})
    for _ in range(2):
        load_model_file(model, "cam")
    assert capsys.readouterr().err.count("without a SHA-256") == 1


@pytest.mark.parametrize(
    "changes", [{"sha256": None}, {"settings": {"q": 0.4}}, {"format_version": 3}, {"more": 1}]
)
def test_other_metadata_than_were_written_are_refused(model: Path, changes: dict[str, Any]) -> None:
    rewrite(model, changes)
    with pytest.raises(UserError, match=r"damaged|version 3"):
        load_model_file(model, "cam")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_used(
    tmp_path: Path, model: Path, value: float
) -> None:
    state = network().state_dict()
    state["1.running_var"][2] = value
    with pytest.raises(UserError, match=r"not finite: 1\.running_var"):
        save_model(tmp_path / "n.safetensors", state, stage="cam", metadata={})
    assert not (tmp_path / "n.safetensors").exists()
    with pytest.raises(UserError, match=r"1\.running_var has values that are not finite"):
        load_strict(network(), state)
    rewrite(model, {"format_version": 1, "sha256": None}, tensors=state)
    with pytest.raises(UserError, match=r"1\.running_var has values that are not finite"):
        load_model_file(model, "cam")


ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "whole": lambda ones: ones.to(torch.int32),
    "complex": lambda ones: ones.to(torch.complex64),
    "8-bit": lambda ones: ones.to(torch.float8_e4m3fn),
    "sparse": lambda ones: ones.to_sparse(),
    "quantised": lambda ones: torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
    "meta": lambda ones: ones.to("meta"),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.filterwarnings("ignore:.*quantized tensor creation")
def test_only_plain_floats_are_weights(make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    odd = make(torch.ones(4))
    target = network()
    before = target[1].weight.clone()
    state = {**network().state_dict(), "1.weight": odd}
    with pytest.raises(UserError, match=r"1\.weight"):
        load_strict(target, state)
    assert torch.equal(target[1].weight, before)
    for plain in (torch.float16, torch.bfloat16, torch.float64):
        load_strict(target, {**state, "1.weight": torch.ones(4, dtype=plain)})
    # A counter has no effect, in whatever type others have written it.
    load_strict(target, {**network().state_dict(), "1.num_batches_tracked": torch.tensor(0.5)})


def test_whole_numbers_are_no_fractions() -> None:
    target = nn.Module()
    target.register_buffer("positions", torch.arange(3))
    load_strict(target, {"positions": torch.tensor([2, 1, 0], dtype=torch.int32)})
    assert target.positions.tolist() == [2, 1, 0]  # type: ignore[operator]
    with pytest.raises(UserError, match="positions holds float32, not whole numbers"):
        load_strict(target, {"positions": torch.rand(3)})


def legacy(state: Any, path: Path) -> bytes:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_truncated_pickle_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / "x.pth"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    assert len(read_state_dict(path)) == 7
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cannot be read(.|\n)*x\.pth"):
            read_state_dict(path)


def test_the_checksums_of_an_archive_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    weight = torch.rand(64)
    torch.save({"w": weight}, path)
    content = bytearray(path.read_bytes())
    place = content.index(weight.numpy().tobytes())
    content[place + 9] ^= 4
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["w"], weight)  # PyTorch itself notices nothing
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_state_dict(path)


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    path, packed = tmp_path / "x.pth", tmp_path / "y.pth"
    torch.save({"w": torch.zeros(1 << 20)}, path)
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    assert packed.stat().st_size < 20_000
    with pytest.raises(UserError, match=r"compressed or damaged: \d+ bytes claim to hold 4\d{6}"):
        read_state_dict(packed)


class Maker:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self._made = (call, arguments)

    def __reduce__(self) -> Any:
        return self._made


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("call", [(bytearray, 1 << 40), (torch.Tensor, 1 << 20, 1 << 20)])
def test_memory_is_not_made_on_demand(tmp_path: Path, form: str, call: tuple[Any, ...]) -> None:
    maker = Maker(*call)
    path = tmp_path / "x.pth"
    torch.save({"w": maker}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match="which no weights need"):
        read_state_dict(path)


def test_a_tensor_is_no_larger_than_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)
    assert path.stat().st_size < 5_000
    with pytest.raises(UserError, match="larger than what is stored"):
        read_state_dict(path)
    stored = torch.zeros(1 << 12)
    torch.save({f"w{number}": stored.view(64, 64) for number in range(64)}, path)
    with pytest.raises(UserError, match=r"its tensors are \d+ bytes"):
        read_state_dict(path)
    torch.save({"a": stored, "b": stored}, path)  # tied weights are no reason to complain
    assert read_state_dict(path)["b"].shape == (1 << 12,)


@pytest.mark.parametrize("value", [{1: torch.zeros(1)}, {("a", "b"): torch.zeros(1)}, {"x": 1}, 3])
def test_what_is_no_state_dict(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(UserError, match="state dict"):
        read_state_dict(tmp_path / "x.pth")


def test_a_pickle_that_nests_without_end(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    nested = pickle.PROTO + b"\x02" + (pickle.EMPTY_TUPLE + pickle.TUPLE1 * 200_000) + pickle.STOP
    path.write_bytes(nested)
    with pytest.raises(UserError, match="cannot be read"):
        read_state_dict(path)


def test_settings_that_the_tensors_contradict_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    config = tiny_config()
    SEGMENTATION.save(path, build_network(config, 2), config, classes=CLASSES, training={})
    assert SEGMENTATION.load(path).settings == config
    with safetensors.safe_open(str(path), framework="pt") as handle:
        settings = json.loads(handle.metadata()["wsss"])["settings"]
    settings["head"]["channels"] = 300_000  # its network would take terabytes
    rewrite(path, {"settings": settings, "format_version": 1, "sha256": None})
    with pytest.raises(UserError, match="do not fit the network"):
        SEGMENTATION.load(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("classes", [1, 2], "names no list of classes"),
        ("classes", ["red", None], "names no list of classes"),
        ("classes", "ab", "names no list of classes"),
        ("classes", {"red": 1}, "names no list of classes"),
        ("settings", [], "does not say what it was trained with"),
        ("settings", None, "does not say what it was trained with"),
    ],
)
def test_a_model_says_what_it_is(tmp_path: Path, key: str, value: Any, words: str) -> None:
    path = tmp_path / "m.safetensors"
    config = tiny_config()
    SEGMENTATION.save(path, build_network(config, 2), config, classes=CLASSES, training={})
    rewrite(path, {key: value, "format_version": 1, "sha256": None})
    with pytest.raises(UserError, match=words) as caught:
        SEGMENTATION.load(path)
    assert caught.value.where == str(path)
