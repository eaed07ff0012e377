"""Weight files: strict loading from the usual formats, and our own safetensors files."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsss.errors import UserError, listed
from wsss.files import atomic_file
from wsss.models.digests import FLOATS, content_digest, unusable
from wsss.models.pickles import read_pickle
from wsss.models.published.mxnet import read_mxnet_params

METADATA_KEY = "wsss"
MODEL_FORMAT_VERSION = 2
# Version 1 had no digest. Its files load, as nothing else is different in them.
_WITHOUT_DIGEST = 1
_DIGEST_KEY = "sha256"
_SHOWN = 8
# What publishers wrap a state dict in: Lightning, timm and DeiT training scripts, many others.
_WRAPPERS = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a weight file.

    Attributes:
        used: Names in the file of the tensors that were loaded.
        left_out: Names in the file of the tensors that the module has no use for.
    """

    used: tuple[str, ...]
    left_out: tuple[str, ...]


def _is_counter(name: str) -> bool:
    # BatchNorm's step counter: missing from files older than PyTorch 0.4.1 and of no effect here.
    return name.endswith("num_batches_tracked")


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    rename: Callable[[str], str] | Mapping[str, str] | None = None,
    leave_out: Collection[str] | Callable[[str], bool] = (),
    where: object | None = None,
) -> LoadReport:
    """Copy `state` into `module`; every tensor is used or named as left out.

    Args:
        module: Network to fill, in place. It may not be on the meta device.
        state: Tensors by their names in the file.
        rename: From a name in the file to a name of `module`; a name missing from a mapping
            stays as it is.
        leave_out: Names in the file, or a test on them, that `module` has no use for.
        where: The file, for messages.

    Returns:
        The names used and left out.

    Raises:
        UserError: A tensor is missing, unknown, given twice, of another shape, of a type that is
            no plain number, or not finite. Then nothing was copied.
    """
    chosen, report = _matched(module, state, rename=rename, leave_out=leave_out, where=where)
    target = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in chosen.items():
            target[name].copy_(tensor)
    return report


def check_fits(module: nn.Module, state: Mapping[str, Tensor], *, where: object) -> None:
    """Refuse tensors that `load_strict` would refuse; `module` may be on the meta device.

    Raises:
        UserError: As `load_strict` does.
    """
    _matched(module, state, rename=None, leave_out=(), where=where)


