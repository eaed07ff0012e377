"""Where a CLIP comes from: a name on the Hugging Face hub, a folder, or OpenAI's own file.

What the hub has sent once is in its cache, and then no network is needed. `transformers` and the
hub's client are an extra (`pip install 'wsss[clip]'`) and imported here alone, when needed.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsss.errors import UserError
from wsss.models.clip import Clip
from wsss.models.hub import WEIGHTS, HubWeights, hub_weights, sha256
from wsss.models.published.openai_clip import (
    by_transformers_names,
    clip_settings,
    read_openai_clip,
)
from wsss.models.weights import check_fits, load_strict, read_state_dict

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt")
_OTHERS = ("config.json", *_VOCABULARY, "tokenizer_config.json", "special_tokens_map.json")
# CLIP's vocabulary as OpenAI published it: 256 bytes, the same ending a word, merges, two marks.
_VOCABULARY_SIZE = 49408


@dataclass(frozen=True)
class ClipOrigin:
    """Which CLIP it is, for provenance.

    Attributes:
        name: As the settings have it, or the file's name.
        revision: The hub's commit; empty for a folder or file.
        sha256: Of the weight file, hexadecimal.
    """

    name: str
    revision: str
    sha256: str


def load_clip(
    source: str | Path, *, device: torch.device, revision: str | None = None
) -> tuple[Clip, ClipOrigin]:
    """Load a CLIP for inference, in float32.

    Args:
        source: A name on the hub, such as `openai/clip-vit-base-patch16`; or the path of a folder
            as `transformers` writes it, or of OpenAI's file (`ViT-B-16.pt`).
        device: Where to put it.
        revision: Commit, branch or tag on the hub; None: what the cache has, or the newest.

    Raises:
        UserError: The extra is not installed, the weights are nowhere to be had, or they are not
            a CLIP with a vision transformer.
    """
    _need_extra()
    path = Path(source)
    if isinstance(source, str) and not path.exists():
        path = clip_weights(source, revision=revision).path.parent
        origin = source, path.name
    else:
        origin = path.name, ""
    if path.is_dir():
        model, weights = _from_folder(path)
    else:
        model, weights = _from_openai(path), path
    tokenizer = _tokenizer(path, int(model.config.text_config.vocab_size))
    model.requires_grad_(False).eval().to(device)
    return Clip(model, tokenizer, device), ClipOrigin(*origin, sha256(weights))


def check_clip(config: object, path: Path) -> None:
    """Check that a folder or file is a CLIP, whichever.

    Raises:
        UserError: It is none, or the extra is not installed.
    """
    _need_extra()
    if path.is_dir():
        _from_folder(path)
    else:
        _from_openai(path)


def clip_weights(name: str, *, revision: str | None = None) -> HubWeights:
    """Return a CLIP of the hub in the local cache, its other files beside, fetched if need be.

    Raises:
        UserError: It is not in the cache and cannot be fetched.
    """
    return hub_weights(name, beside=_OTHERS, needed=("config.json",), revision=revision)


def _need_extra() -> None:
    missing = [
        package
        for package in ("transformers", "open_clip")
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise UserError(
            f"CLIP needs {' and '.join(missing)}, which this environment lacks",
            fix="pip install 'wsss[clip]' (in a checkout: .venv/bin/pip install -e '.[clip]')",
        )


def _from_folder(folder: Path) -> tuple[Any, Path]:
    from transformers import CLIPConfig

    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        raise UserError(
            "this folder holds no CLIP",
            where=folder,
            expected=f"config.json and {' or '.join(WEIGHTS)}",
        )
    config = CLIPConfig.from_pretrained(folder)
    if config.model_type != "clip":
        raise UserError(
            f"this folder holds a model of type {config.model_type!r}",
            where=folder / "config.json",
            expected="a CLIP ('clip')",
        )
    # Older files carry the numbers of the positions along, which are no weights.
    state = {
        name: tensor
        for name, tensor in read_state_dict(weights).items()
        if not name.endswith("position_ids")
    }
    return _filled(config, state, weights), weights


def _from_openai(file: Path) -> Any:
    from transformers import CLIPConfig

    state = read_openai_clip(file)
    config = CLIPConfig(**clip_settings(state, where=file))
    return _filled(config, by_transformers_names(state), file)


def _filled(config: Any, state: Mapping[str, Tensor], where: Path) -> Any:
    from transformers import CLIPModel

    # First without memory: sizes that are not the tensors' could ask for any amount.
    with torch.device("meta"):
        outline = CLIPModel(config)
    check_fits(outline, state, where=where)
    model = CLIPModel(config)
    load_strict(model, state, where=where)
    return model


def _tokenizer(path: Path, size: int) -> CLIPTokenizer:
    """Return the folder's tokenizer; of a file or a folder without one, OpenAI's."""
    from transformers import CLIPTokenizer

    if path.is_dir() and any((path / name).is_file() for name in _VOCABULARY):
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(path)
        return tokenizer
    if size != _VOCABULARY_SIZE:
        raise UserError(
            f"this CLIP knows {size} tokens, and its tokenizer is not beside it",
            where=path,
            expected=f"{' or '.join(_VOCABULARY)} in a folder, or OpenAI's {_VOCABULARY_SIZE} "
            "tokens",
        )
    return published_tokenizer()


def published_tokenizer() -> CLIPTokenizer:
    """Return CLIP's tokenizer, its vocabulary being the one that open_clip brings along."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    found = importlib.util.find_spec("open_clip")
    assert found is not None and found.submodule_search_locations
    file = Path(found.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")
    letters = list(bytes_to_unicode().values())
    # The first line is a comment, and the file is longer than the published vocabulary.
    merges = lines[1 : _VOCABULARY_SIZE - 2 * len(letters) - 2 + 1]
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(merge.replace(" ", "") for merge in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[tuple(merge.split()) for merge in merges],
    )
