"""Writing a trained model for other runtimes: ONNX and PyTorch's exported programs."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from wsss import __version__
from wsss.errors import UserError
from wsss.models.deeplab import DeepLab
from wsss.models.model_file import Trained
from wsss.segmentation.exports.portable import PortableModel
from wsss.segmentation.inference import Segmenter, class_probabilities, views_of

INPUT, OUTPUT = "image", "probabilities"
METADATA_FILE = "wsss.json"
"""Where a program of PyTorch keeps what ONNX keeps as metadata."""
TOLERANCE = 1e-4
"""How far a probability may be from ours, at most, on every picture that an export is tried on."""

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """A model that is to be written.

    Attributes:
        program: Pictures to probabilities, for any number of pictures of any size.
        metadata: What the file says of itself; text by text.
        smallest_px: What each side of a picture has at least.
    """

    program: ExportedProgram
    metadata: Mapping[str, str]
    smallest_px: int


@dataclass(frozen=True)
class ModelFormat:
    """A file that other runtimes read.

    Attributes:
        name: What `--format` says.
        file: Its name.
        needs: Modules that writing and trying it needs.
        write: Writes it.
        reader: Opens it with the runtime that it is for.
    """

    name: str
    file: str
    needs: tuple[str, ...]
    write: Callable[[Exported, Path], None]
    reader: Callable[[Path], Run]


def smallest_px(network: DeepLab) -> int:
    """Return what each side of a picture must have at least in an exported model.

    Of smaller ones PyTorch would record what holds for a single row of features alone.
    """
    return 2 * network.padding_stride + 1


def export(trained: Trained[Any, Any]) -> Exported:
    """Record what a trained model computes.

    Args:
        trained: The model.

    Raises:
        UserError: It computes what cannot be recorded for every size.
    """
    model = PortableModel(trained.network).eval()
    smallest = smallest_px(trained.network)
    # Neither square, nor a multiple: what holds for these by chance is not to be recorded.
    example = torch.zeros(2, 3 * model.multiple + 5, 4 * model.multiple + 7, 3, dtype=torch.uint8)
    side = Dim.DYNAMIC(min=smallest)
    sizes = {0: Dim.DYNAMIC, 1: side, 2: side}
    with _quiet():
        try:
            with torch.no_grad():
                program = torch.export.export(
                    model, (example,), dynamic_shapes=(sizes,), strict=False
                )
        except Exception as error:  # whatever PyTorch meets in a network's own code
            raise _impossible(trained, error) from error
    for node in program.graph.nodes:
        # Where each line of code lay on this machine is nobody else's business.
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)
    metadata = {
        "classes": json.dumps(list(trained.classes), ensure_ascii=False),
        "input": f"{INPUT}: (pictures, height, width, 3) uint8 RGB, sides from {smallest} px",
        "output": f"{OUTPUT}: (pictures, 1 + classes, height, width) float32, background first",
        "padded_to_a_multiple_of": str(model.multiple),
        "wsss_version": __version__,
    }
    return Exported(program, metadata, smallest)


def write(trained: Trained[Any, Any], chosen: ModelFormat, folder: Path) -> Path:
    """Write a model's file into a folder and try it against our own inference.

    Args:
        trained: The model.
        chosen: The format.
        folder: Where to write.

    Returns:
        The file.

    Raises:
        UserError: A package is missing, the model cannot be recorded, or what was written gives
            something else than the model.
    """
    require(chosen)
    exported = export(trained)
    path = folder / chosen.file
    with _quiet():
        try:
            chosen.write(exported, path)
            run = chosen.reader(path)
            far = difference(run, trained, exported.smallest_px)
        except (UserError, OSError, MemoryError):
            raise
        except Exception as error:  # whatever a converter or a runtime cannot do
            raise _impossible(trained, error) from error
    if not far <= TOLERANCE:
        raise _impossible(trained, f"its probabilities would be {far:.2g} off")
    return path


def require(chosen: ModelFormat) -> None:
    """Check that the packages of a format are installed.

    Raises:
        UserError: One is not.
    """
    for name in chosen.needs:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(
                f"the package {name} is not installed, which writes and tries {chosen.file}",
                fix="install it:  pip install 'wsss[onnx]'",
            ) from None


def difference(run: Run, trained: Trained[Any, Any], smallest_px: int) -> float:
    """Return how far a runtime's probabilities are from ours, at most, on three noisy pictures."""
    network = trained.network
    segments = Segmenter(
        network,
        network.backbone.normalisation,
        network.padding_stride,
        torch.device("cpu"),
        torch.float32,
    )
    rng = np.random.default_rng(0)
    far = 0.0
    for height, width in ((smallest_px, smallest_px + 30), (64, 96), (121, 90)):
        size = max(height, smallest_px), max(width, smallest_px), 3
        picture = rng.integers(0, 256, size, dtype=np.uint8)
        wanted = class_probabilities(segments, views_of(picture, (1.0,)), mirror=False).numpy()
        found = run(picture[None])
        if found.shape != (1, *wanted.shape):
            raise ValueError(f"a result of {found.shape} for a picture of {picture.shape}")
        far = max(far, float(np.abs(found[0] - wanted).max()))
    return far


def _impossible(trained: Trained[Any, Any], error: object) -> UserError:
    settings = trained.settings
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(
        f"the head '{settings.head.name}' on {settings.backbone.name} cannot be exported: "
        f"{' '.join(line.strip() for line in lines[:3])[:400]}",
        expected="a network whose operations are the same for every size of a picture",
        fix="choose --format huggingface, which keeps the network as it is",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own notes, of matters inside PyTorch, from the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _write_onnx(exported: Exported, path: Path) -> None:
    program = torch.onnx.export(
        exported.program,
        dynamo=True,
        external_data=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    parts = [model.graph, *model.functions]
    things: list[Any] = [node for part in parts for node in part.node]
    things += [*model.graph.input, *model.graph.output, *model.graph.value_info, *parts]
    for each in things:
        # As above: the converter writes them from its own notes.
        del each.metadata_props[:]
        each.doc_string = ""
    del model.metadata_props[:]
    for key, text in sorted(exported.metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    path.write_bytes(model.SerializeToString(deterministic=True))


def _onnx_reader(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = session.run([OUTPUT], {INPUT: pictures})[0]
        return found

    return run


def _write_program(exported: Exported, path: Path) -> None:
    text = json.dumps(dict(exported.metadata), ensure_ascii=False, sort_keys=True)
    torch.export.save(exported.program, path, extra_files={METADATA_FILE: text})


def _program_reader(path: Path) -> Run:
    module = torch.export.load(path).module()

    def run(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            found: Tensor = module(torch.from_numpy(pictures))
        array: npt.NDArray[np.float32] = found.numpy()
        return array

    return run


MODEL_FORMATS: Mapping[str, ModelFormat] = {
    each.name: each
    for each in (
        ModelFormat(
            "onnx", "model.onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _onnx_reader
        ),
        ModelFormat("torch-export", "model.pt2", (), _write_program, _program_reader),
    )
}
