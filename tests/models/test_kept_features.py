"""Features of a frozen transformer that are kept: the network's own, by picture, within a limit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsss.models.kept_features import FeatureStore, state_digest
from wsss.models.vit_features import VitFeatures, keep_features

NAME = "test_vit"


@pytest.fixture
def body() -> VitFeatures:
    torch.manual_seed(0)
    return VitFeatures(NAME, layers=(0, -1), frozen=True)


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 37, 50, generator=torch.Generator().manual_seed(seed))


def close(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    assert len(found) == len(wanted) == 2
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_picture_goes_through_once(body: VitFeatures, tmp_path: Path) -> None:
    x = pictures(3)
    plain = body(x)
    store = keep_features(body, tmp_path, 10**9)
    first = body(x)
    assert (store.found, store.computed) == (0, 3)
    # In other company and another order, to the bit.
    again = body(torch.cat([x[2:], pictures(1, seed=1), x[:2]]))
    assert (store.found, store.computed) == (3, 4)
    close(first, plain)
    for level, whole in zip(again, first, strict=True):
        assert torch.equal(level[[2, 3, 0]], whole)
        assert not level.requires_grad
    # Another process finds them.
    other = keep_features(body, tmp_path, 10**9)
    assert all(torch.equal(a, b) for a, b in zip(body(x), first, strict=True))
    assert (other.found, other.computed) == (3, 0)


def test_other_weights_layers_or_precision_are_others(body: VitFeatures, tmp_path: Path) -> None:
    x = pictures(1)
    keep_features(body, tmp_path, 10**9)
    body(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = body(x)
    assert body.kept is not None and body.kept.computed == 2
    assert (rounded[1].float() - body(x)[1]).abs().max() > 1e-4
    with torch.no_grad():
        body.body.norm.bias += 1
    store = keep_features(body, tmp_path, 10**9)
    assert (body(x)[1] - rounded[1].float()).mean() > 0.5 and store.computed == 1
    other = VitFeatures(NAME, layers=(-1,), frozen=True)
    other.load_state_dict(body.state_dict())
    assert keep_features(other, tmp_path, 10**9) and len(other(x)) == 1


def test_no_more_is_kept_than_allowed(body: VitFeatures, tmp_path: Path) -> None:
    x = pictures(4)
    wanted = body(x)
    size = sum(level[:1].nbytes for level in wanted)
    for limit, kept in ((0, 0), (2 * size + 1000, 2), (2 * size + 1000, 2)):
        store = FeatureStore(tmp_path, {"limit": "one folder"}, limit)
        close(store.features(x, body), wanted)
        assert len(list(tmp_path.rglob("*.safetensors"))) == kept
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= limit


def test_damaged_files_are_made_again(body: VitFeatures, tmp_path: Path) -> None:
    x = pictures(2)
    store = keep_features(body, tmp_path, 10**9)
    wanted = body(x)
    first, second = sorted(tmp_path.rglob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:100])
    save_file({"1": torch.zeros(2)}, second)
    assert all(torch.equal(a, b) for a, b in zip(body(x), wanted, strict=True))
    assert store.computed == 4


def test_a_digest_is_of_all_values(body: VitFeatures) -> None:
    before = state_digest(body)
    assert state_digest(body) == before
    with torch.no_grad():
        body.body.pos_embed[0, -1, -1] += 1e-6
    assert state_digest(body) != before


def test_a_digest_is_of_names_as_well() -> None:
    one, other = torch.nn.Module(), torch.nn.Module()
    one.weight = other.bias = torch.nn.Parameter(torch.ones(3))
    assert state_digest(one) != state_digest(other)


def test_one_that_is_trained_keeps_nothing(tmp_path: Path) -> None:
    body = VitFeatures(NAME, layers=(0, -1))
    store = keep_features(body, tmp_path, 10**9)
    body(pictures(1))
    assert store.computed == 0 and not list(tmp_path.rglob("*.safetensors"))
