"""CLIP's encoders: the public code's numbers, `transformers`' own forward, loading."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_helpers import NAMES, openai_state, reference, write_openai_file
from hub_helpers import cached_repository

from wsss.errors import UserError
from wsss.models import clip as clip_module
from wsss.models.clip import Clip
from wsss.models.clip_config import ClipConfig
from wsss.models.clip_files import load_clip
from wsss.runtime.settings import parse

pytest.importorskip("transformers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def openai_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_openai_file(tmp_path_factory.mktemp("clip") / "tiny.pt")


@pytest.fixture(scope="module")
def clip(openai_file: Path) -> Clip:
    return load_clip(openai_file, device=CPU)[0]


def close(found: torch.Tensor, wanted: np.ndarray, tolerance: float) -> None:
    assert found.shape == wanted.shape
    difference = np.abs(found.detach().numpy().astype(np.float64) - wanted).max()
    assert difference <= tolerance * np.abs(wanted).max(), difference / np.abs(wanted).max()


def test_weights_are_the_references() -> None:
    for name, tensor in openai_state().items():
        about = NAMES["tensors"][name]
        assert zlib.crc32(tensor.numpy().tobytes()) == about["crc32"], name


def test_texts(clip: Clip) -> None:
    for part in ("fg", "bg"):
        prompts = NAMES["prompts"][part]
        tokens = clip.tokenize(prompts)
        assert (tokens.numpy() == reference()[f"text/{part}_tokens"]).all()
        close(clip.embed_texts(prompts), reference()[f"text/{part}_features"], 1e-5)


@pytest.mark.parametrize("name", ["square", "wide"])
@pytest.mark.parametrize("scores", [2**24, 2000])
def test_image(clip: Clip, name: str, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # 2,000 scores at a time are a few rows: the parts must make the whole.
    monkeypatch.setattr(clip_module, "_SCORES", scores)
    wanted = {k.split("/")[1]: v for k, v in reference().items() if k.startswith(name)}
    image = torch.from_numpy(wanted["input"])
    read = clip.image_tokens(image, attention_layers=8, half_positions=True)
    assert read.grid == (image.shape[1] // 16, image.shape[2] // 16)
    close(clip.positions(read.grid, half=True), wanted["pos_emb"], 1e-6)
    close(read.tokens, wanted["tokens_before_last"], 1e-5)
    assert read.attention is not None
    close(read.attention, wanted["attn_mean_last8"], 1e-5)
    every = clip.image_tokens(image, attention_layers=12)
    assert every.attention is not None
    close(every.attention, wanted["attn_heads_mean"][:, 1:, 1:].mean(axis=0), 1e-5)
    assert clip.image_tokens(image, attention_layers=0).attention is None


@pytest.mark.parametrize("name", ["square", "wide"])
@pytest.mark.parametrize("gradients", [2**24, 1])
def test_class_gradients(
    clip: Clip, name: str, gradients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_module, "_GRADIENTS", gradients)
    wanted = {k.split("/")[1]: v for k, v in reference().items() if k.startswith(name)}
    features = reference()["text/fg_features"]
    texts = [features[key] for key in wanted["keys"]] + list(reference()["text/bg_features"])
    tokens = torch.from_numpy(wanted["tokens_before_last"])
    result = clip.class_gradients(tokens, torch.from_numpy(np.stack(texts)), len(wanted["keys"]))
    channels = wanted["act"].shape[0]
    close(result.activation.T, wanted["act"].reshape(channels, -1), 1e-5)
    close(result.logits, wanted["logits"], 1e-5)
    close(result.probabilities, wanted["prob"], 1e-5)
    close(result.weights, wanted["grad"].mean(axis=(2, 3)), 1e-4)
    raw = result.weights @ result.activation.T
    close(raw.reshape(wanted["gradcam_raw"].shape), wanted["gradcam_raw"], 1e-4)


def test_equals_transformers_own_forward_at_the_size_it_was_trained_at(clip: Clip) -> None:
    # There, no positions are resized, which `transformers` does differently.
    image = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(3))
    clip.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = clip.model.vision_model(
            image[None], output_hidden_states=True, output_attentions=True
        )
    read = clip.image_tokens(image, attention_layers=8)
    close(read.tokens, out.hidden_states[-2][0].numpy(), 1e-5)
    wanted = torch.stack(out.attentions)[-8:, 0].mean(dim=(0, 1))[1:, 1:]
    assert read.attention is not None
    close(read.attention, wanted.numpy(), 1e-5)


def test_bfloat16_leaves_the_residual_stream_and_the_gradients_in_float32(clip: Clip) -> None:
    image = torch.from_numpy(reference()["wide/input"])
    exact = clip.image_tokens(image, attention_layers=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = clip.image_tokens(image, attention_layers=8)
        texts = torch.from_numpy(reference()["text/fg_features"])
        result = clip.class_gradients(read.tokens, texts, 2)
    assert read.tokens.dtype == result.weights.dtype == torch.float32
    error = (read.tokens - exact.tokens).norm() / exact.tokens.norm()
    # Above rounding in float32, or bfloat16 was not used at all.
    assert 1e-4 < error < 0.05


def test_a_folder_and_the_file_are_the_same_model(clip: Clip, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    clip.model.save_pretrained(folder)
    clip.tokenizer.save_pretrained(folder)
    again, origin = load_clip(folder, device=CPU)
    ours, theirs = again.model.state_dict(), clip.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (again.tokenize(["a bird."]) == clip.tokenize(["a bird."])).all()
    assert origin.name == "clip" and len(origin.sha256) == 64
    (folder / "tokenizer.json").unlink()
    assert (load_clip(folder, device=CPU)[0].tokenize(["a cow"]) == clip.tokenize(["a cow"])).all()


def test_torchscript_archive_as_published(clip: Clip, tmp_path: Path) -> None:
    class Archive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("input_resolution", torch.tensor(224))
            for name, value in openai_state().items():
                self._put(name.split("."), value.half())

        def _put(self, path: list[str], value: torch.Tensor) -> None:
            module = self
            for part in path[:-1]:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            module.register_buffer(path[-1], value)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    file = tmp_path / "ViT-tiny.pt"
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.save(torch.jit.trace(Archive(), torch.zeros(1)), file)
    again, _ = load_clip(file, device=CPU)
    for name, value in clip.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_name_comes_from_the_cache(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached_repository(monkeypatch, tmp_path, "tiny/clip")
    clip.model.save_pretrained(folder)
    clip.tokenizer.save_pretrained(folder)
    _, origin = load_clip("tiny/clip", device=CPU)
    assert (origin.name, origin.revision) == ("tiny/clip", folder.name)


def test_a_name_that_cannot_be_fetched_says_what_to_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_repository(monkeypatch, tmp_path, "tiny/clip")
    with pytest.raises(UserError) as raised:
        load_clip("openai/clip-vit-base-patch16", device=CPU)
    message = str(raised.value)
    assert "hf download openai/clip-vit-base-patch16 config.json tokenizer.json" in message
    assert str(tmp_path / "models--openai--clip-vit-base-patch16") in message
    with pytest.raises(UserError, match="no name on the Hugging Face hub"):
        load_clip("/no/such/file.pt", device=CPU)


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "resnet.pt"
    torch.save({"conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"no CLIP of OpenAI's"):
        load_clip(file, device=CPU)
    state = openai_state()
    del state["visual.ln_post.bias"]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"missing: vision_model\.post_layernorm\.bias"):
        load_clip(file, device=CPU)
    with pytest.raises(UserError, match="holds no CLIP"):
        load_clip(tmp_path, device=CPU)


def test_a_text_that_is_too_long(clip: Clip) -> None:
    with pytest.raises(UserError, match="at most 77"):
        clip.tokenize(["bird " * 90])


@pytest.mark.parametrize("weights", ["", "none", "package", "timm"])
def test_weights_that_no_clip_has(weights: str) -> None:
    with pytest.raises(UserError, match=r"clip\.weights is") as caught:
        parse(ClipConfig, {"weights": weights}, where="clip")
    assert str(caught.value.where) == "clip.weights"
    assert parse(ClipConfig, {"weights": "mine"}, where="clip").weights == "mine"
