"""The subcommand that writes a run's labels in the formats of other tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.errors import UserError, listed
from wsss.project.run_folders import (
    find_run,
    lacking,
    no_pseudo_labels,
    no_segmentation,
    no_self_labels,
    results_of,
    run_name,
)

if TYPE_CHECKING:
    from wsss.data.index import Index

# What can be exported -> folders of a run, the best first.
SOURCES = {
    "pseudo-labels": ("pseudo_labels",),
    "self-labels": ("self_labels",),
    "predictions": ("predictions_crf", "predictions"),
}
_NEVER = {
    "pseudo-labels": no_pseudo_labels,
    "self-labels": no_self_labels,
    "predictions": no_segmentation,
}
FORMATS = ("coco", "cvat", "label-studio", "voc", "png")


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run, or results/<run>")
    parser.add_argument(
        "--what",
        choices=tuple(SOURCES),
        required=True,
        help="those of the training pictures, those that another run's model predicted of them, or "
        "those of the pictures that the run predicts",
    )
    parser.add_argument("--format", choices=FORMATS, required=True, help="who is to read it")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="file or folder to write (default: in results/<run>/export/)",
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="only these pictures (default: all)"
    )
    parser.set_defaults(run=_export)


def read_index_of(folder: Path) -> Index:
    """Return the index of a run, which may be that of a run it extends.

    Raises:
        UserError: There is none yet.
    """
    from wsss.data.index import read_index
    from wsss.project.config import load_config

    path = folder / "index.csv"
    if not path.is_file():
        owner = load_config().index_owner(run_name(folder))
        path = results_of(folder) / owner / "index.csv"
    return read_index(path)


def _export(options: argparse.Namespace) -> None:
    from wsss.data.exports.label_studio import labelling_config
    from wsss.data.exports.labels import LabelMaps
    from wsss.data.exports.registry import EXPORTS, export_labels, unsure_share
    from wsss.data.label_files import LabelFiles
    from wsss.runtime.names import Names

    run, export = find_run(options.folder), EXPORTS[options.format]
    found = next((run / name for name in SOURCES[options.what] if (run / name).is_dir()), None)
    if found is None:
        raise lacking(
            run,
            f"this run has no {options.what} yet",
            expected=" or ".join(f"{name}/" for name in SOURCES[options.what]),
            never=_NEVER[options.what],
        )
    index = read_index_of(run)

    def place(name: str) -> Path:
        return found / f"{name}.png"

    there = Names(name for name in index.records.names if place(name).is_file())
    if options.names:
        unknown = [name for name in options.names if name not in there]
        if unknown:
            raise UserError(f"there is none of {listed(unknown)}", where=found)
        there = Names(options.names)
    records = index.records.take(index.records.names.found_in(there))
    files = LabelFiles(there, place)
    labels = LabelMaps(index.classes, records, files, f"{run_name(run)} {options.what}")
    output = options.output
    if output is None:
        output = run / "export" / f"{options.what}-{options.format}{export.suffix}"
    export_labels(labels, options.format, output)
    if options.format == "label-studio":
        print(labelling_config(index.classes))
    print(f"{len(records)} label maps of {found} are in {output}")
    unsure = unsure_share(labels)
    if unsure:
        print(f"pixels that are not sure (255, {100 * unsure:.1f} %): {export.unsure}")
    print(export.next_step.format(path=output))
