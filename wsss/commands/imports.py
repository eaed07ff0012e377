"""The subcommand that takes masks back from other tools."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.commands.exports import SOURCES, read_index_of
from wsss.errors import UserError, listed
from wsss.project.run_folders import (
    find_run,
    has_begun,
    is_here,
    lacking,
    results_of,
    run_name,
)

if TYPE_CHECKING:
    from wsss.data.imports.masks import Report
    from wsss.data.index import Index

SHOWN = 5


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run, or results/<run>")
    parser.add_argument(
        "source",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="CVAT's Segmentation mask 1.1 (zip), COCO JSON, Label Studio's JSON, a VOC folder, or "
        "label PNGs",
    )
    parser.add_argument(
        "--unchanged",
        action="store_true",
        help="also take masks that are still what was exported (default: only what was changed)",
    )
    parser.add_argument(
        "--unsure",
        choices=("keep", "background"),
        default="keep",
        help="pixels that were not sure and that CVAT or Label Studio brings back without a label: "
        "still not sure, or background (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write over masks that were drawn or changed elsewhere",
    )
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> None:
    from wsss.data.imports.masks import Choices, import_masks
    from wsss.data.imports.registry import read_drawing

    run = find_run(options.folder)
    root, index = _data_of(run)
    drawing = read_drawing(options.source, index.classes)
    folders = [folder for folders in SOURCES.values() for folder in folders]
    choices = Choices(
        drafts=[run / folder for folder in folders if (run / folder).is_dir()],
        take_unchanged=options.unchanged,
        unsure_is_background=options.unsure == "background",
        overwrite=options.overwrite,
    )
    report = import_masks(drawing, index, root, choices)
    print(f"{options.source}: {drawing.tool}, {len(drawing.masks)} masks")
    for note in drawing.notes:
        print(note)
    _tell(report, root)
    _say_next(report, index, run_name(run))


def _data_of(run: Path) -> tuple[Path, Index]:
    """Return a run's data root, if masks can be put there, and its index.

    Raises:
        UserError: There is no such run, or its data set keeps masks elsewhere.
    """
    from wsss.data.build import build_index
    from wsss.data.formats.folder import find_folder_masks
    from wsss.data.formats.registry import FORMATS
    from wsss.project.config import load_config

    config, name = load_config(), run_name(run)
    if not has_begun(run) and not is_here(run):
        raise lacking(run, "no run is here")
    try:
        settings = config.run(name).stages["index"]
    except UserError as error:
        raise lacking(run, error.found) from None
    if FORMATS.get(settings.format, where="index.format").find_masks is not find_folder_masks:
        raise UserError(
            f"the data of this run are in the format '{settings.format}', which has its masks in a "
            "place of its own",
            where=run,
            expected="a data set whose masks are masks/NAME.png",
        )
    root = config.root_folder(name)
    owner = results_of(run) / config.index_owner(name) / "index.csv"
    return root, read_index_of(run) if owner.is_file() else build_index(settings, root)


def _tell(report: Report, root: Path) -> None:
    left_out = {
        "as they were exported (--unchanged takes them, too)": report.unchanged,
        "nothing is drawn in them": report.empty,
        "the run has no such picture": report.unknown,
    }
    for reason, names in left_out.items():
        if names:
            print(f"left out, {reason}: {len(names)} ({_shown(names)})")
    if report.kept:
        print(f"there already: {len(report.kept)} ({_shown(report.kept)})")
    if report.restored:
        print(
            f"pixels that were not sure stay so in {len(report.restored)} of them "
            "(--unsure background)"
        )
    print(f"taken: {len(report.written)}, into {root / 'masks'}")
    if report.written:
        print(f"  {_shown(report.written)}")


def _say_next(report: Report, index: Index, name: str) -> None:
    """Say what the masks that were taken are for."""
    from wsss.project.config import load_config

    if not report.written:
        return
    trained = {record.name for record in index.training_set().records}
    if trained.isdisjoint(report.written):
        print(f"they score, as none is of a training picture:  wsss run {name}")
    elif load_config().run(name).stages["segmentation"].labels == "mixed":
        print(f"to learn from them, too:  wsss run {name}")
    else:
        print(f"to learn from them, say of the run '{name}' in config.local.yaml:")
        print(f"  segmentation: {{labels: mixed}}        and then:  wsss run {name}")


def _shown(names: Sequence[str]) -> str:
    return listed(names, SHOWN)
