"""Text embeddings that are kept: the fresh ones to the bit, and by all that decides them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clip_helpers import write_openai_file

from wsss.models.clip import Clip
from wsss.models.clip_texts import KIND, kept_texts

pytest.importorskip("transformers")
TEXTS = ["a clean origami dog.", "a clean origami chair seat."]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / KIND


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    from wsss.models.clip_files import load_clip

    return load_clip(write_openai_file(tmp_path / "tiny.pt"), device=torch.device("cpu"))[0]


def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text encoder is not to be used again."""

    def refuse(self: Clip, texts: list[str]) -> torch.Tensor:
        raise AssertionError("worked out again")

    monkeypatch.setattr(Clip, "embed_texts", refuse)


def test_they_are_the_fresh_ones(clip: Clip, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = clip.embed_texts(TEXTS)
    first = kept_texts(clip, "a", TEXTS)
    assert len(list(cache.iterdir())) == 1
    silent(monkeypatch)
    again = kept_texts(clip, "a", TEXTS)
    assert torch.equal(first, fresh) and torch.equal(again, fresh)
    assert again.dtype == torch.float32


def test_other_texts_weights_or_threads_are_others(
    clip: Clip, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_texts(clip, "a", TEXTS)
    silent(monkeypatch)
    threads = torch.get_num_threads()
    for digest, texts in (("b", TEXTS), ("a", TEXTS[::-1]), ("a", TEXTS[:1])):
        with pytest.raises(AssertionError, match="worked out again"):
            kept_texts(clip, digest, texts)
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(AssertionError, match="worked out again"):
            kept_texts(clip, "a", TEXTS)
    finally:
        torch.set_num_threads(threads)
    clip.model.config.text_config.layer_norm_eps = 1e-4
    with pytest.raises(AssertionError, match="worked out again"):
        kept_texts(clip, "a", TEXTS)


def test_a_damaged_entry_is_worked_out_again(clip: Clip, cache: Path) -> None:
    fresh = kept_texts(clip, "a", TEXTS)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert torch.equal(kept_texts(clip, "a", TEXTS), fresh)
    assert torch.equal(kept_texts(clip, "a", TEXTS), fresh)


def test_without_a_place_to_keep_them_it_goes_on(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("wsss.runtime.cache._told", set())
    for _ in range(2):
        assert torch.equal(kept_texts(clip, "a", TEXTS), clip.embed_texts(TEXTS))
    assert capsys.readouterr().err.count("not kept in") == 1
