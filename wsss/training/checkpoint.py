"""Checkpoints: where a killed training goes on, refused when they belong to another one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from wsss.errors import UserError
from wsss.files import atomic_file


def save_checkpoint(
    path: Path,
    *,
    identity: Mapping[str, Any],
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
) -> None:
    """Write all that the next step depends on; random state is a function of the step itself."""
    # Through Python's file object, whose errors say that the disk is full; PyTorch's do not.
    with atomic_file(path) as temporary, open(temporary, "wb") as handle:
        torch.save(
            {
                "identity": dict(identity),
                "step": step,
                "modules": {name: module.state_dict() for name, module in modules.items()},
                "optimizers": {name: opt.state_dict() for name, opt in optimizers.items()},
            },
            handle,
        )


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
    try:
        # To the CPU: what is kept there, as Adam's counts are, stays there, and no second copy of
        # the rest fills a GPU. Modules and optimisers take it to their own device.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise UserError(
            f"this checkpoint cannot be read ({type(error).__name__})", where=path, fix=remedy
        ) from None
    differing = sorted(
        key
        for key in {*identity, *state["identity"]}
        if identity.get(key) != state["identity"].get(key)
    )
    if differing:
        raise UserError(
            "this checkpoint belongs to another training: "
            + ", ".join(
                f"{key} was {state['identity'].get(key)!r}, is {identity.get(key)!r}"
                for key in differing
            ),
            where=path,
            expected="the same settings, code, classes and images",
            fix=remedy,
        )
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    return int(state["step"])
