"""Features of a frozen network, kept on disk so that a picture goes through it once.

That saves time where the network sees the same picture again, so where nothing about it is drawn at
random. A picture that is not there goes through by itself, whatever the batch: what is kept does
not depend on what came with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.files import atomic_file, content_hash

_SUFFIX = ".safetensors"


def state_digest(network: nn.Module) -> str:
    """Return a hash of a network's values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data


class FeatureStore:
    """Features by picture, in files below a folder.

    Args:
        folder: Where they are kept.
        identity: All that decides features beside the picture: the network, its code, ...
        limit_bytes: How much is kept at most; beyond that, pictures go through every time.
        processes: How many share what is left of it.

    Attributes:
        found: How many were there.
        computed: How many went through the network.
    """

    def __init__(
        self, folder: Path, identity: Any, limit_bytes: int, *, processes: int = 1
    ) -> None:
        self._folder = folder / content_hash(identity)
        sizes = (path.stat().st_size for path in self._folder.glob(f"*{_SUFFIX}"))
        self._left = (limit_bytes - sum(sizes)) // processes
        self.found = self.computed = 0

    def features(
        self, batch: Tensor, compute: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Return the features of a batch.

        Args:
            batch: (B, 3, H, W) float32, normalised.
            compute: From (1, 3, H, W) to features (1, C, h, w).

        Returns:
            One (B, C, h, w) each, on the batch's device.
        """
        each = [self._of_one(one[None], compute) for one in batch]
        return [torch.cat(level) for level in zip(*each, strict=True)]

    def _of_one(self, one: Tensor, compute: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        path = self._folder / f"{self._key(one)}{_SUFFIX}"
        try:
            kept = safetensors.torch.load(path.read_bytes())
            found = [kept[str(level)].to(one.device) for level in range(len(kept))]
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            pass
        else:
            self.found += 1
            return found
        self.computed += 1
        fresh = [feature.detach() for feature in compute(one)]
        self._keep(path, fresh)
        return fresh

    def _key(self, one: Tensor) -> str:
        kind = one.device.type
        rounded = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        about = f"{tuple(one.shape)} {one.dtype} {kind} {rounded} {torch.get_num_threads()}"
        digest = hashlib.sha256(about.encode())
        digest.update(_bytes(one))
        return digest.hexdigest()

    def _keep(self, path: Path, features: Sequence[Tensor]) -> None:
        needed = sum(feature.nbytes for feature in features)
        if needed > self._left:
            return
        content = safetensors.torch.save(
            {str(level): feature.cpu().contiguous() for level, feature in enumerate(features)}
        )
        try:
            with atomic_file(path) as temporary:
                temporary.write_bytes(content)
        except UserError:
            self._left = 0  # a full disk is no reason to stop
            return
        self._left -= len(content)
