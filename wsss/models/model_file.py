"""Files of trained networks: weights with everything needed to use them, in one form for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import safetensors
import torch
from torch import nn

from wsss.errors import UserError
from wsss.files import content_hash
from wsss.models.backbones import weights_by_name
from wsss.models.weights import (
    METADATA_KEY,
    check_fits,
    load_model_file,
    load_strict,
    read_metadata,
    save_model,
)
from wsss.runtime.registry import Kind, parse_kind
from wsss.runtime.settings import Settings, replace, to_dict

N = TypeVar("N", bound=nn.Module)
S = TypeVar("S", bound=Settings)
T = TypeVar("T")


@dataclass(frozen=True)
class Trained(Generic[N, S]):
    """A trained network.

    Attributes:
        network: In eval mode, on the CPU.
        settings: What it was trained with.
        classes: Class names without background; empty where the network knows none.
        identity: Hash of its settings and classes.
    """

    network: N
    settings: S
    classes: tuple[str, ...]
    identity: str


@dataclass(frozen=True)
class ModelKind(Generic[N, S]):
    """The files of one kind of network.

    Attributes:
        stage: What the kind is called in them.
        settings: Of which settings they are.
        build: Builds the network from settings and number of classes.
    """

    stage: str
    settings: Kind
    build: Callable[[Any, int], N]

    def untrained(self, settings: S, n_classes: int) -> N:
        """Build the network with random weights, whatever its settings start from."""
        start = {
            key: replace(inner, weights="none")
            for key, inner in settings
            if isinstance(inner, Settings) and isinstance(getattr(inner, "weights", None), str)
        }
        return self.build(replace(settings, **start), n_classes)

    def save(
        self,
        path: Path,
        network: nn.Module,
        settings: S,
        *,
        classes: Sequence[str] = (),
        training: Mapping[str, Any],
    ) -> None:
        """Write a network; same weights and settings, same bytes.

        Args:
            path: Output, `.safetensors`.
            network: The network.
            settings: What it was trained with.
            classes: Class names without background.
            training: What else there is to tell of the training.
        """
        metadata: dict[str, Any] = {
            "settings": to_dict(settings),
            "classes": list(classes),
            "training": dict(training),
        }
        by_name = weights_by_name(network)
        if by_name:
            metadata["weights"] = by_name
        save_model(path, network.state_dict(), stage=self.stage, metadata=metadata)

    def classes(self, path: Path) -> tuple[str, ...]:
        """Return the class names, without background, that a file's header has.

        Raises:
            UserError: It is missing, of another kind of network, or of another version.
        """
        return _classes(read_metadata(path, self.stage), path)

    def load(self, path: Path) -> Trained[N, S]:
        """Read a file; nothing else is needed, no initial weights and no configuration.

        Raises:
            UserError: It is missing, damaged, of another kind of network, or of another version.
        """
        state, metadata = load_model_file(path, self.stage)
        classes = _classes(metadata, path)
        if not isinstance(metadata.get("settings"), dict):
            raise UserError("this model does not say what it was trained with", where=path)
        settings: Any = parse_kind(self.settings, metadata["settings"], where=f"settings in {path}")
        # First without memory: settings that are not the tensors' could ask for any amount.
        with torch.device("meta"):
            outline = self.untrained(settings, len(classes))
        check_fits(outline, state, where=path)
        network = self.untrained(settings, len(classes))
        load_strict(network, state, where=path)
        identity = content_hash([metadata["settings"], list(classes)])
        return Trained(network.eval(), settings, classes, identity)


def _classes(metadata: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    classes = metadata.get("classes", [])
    if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise UserError("this model names no list of classes", where=path)
    return tuple(classes)


def is_model(path: Path) -> bool:
    """Say by its header whether a file is one of these, of whatever kind."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except Exception:  # whatever Rust meets in other bytes
        return False


def kept(make: Callable[..., T], path: Path, *arguments: Hashable) -> T:
    """Return `make(path, *arguments)`, made once in each process of a pool that asks for images.

    The last one is kept, as long as the file does not change.
    """
    status = path.stat() if path.exists() else None
    stamp = (0, 0) if status is None else (status.st_mtime_ns, status.st_size)
    made: T = _made(make, path, stamp, arguments)
    return made


@lru_cache(maxsize=1)
def _made(
    make: Callable[..., Any], path: Path, stamp: tuple[int, int], arguments: tuple[Hashable, ...]
) -> Any:
    return make(path, *arguments)
