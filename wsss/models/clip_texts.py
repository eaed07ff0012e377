"""CLIP's text embeddings, worked out once on a machine and kept.

They are the fresh ones to the bit: the key holds the weights, the model's settings, the tokens that
the tokenizer makes of the texts, the code, the libraries and how many threads computed them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from wsss.files import content_hash
from wsss.models.clip import Clip
from wsss.provenance import closure_hash
from wsss.runtime.cache import entry, keep

KIND = "clip-texts"
_NAME = "texts"


def kept_texts(clip: Clip, sha256: str, texts: Sequence[str]) -> Tensor:
    """Return what `clip.embed_texts` does, kept on this machine's disk.

    Args:
        clip: The encoders.
        sha256: Of its weight file.
        texts: T sentences.

    Returns:
        (T, D) float32 embeddings of length 1, on the encoders' device.

    Raises:
        UserError: A text has more tokens than CLIP reads.
    """
    key = content_hash(
        {
            "weights": sha256,
            "model": clip.model.config.to_diff_dict(),
            "tokens": hashlib.sha256(clip.tokenize(texts).numpy().tobytes()).hexdigest(),
            "code": closure_hash("wsss.models.clip"),
            "libraries": [version("torch"), version("transformers")],
            "device": clip.device.type,
            "threads": torch.get_num_threads(),
        }
    )
    found = _read(key, len(texts))
    if found is None:
        found = clip.embed_texts(texts)
        keep(KIND, key, safetensors.torch.save({_NAME: found.cpu().contiguous()}))
    return found.to(clip.device)


def _read(key: str, count: int) -> Tensor | None:
    """Return what was kept; None: nothing that can be read."""
    try:
        found = safetensors.torch.load(entry(KIND, key).read_bytes())[_NAME]
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    return found if found.dim() == 2 and len(found) == count else None
