"""Published checkpoints become model files by one command."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from irn_checkpoint import published_state
from torch import Tensor

from wsss.cli import main
from wsss.data.formats.voc import VOC_CLASSES
from wsss.data.index import Index, write_index
from wsss.irn.model_file import IRNET
from wsss.models.backbones import build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.irnet import IrNet
from wsss.models.model_file import ModelKind
from wsss.models.weights import LoadReport, save_model
from wsss.project.config import load_config

REPOSITORY = Path(__file__).parents[2]
NAMES = Path(__file__).parents[1] / "reference" / "acr_official_checkpoint_names.json"


def write_settings(folder: Path, run: str, stage: str) -> str:
    path = folder / f"{stage}.json"
    path.write_text(json.dumps(load_config(folder=REPOSITORY).run(run).settings(stage)))
    return str(path)


SPREAD = 2**25
"""Tensors begin before this in the one storage of all, which is large enough not to be taken for a
bomb: the tensors have 1.3 GB, the file 0.2."""


def first_of(name: str) -> int:
    return zlib.crc32(name.encode()) % SPREAD


def known(name: str, shape: Sequence[int], numbers: Tensor) -> Tensor:
    """A tensor that its name tells; all of a file share one storage."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(list(shape), dtype=torch.int64)
    return numbers[first_of(name) :][: math.prod(shape)].view(list(shape))


@pytest.mark.slow
def test_the_authors_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, list[int]] = json.loads(NAMES.read_text())
    largest = max(math.prod(shape) for shape in names.values())
    numbers = torch.arange(SPREAD + largest, dtype=torch.float32)
    state = {name: known(name, shape, numbers) for name, shape in names.items()}
    torch.save({"state_dict": state, "epoch": 39}, tmp_path / "acr.ckpt")
    write_index(Index(VOC_CLASSES, ()), tmp_path / "index.csv")
    written: dict[Path, Any] = {}

    def keep(kind: Any, path: Path, network: Any, config: Any, *, classes: Any, **_: Any) -> None:
        assert (config.head, tuple(classes)) == ("official", VOC_CLASSES)
        written[path] = network.state_dict()

    # A gigabyte that need not go through the disk.
    monkeypatch.setattr(ModelKind, "save", keep)
    status = main(
        [
            *("import-weights", "acr", str(tmp_path / "acr.ckpt")),
            *("--config", write_settings(tmp_path, "voc-official", "cam")),
            *("--index", str(tmp_path / "index.csv"), "--output", str(tmp_path / "F")),
            *("--reconstructor-output", str(tmp_path / "G")),
        ]
    )
    assert status == 0
    for path, ours, theirs in (
        ("F", "head.classes.weight", "net_main.fc9.weight"),
        ("F", "backbone.body.conv1a.weight", "net_main.conv1a.weight"),
        ("G", "encoder.head.hidden.weight", "net_recon.fc8.weight"),
        ("G", "gather.2.weight", "net_recon.fc_recon.weight"),
        ("G", "decoder.colour.bias", "net_recon.genUnet.final.1.bias"),
    ):
        tensor = written[tmp_path / path][ours]
        assert torch.equal(tensor, known(theirs, tensor.shape, numbers)), ours


@pytest.mark.parametrize("both", [True, False])
def test_a_model_file_is_written_for_each_network_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], both: bool
) -> None:
    write_index(Index(VOC_CLASSES, ()), tmp_path / "index.csv")
    written: dict[str, tuple[str, dict[str, int]]] = {}

    def load(path: Path, classifier: Any, reconstructor: Any) -> dict[str, LoadReport]:
        assert path == tmp_path / "acr.ckpt" and (reconstructor is not None) == both
        return {"classifier": LoadReport(("a", "b"), ("c",))}

    def keep(kind: Any, path: Path, network: Any, config: Any, **told: Any) -> None:
        assert tuple(told["classes"]) == VOC_CLASSES and config.head == "official"
        written[path.name] = type(network).__name__, told["training"]

    # Without memory: what is loaded and saved is another test's.
    monkeypatch.setattr("wsss.cam.published.load_acr_checkpoint", load)
    monkeypatch.setattr(ModelKind, "save", keep)
    more = ("--reconstructor-output", str(tmp_path / "G")) if both else ()
    with torch.device("meta"):
        status = main(
            [
                *("import-weights", "acr", str(tmp_path / "acr.ckpt")),
                *("--config", write_settings(tmp_path, "voc-official", "cam")),
                *("--index", str(tmp_path / "index.csv"), "--output", str(tmp_path / "F"), *more),
            ]
        )
    assert status == 0
    untrained = {"steps": 0, "epochs": 0, "images": 0}
    expected = {"F": ("CamClassifier", untrained), "G": ("Reconstructor", untrained)}
    assert written == (expected if both else {"F": expected["F"]})
    assert "classifier: 2 tensors used, 1 left out" in capsys.readouterr().out


def test_settings_of_other_networks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        [
            *("import-weights", "acr", "nowhere.ckpt"),
            *("--config", write_settings(tmp_path, "voc", "cam")),
            *("--index", "nowhere.csv", "--output", str(tmp_path / "F")),
        ]
    )
    assert status == 2 and "voc-official" in capsys.readouterr().err
    status = main(
        [
            *("import-weights", "irn", "nowhere.pth"),
            *("--config", write_settings(tmp_path, "demo", "irn")),
            *("--output", str(tmp_path / "irn")),
        ]
    )
    assert status == 2 and "resnet50" in capsys.readouterr().err
    assert not (tmp_path / "F").exists() and not (tmp_path / "irn").exists()


def test_irns_published_weights(tmp_path: Path) -> None:
    config = BackboneConfig(name="resnet50", weights="none", output_stride=16)
    state = published_state(IrNet(build_backbone(config), dilation=False))
    torch.save(state, tmp_path / "res50_irn.pth")
    status = main(
        [
            *("import-weights", "irn", str(tmp_path / "res50_irn.pth")),
            *("--config", write_settings(tmp_path, "voc", "irn")),
            *("--output", str(tmp_path / "model.safetensors")),
        ]
    )
    assert status == 0
    network = IRNET.load(tmp_path / "model.safetensors").network
    own = network.state_dict()
    assert torch.equal(own["edge_out.bias"], state["fc_edge6.bias"])
    assert torch.equal(own["backbone.body.layer4.1.conv2.weight"], state["stage5.0.1.conv2.weight"])


def test_only_models_are_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = tmp_path / "res50_irn.pth"
    published.write_bytes(b"fetched")
    settings = write_settings(tmp_path, "voc", "irn")
    words = ["import-weights", "irn", str(published), "--config", settings, "--output"]
    assert main([*words, str(published)]) == 2
    assert "no result of this command" in capsys.readouterr().err
    assert published.read_bytes() == b"fetched"
    save_model(tmp_path / "m.safetensors", {"a": torch.zeros(2)}, stage="irn", metadata={})
    assert main([*words, str(tmp_path / "m.safetensors")]) == 2
    assert "no result of this command" not in capsys.readouterr().err
