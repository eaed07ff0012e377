"""The subcommand that writes a trained model for other runtimes."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.api.files import find_model, prediction_settings
from wsss.commands.exports import read_index_of
from wsss.errors import UserError
from wsss.files.marks import check_free
from wsss.project.run_folders import find_run, run_name

if TYPE_CHECKING:
    from wsss.data.index import Index

FORMATS = ("onnx", "torch-export", "huggingface")
CARD, WEIGHTS = "README.md", "model.safetensors"


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "model", type=Path, metavar="RUN", help="results/<run>, or a segmentation model"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="ONNX; a program of PyTorch alone; or the weights in a folder as Hugging Face has it",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder to write (default: in results/<run>/export/)",
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    path, run = find_model(options.model), find_run(options.model)
    output = options.output
    if output is None and not run.is_dir():
        raise UserError("no folder to write to is named", expected="--output FOLDER")
    if output is None:
        output = run / "export" / f"model-{options.format}"
    check_free(output)
    from wsss.files import atomic_directory, canonical_json
    from wsss.segmentation.exports.card import Origin, model_card
    from wsss.segmentation.exports.formats import MODEL_FORMATS, smallest_px, write
    from wsss.segmentation.exports.hub import CONFIG, hub_config
    from wsss.segmentation.model_file import SEGMENTATION

    trained = SEGMENTATION.load(path)
    prediction = prediction_settings(path)
    name = run_name(run.resolve()) if run.is_dir() else run.stem
    origin = Origin(name, _method(run), _index(run), _scores(run), prediction)
    smallest = 0
    with atomic_directory(output) as folder:
        if options.format == "huggingface":
            shutil.copyfile(path, folder / WEIGHTS)
            config = hub_config(trained.classes, trained.settings, prediction)
            (folder / CONFIG).write_text(canonical_json(config), encoding="utf-8")
            files = f"{WEIGHTS}, {CONFIG}"
        else:
            files = write(trained, MODEL_FORMATS[options.format], folder).name
            smallest = smallest_px(trained.network)
        card = model_card(trained, origin, options.format, smallest)
        (folder / CARD).write_text(card, encoding="utf-8")
    print(f"{files} and {CARD} are in {output}")
    if smallest:
        print(
            "tried on three pictures against our own inference, at one scale, in float32: "
            "the same to 1e-4"
        )
    print(f"{CARD} says how to use it; its licence is for you to state there")


def _method(run: Path) -> str | None:
    from wsss.files import read_json_object

    path = run / "config" / "cam.json"
    return str(read_json_object(path).get("method")) if path.is_file() else None


def _index(run: Path) -> Index | None:
    if not (run / "segmentation").is_dir():
        return None
    try:
        return read_index_of(run)
    except UserError:
        return None  # A run's folder that was copied without it, or without a configuration.


def _scores(run: Path) -> str:
    """Return the tables of a run's scores: means, the segmentation by class, and against tags."""
    from wsss.evaluation.tables import format_table, percent, read_rows, text_table
    from wsss.evaluation.tags import format_tags

    texts = []
    table = run / "miou.csv"
    if table.is_file():
        texts.append(format_table(table))
        rows = [row for row in read_rows(table) if row["stage"].startswith("segmentation")]
        lines = [["class", "stage", "IoU", "precision", "recall"]]
        lines += [
            [
                row["class"],
                row["stage"],
                *map(percent, (row["iou"], row["precision"], row["recall"])),
            ]
            for row in rows
        ]
        if rows:
            texts.append(text_table(lines, left=2))
    if (run / "tags.csv").is_file():
        texts.append(format_tags(run / "tags.csv"))
    return "\n\n".join(texts)
