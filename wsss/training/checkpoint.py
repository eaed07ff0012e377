"""Checkpoints: where a killed training goes on, refused when they belong to another one.

They are read without running anything in them, and hold a SHA-256 of all that they hold: PyTorch
does not look at the checksums in its own files, and a training would go on from damaged weights.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from wsss.errors import UserError
from wsss.files import atomic_file
from wsss.models.backbones import weights_by_name
from wsss.models.config import networks_with_files, package_fingerprints
from wsss.models.digests import content_digest
from wsss.models.pickles import read_pickle
from wsss.provenance import file_fingerprint
from wsss.runtime.settings import Settings

_DIGEST = "sha256"


def initial_weights(
    settings: Settings, modules: Mapping[str, nn.Module], **files: Path | None
) -> dict[str, Any]:
    """Return the part of a training's identity that tells what its networks start from.

    What `weights:` says is in the settings, what is in the file, the package or the hub's cache
    is not; and a checkpoint brings all weights along, those that nothing trains as well.

    Args:
        settings: Of the training.
        modules: All that it keeps in a checkpoint.
        files: Weight files by the parameters that take them; None: the settings name none.

    Raises:
        UserError: A file was given that no network of the settings starts from.
    """
    wanted = [option for _, option, _, _ in networks_with_files(settings)]
    for name, file in files.items():
        option = name.replace("_", "-")
        if file is not None and option not in wanted:
            raise UserError(
                "a weight file was given, and no network of these settings starts from it",
                where=f"--{option} {file}",
                fix=f"leave --{option} away, or set the network's `weights` to a name for the file",
            )
    given = {name: file_fingerprint(file) for name, file in files.items() if file is not None}
    named = {name: origin for name in modules if (origin := weights_by_name(modules[name]))}
    found: dict[str, Any] = {**given, **package_fingerprints(settings), **named}
    return {"weights": found} if found else {}


def save_checkpoint(
    path: Path,
    *,
    identity: Mapping[str, Any],
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
) -> None:
    """Write all that the next step depends on; random state is a function of the step itself."""
    states = {name: module.state_dict() for name, module in modules.items()}
    state: dict[str, Any] = {
        "identity": dict(identity),
        "step": step,
        "modules": {name: dict(state) for name, state in states.items()},
        "versions": {name: _versions(state) for name, state in states.items()},
        "optimizers": {name: opt.state_dict() for name, opt in optimizers.items()},
    }
    state[_DIGEST] = content_digest(state)
    # Through Python's file object, whose errors say that the disk is full; PyTorch's do not.
    with atomic_file(path) as temporary, open(temporary, "wb") as handle:
        torch.save(state, handle)


def load_checkpoint(
    path: Path,
    *,
    identity: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
) -> int:
    """Restore modules and optimisers from `path`; return the step to go on with (0: no file).

    Raises:
        UserError: The file is damaged, or of another configuration, code version or data set.
    """
    if not path.exists():
        return 0
    remedy = f"delete {os.fspath(path)} to train from the start, or restore what it was made with"
    # To the CPU: what is kept there, as Adam's counts are, stays there, and no second copy of the
    # rest fills a GPU. Modules and optimisers take it to their own device.
    state = read_pickle(path, what="this checkpoint", fix=remedy)
    kept = state.get("identity") if isinstance(state, dict) else None
    if not isinstance(kept, dict):
        raise UserError("this checkpoint cannot be read: it is no checkpoint", where=path)
    differing = sorted(str(key) for key in {*identity, *kept} if identity.get(key) != kept.get(key))
    if differing:
        raise UserError(
            "this checkpoint belongs to another training: "
            + ", ".join(
                f"{key} was {kept.get(key)!r}, is {identity.get(key)!r}" for key in differing
            ),
            where=path,
            expected="the same settings, code, classes, images and what is in them",
            fix=remedy,
        )
    # One without a digest was written by other code, and is refused above.
    if not _is_whole(state):
        raise UserError(
            "this checkpoint is damaged: it does not hold what was written",
            where=path,
            expected="the SHA-256 that it names",
            fix=f"copy it again, or delete {os.fspath(path)} to train from the start",
        )
    for name, module in modules.items():
        values = OrderedDict(state["modules"][name])
        values._metadata = state["versions"][name]  # type: ignore[attr-defined]
        module.load_state_dict(values)
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    return int(state["step"])


def _versions(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what PyTorch notes of a state beside its values: the versions of its modules.

    It is an attribute, which the digest of a mapping does not see.
    """
    return dict(getattr(state, "_metadata", {}))


def _is_whole(state: dict[str, Any]) -> bool:
    try:
        return bool(state.pop(_DIGEST, None) == content_digest(state))
    except (TypeError, ValueError, RuntimeError):
        return False
