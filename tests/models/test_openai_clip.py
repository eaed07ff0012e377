"""OpenAI's files of CLIP that are something else, or claim to be more than they are."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from wsss.errors import UserError
from wsss.models.published.openai_clip import clip_settings, read_openai_clip


def test_an_archive_that_inflates_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip/constants.pkl", b"")
        archive.writestr("clip/data/0", bytes(1 << 27))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="claim to hold"):
        read_openai_clip(path)


def test_an_archive_that_lacks_a_part_is_said_to(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/constants.pkl", b"")
        archive.writestr("clip/data/0", bytes(100))
    with pytest.raises(UserError, match=r"cannot be read: .+") as caught:
        read_openai_clip(path)
    assert "\n" not in caught.value.found and caught.value.where == str(path)


@pytest.mark.parametrize("name", ["visual.conv1.weight", "positional_embedding"])
def test_tensors_of_another_form_are_named(name: str) -> None:
    state = {
        "visual.conv1.weight": torch.zeros(64, 3, 4, 4),
        "visual.positional_embedding": torch.zeros(5, 64),
        "positional_embedding": torch.zeros(7, 64),
        "text_projection": torch.zeros(64, 32),
        "token_embedding.weight": torch.zeros(9, 64),
    }
    assert clip_settings(state)["vision_config"]["image_size"] == 8
    for other in ({**state, name: torch.zeros(3)}, {k: v for k, v in state.items() if k != name}):
        with pytest.raises(UserError, match="of another form"):
            clip_settings(other)
