"""Weights by name: from the Hugging Face hub's cache on this machine, fetched into it if need be.

A run whose weights are in the cache asks the network nothing, whatever the hub has published since.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wsss.errors import UserError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class HubWeights:
    """A weight file from the hub.

    Attributes:
        name: The repository, `owner/name`.
        revision: Its commit.
        path: The file, in the cache.
    """

    name: str
    revision: str
    path: Path

    @cached_property
    def sha256(self) -> str:
        """The file's SHA-256, hexadecimal."""
        return sha256(self.path)

    @property
    def provenance(self) -> dict[str, str]:
        """What to keep with a result."""
        return {"name": self.name, "revision": self.revision, "sha256": self.sha256}


def sha256(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hub_weights(
    name: str,
    *,
    weights: Sequence[str] = WEIGHTS,
    beside: Sequence[str] = (),
    needed: Sequence[str] = (),
    revision: str | None = None,
) -> HubWeights:
    """Return a weight file of a hub's repository, fetched unless it is in the cache.

    Args:
        name: The repository, `owner/name`.
        weights: Names that the weight file may have, the one wanted most first.
        beside: Other files to fetch where there are such.
        needed: Those of `beside` that must be there.
        revision: Commit, branch or tag; None: what the cache has, or the newest.

    Raises:
        UserError: It is not in the cache and cannot be fetched; or `name` is no name.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def find(*, offline: bool) -> HubWeights | None:
        for file in weights:
            folder = Path(
                snapshot_download(
                    name,
                    revision=revision,
                    allow_patterns=[*beside, file],
                    local_files_only=offline,
                )
            )
            if all((folder / wanted).is_file() for wanted in (file, *needed)):
                return HubWeights(name, folder.name, folder / file)
        return None

    try:
        cached = find(offline=True)
    except LocalEntryNotFoundError:
        cached = None
    except HFValidationError:
        raise UserError(
            f"{name!r} is no name on the Hugging Face hub, and no folder or file of this name is "
            "here",
            expected="a name such as openai/clip-vit-base-patch16, a folder, or a file",
        ) from None
    if cached is not None:
        return cached
    try:
        fetched, why = find(offline=False), f"it has no {' and no '.join(weights)}"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        fetched, why = None, _reason(error)
    if fetched is not None:
        return fetched
    stored = f"models--{name.replace('/', '--')}"
    here = Path(constants.HF_HUB_CACHE) / stored
    others = f" ({' or '.join(weights[1:])} where there is none)" if len(weights) > 1 else ""
    raise UserError(
        f"the weights of {name} are not on this machine, and fetching them failed: {why}",
        where=here,
        expected=", ".join([*needed, " or ".join(weights)]),
        fix=f"on a machine with a network, run `hf download {name} "
        f"{' '.join([*beside, weights[0]])}`{others}, and copy the folder "
        f"~/.cache/huggingface/hub/{stored} from there to {here}",
    )


def _reason(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0]


def timm_weights(model: str) -> HubWeights:
    """Return the weight file that timm names for one of its models.

    Args:
        model: A model's name in timm, with or without the tag of its weights.

    Raises:
        UserError: timm does not know it, has no weights for it, or they cannot be had.
    """
    import timm

    if not timm.is_model(model):
        known = [*timm.list_models(), *timm.list_pretrained()]
        near = difflib.get_close_matches(model, known, n=3)
        raise UserError(
            f"timm does not know the model {model!r}",
            fix=f"did you mean {', '.join(near)}?" if near else None,
        )
    try:
        settings = timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError:  # an unknown tag
        settings = None
    if settings is None or not settings.hf_hub_id:
        tags = timm.list_pretrained(f"{model.split('.')[0]}.*")
        raise UserError(
            f"timm names no weights for {model!r}",
            expected=", ".join(tags) or None,
            fix="set its weights to a weight file's key, or to 'none'",
        )
    name = settings.hf_hub_filename
    return hub_weights(settings.hf_hub_id, weights=(name,) if name else WEIGHTS)
