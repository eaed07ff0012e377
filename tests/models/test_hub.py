"""Weights by name, from a cache on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hub_helpers import COMMIT, cached_repository
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from wsss.errors import UserError
from wsss.models.hub import hub_weights, timm_weights


def test_a_file_in_the_cache_is_taken_without_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached_repository(monkeypatch, tmp_path, "some/model")
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    asked = []
    download = huggingface_hub.snapshot_download

    def recorded(*names: str, **options: Any) -> str:
        asked.append(options["local_files_only"])
        return download(*names, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recorded)
    found = hub_weights("some/model")
    assert asked == [True]
    assert (found.name, found.revision) == ("some/model", COMMIT)
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()


def test_the_second_name_of_a_weight_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached_repository(monkeypatch, tmp_path, "some/model")
    torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")
    assert hub_weights("some/model").path.name == "pytorch_model.bin"


def test_what_is_needed_beside_the_weights_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached_repository(monkeypatch, tmp_path, "some/model")
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="fetching them failed"):
        hub_weights("some/model", beside=("config.json",), needed=("config.json",))


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("no route\nto the hub"), "no route"), (TimeoutError(), "TimeoutError")],
)
def test_why_nothing_was_fetched_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    cached_repository(monkeypatch, tmp_path, "some/model")

    def failing(*_: str, local_files_only: bool, **__: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        raise ValueError("of no use") from error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
    with pytest.raises(UserError) as raised:
        hub_weights("some/model")
    assert raised.value.found.endswith(f"fetching them failed: {said}")


def test_timms_own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached_repository(monkeypatch, tmp_path, "timm/resnet10t.c3_in1k")
    with pytest.raises(UserError) as raised:
        timm_weights("resnet10t")
    message = str(raised.value)
    assert "`hf download timm/resnet10t.c3_in1k model.safetensors`" in message
    assert str(tmp_path / "models--timm--resnet10t.c3_in1k") in message
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    assert timm_weights("resnet10t").path == folder / "model.safetensors"
    assert timm_weights("resnet10t.c3_in1k").revision == COMMIT


def test_models_that_timm_does_not_know_or_has_no_weights_for() -> None:
    with pytest.raises(UserError, match="did you mean resnet50"):
        timm_weights("resnet5o")
    with pytest.raises(UserError, match="names no weights") as raised:
        timm_weights("resnet50.nonsense")
    assert "resnet50.a1_in1k" in str(raised.value)
    with pytest.raises(UserError, match="names no weights"):
        timm_weights("coatnet_0_224")