def _matched(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    rename: Callable[[str], str] | Mapping[str, str] | None,
    leave_out: Collection[str] | Callable[[str], bool],
    where: object | None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the tensors to copy, by their names in `module`."""
    left = leave_out if callable(leave_out) else set(leave_out).__contains__
    target = module.state_dict(keep_vars=True)
    chosen: dict[str, Tensor] = {}
    source_of: dict[str, str] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    problems: list[str] = []
    for name, tensor in state.items():
        if left(name):
            left_out.append(name)
            continue
        if rename is None:
            renamed = name
        else:
            renamed = rename(name) if callable(rename) else rename.get(name, name)
        if renamed not in target:
            unknown.append(name)
        elif renamed in chosen:
            problems.append(f"{name} and {source_of[renamed]} are the same tensor")
        elif tensor.shape != target[renamed].shape:
            wanted = tuple(target[renamed].shape)
            problems.append(f"{name} has shape {tuple(tensor.shape)}, not {wanted}")
        elif not (_is_counter(renamed) or _SHAPES_ALONE.get()) and (
            problem := unusable(name, tensor, as_float=target[renamed].is_floating_point())
        ):
            problems.append(problem)
        else:
            chosen[renamed], source_of[renamed] = tensor, name
    missing = [name for name in target if name not in chosen and not _is_counter(name)]
    if missing:
        problems.append(f"missing: {listed(sorted(missing), _SHOWN)}")
    if unknown:
        problems.append(f"not known to this network: {listed(sorted(unknown), _SHOWN)}")
    if problems:
        raise UserError(
            "these weights do not fit the network: " + "; ".join(problems[:_SHOWN]),
            where=where,
            expected=f"all {len(target)} tensors of {type(module).__name__}, and no others",
            fix="give the weight file of exactly this network, or another network's name",
        )
    return chosen, LoadReport(tuple(source_of.values()), tuple(left_out))


_SHAPES_ALONE: ContextVar[bool] = ContextVar("shapes alone", default=False)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Within, networks and weight files have names and shapes, but no values.

    What is built is on the meta device, and `read_state_dict` reads as little of a file as its
    format allows. So a network can be asked whether a file fits it, for next to nothing.
    """
    token = _SHAPES_ALONE.set(True)
    try:
        with torch.device("meta"):
            yield
    finally:
        _SHAPES_ALONE.reset(token)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a weight file's tensors, on the CPU, without executing anything in it.

    Args:
        path: `.safetensors`, a PyTorch pickle (`.pth`, `.pt`, `.ckpt`, `.bin`; bare or wrapped
            as `state_dict` or `model`), or MXNet's `.params`.

    Returns:
        Tensors by name, as named in the file; within `shapes_alone` without values.

    Raises:
        UserError: The file is missing, of another kind, damaged, or a pickle that holds more
            than tensors and plain values.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("this weight file does not exist", where=file)
    suffix = file.suffix.lower()
    if suffix == ".safetensors":
        return _safetensors_shapes(file) if _SHAPES_ALONE.get() else _read_safetensors(file)
    if suffix == ".params":
        return _alone(read_mxnet_params(file))
    if suffix in (".pth", ".pt", ".ckpt", ".bin"):
        return _alone(_read_pickle(file))
    raise UserError(
        f"weight files ending in {suffix or 'nothing'} are not known",
        where=file,
        expected=".safetensors, .pth, .pt, .ckpt, .bin or .params",
    )


def _alone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if not _SHAPES_ALONE.get():
        return state
    return {name: tensor.to("meta") for name, tensor in state.items()}


def _safetensors_shapes(file: Path) -> dict[str, Tensor]:
    with _readable_safetensors(file) as handle:
        # Of the header alone; types do not matter for what fits.
        return {name: torch.empty(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    with _readable_safetensors(file) as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


@contextmanager
def _readable_safetensors(file: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(str(file), framework="pt") as handle:
            yield handle
    except Exception as error:
        # Whatever Rust and PyTorch meet in damaged bytes.
        raise UserError(
            f"this is not a readable safetensors file: {str(error)[:300]}",
            where=file,
            fix="fetch or write it again",
        ) from None


def _read_pickle(file: Path) -> dict[str, Tensor]:
    loaded = read_pickle(
        file,
        what="this weight file",
        fix="fetch it again",
        if_more="if you trust its source, convert it once, elsewhere: "
        "d = torch.load(FILE, map_location='cpu', weights_only=False); "
        "safetensors.torch.save_file("
        "{k: v.contiguous() for k, v in d['state_dict'].items()}, 'FILE.safetensors')",
        # Of an archive the values are only mapped where nobody asks for them.
        mapped=_SHAPES_ALONE.get(),
    )
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise UserError(
            f"this file holds a {type(loaded).__name__}", where=file, expected="a state dict"
        )
    others = [
        str(key)[:80] if isinstance(key, str) else f"a {type(key).__name__} as a name"
        for key, value in loaded.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others or not loaded:
        raise UserError(
            "not all of this file's entries are tensors: "
            f"{listed(sorted(others), _SHOWN) or 'it has none'}",
            where=file,
            expected="a state dict, bare or under 'state_dict' or 'model'",
        )
    return {key: value.detach() for key, value in loaded.items()}


def save_model(
    path: str | Path,
    module_state: Mapping[str, Tensor],
    *,
    stage: str,
    metadata: Mapping[str, Any],
) -> None:
    """Write a model file atomically: same tensors and metadata, same bytes.

    The metadata hold a SHA-256 over themselves and all tensors, which loading checks.

    Args:
        path: Output, `.safetensors`.
        module_state: Tensors by name; saved on the CPU, contiguous.
        stage: What kind of model this is; checked on loading.
        metadata: JSON-serialisable; kept as sorted JSON under one key, because safetensors
            writes several keys in an order that varies.

    Raises:
        UserError: A weight is not finite; nothing was written.
    """
    state = {
        name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        if tensor.dim() == 4
        else tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in sorted(module_state.items())
    }
    broken = _not_finite(state)
    if broken:
        raise UserError(
            f"the trained weights are not finite: {listed(broken, _SHOWN)}",
            where=path,
            fix="the training diverged: lower its learning rate, or use precision float32",
        )
    described = {**metadata, "stage": stage, "format_version": MODEL_FORMAT_VERSION}
    described[_DIGEST_KEY] = _model_digest(state, described)
    text = json.dumps(described, sort_keys=True, ensure_ascii=False)
    with atomic_file(path) as temporary:
        # Its own writing goes through a file of a random name, which a kill would leave behind.
        temporary.write_bytes(safetensors.torch.save(state, metadata={METADATA_KEY: text}))


def _not_finite(state: Mapping[str, Tensor]) -> list[str]:
    return [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]


def _model_digest(state: Mapping[str, Tensor], described: Mapping[str, Any]) -> str:
    # As JSON gives it back: tuples are lists then.
    plain = json.loads(json.dumps({k: v for k, v in described.items() if k != _DIGEST_KEY}))
    return content_digest({"metadata": plain, "tensors": dict(state)})


def read_metadata(path: str | Path, stage: str) -> dict[str, Any]:
    """Return the metadata of what `save_model` wrote, from its header: no tensor is looked at.

    Args:
        path: The file.
        stage: The kind of model that is wanted.

    Raises:
        UserError: The file is missing, not one of ours, or of another kind or version.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("this model file does not exist", where=file)
    with _readable_safetensors(file) as handle:
        metadata = handle.metadata() or {}
    try:
        decoded: Any = json.loads(metadata[METADATA_KEY])
    except (KeyError, ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise UserError(
            "this safetensors file was not written by a training stage of wsss",
            where=file,
            expected=f"JSON under the metadata key '{METADATA_KEY}'",
        )
    kind, version = decoded.get("stage"), decoded.get("format_version")
    if kind != stage or version not in (_WITHOUT_DIGEST, MODEL_FORMAT_VERSION):
        raise UserError(
            f"this model file is of stage {kind!r}, version {version!r}",
            where=file,
            expected=f"stage {stage!r}, version {MODEL_FORMAT_VERSION}",
        )
    return decoded


def load_model_file(path: str | Path, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `save_model` wrote: tensors by name, on the CPU, and the metadata.

    Args:
        path: The file.
        stage: The kind of model that is wanted.

    Raises:
        UserError: As of `read_metadata`; or the file is damaged, or not all of its numbers are
            finite.
    """
    file, decoded = Path(path), read_metadata(path, stage)
    state = _read_safetensors(file)
    if decoded["format_version"] == _WITHOUT_DIGEST:
        _tell_of_no_digest(file)
    elif decoded.pop(_DIGEST_KEY, None) != _model_digest(state, decoded):
        raise UserError(
            "this model file is damaged: its tensors or metadata are not what was written",
            where=file,
            expected="the SHA-256 that its metadata name",
            fix=f"copy it again, or delete it (rm {shlex.quote(str(file))}) and start again: its "
            "stage runs again",
        )
    problems = [
        problem
        for name, tensor in state.items()
        if (problem := unusable(name, tensor, as_float=tensor.dtype in FLOATS))
    ]
    if problems:
        raise UserError(
            f"this model cannot be used: {listed(problems, _SHOWN)}",
            where=file,
            expected="finite numbers",
            fix="train it again",
        )
    return state, decoded


@lru_cache
def _tell_of_no_digest(file: Path) -> None:
    """Say it once a process and file."""
    print(
        f"{file}: written by an earlier version, without a SHA-256 of its weights; whether it is "
        "damaged cannot be told",
        file=sys.stderr,
    )
