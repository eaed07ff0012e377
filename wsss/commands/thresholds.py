"""The subcommand that lets a few masks choose background scores."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.errors import UserError
from wsss.files.marks import check_file_replaceable
from wsss.maps.background import AUTO, Background, threshold_of
from wsss.maps.chosen import Maps, chosen_entry, is_chosen, read_chosen, write_chosen
from wsss.project.run_folders import find_run, lacking, no_cams, results_of, run_name

if TYPE_CHECKING:
    from wsss.project.config import ProjectConfig

# Map store of a run -> the setting that its background score is, what its maps are, and the file
# of the score where that setting is `auto`.
STORES: Mapping[str, tuple[str, str, Maps, str]] = {
    "cams.h5": ("evaluation", "cam_background", "cam", "thresholds.json"),
    "walked.h5": ("pseudo_labels", "background", "walked", "walk_thresholds.json"),
}


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run, or results/<run>")
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the chosen scores into the run, in config.local.yaml",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the chosen scores here (JSON), as choose-thresholds does without masks",
    )
    parser.set_defaults(run=_thresholds)


def _thresholds(options: argparse.Namespace) -> None:
    from wsss.data.build import build_masks
    from wsss.data.index import read_index
    from wsss.evaluation.thresholds import choose, count_images, describe
    from wsss.project.config import load_config

    if options.output is not None:
        check_file_replaceable(options.output, is_chosen, "a file of chosen background scores")
    config, folder = load_config(), find_run(options.folder)
    name = run_name(folder)
    found = [store for store in STORES if (folder / store).is_file()]
    if not found:
        expected = " or ".join(STORES)
        raise lacking(folder, "this run has no maps yet", expected=expected, never=no_cams)
    run, root = config.run(name), config.existing_root(name)
    if options.write and "/" in name:
        raise UserError(
            f"'{name}' is a row of a table, whose settings stand with the row",
            where=folder,
            fix="leave --write out, and put the scores that are printed there by hand",
        )
    index = read_index(results_of(folder) / config.index_owner(name) / "index.csv")
    # Of the data set as it is now: masks are mostly drawn when there is something to correct.
    masks = build_masks(run.stages["index"], root, index)
    changes: dict[str, dict[str, float]] = {}
    entries: dict[Maps, Mapping[str, Any]] = {}
    for store in found:
        section, key, kind, file = STORES[store]
        if section == "pseudo_labels" and run.stages[section].method != "irn":
            # Refined after the background came in: another one would refine other maps.
            continue
        configured = _configured(getattr(run.stages[section], key), folder, file, kind)
        values = run.stages["evaluation"].thresholds(configured)
        known = _masks_of(folder / store, masks, config, name)
        counts = count_images(folder / store, known, len(index.classes), values)
        choice = choose(counts, values, configured)
        print(describe(choice, f"{section}.{key}"))
        changes.setdefault(section, {})[key] = choice.best
        interval = [choice.low, choice.high]
        entries[kind] = chosen_entry(
            kind, choice.best, method="masks", images=choice.images, interval=interval
        )
    if options.output is not None:
        write_chosen(options.output, entries)
        print(f"wrote them into {options.output}, which --thresholds takes")
    if options.write:
        _write(name, changes)
    elif options.output is None and "/" not in name:
        print("to put these scores into the run, in config.local.yaml, add --write")


def _configured(background: Background, folder: Path, file: str, kind: Maps) -> float:
    """Return the background score that a run has now."""
    if background != AUTO:
        return threshold_of(background)
    if not (folder / file).exists():
        raise lacking(folder, "its background score, which is auto, is not chosen yet", target=file)
    return float(read_chosen(folder / file, kind)["score"])


def _masks_of(
    store: Path, masks: Mapping[str, str], config: ProjectConfig, name: str
) -> dict[str, Path]:
    """Return the masks of the pictures that a run has maps of."""
    from wsss.maps.map_store import MapStore

    root = config.root_folder(name)
    with MapStore(store) as maps:
        mapped = set(maps.names)
    known = {image: root / path for image, path in masks.items() if image in mapped}
    if not known:
        raise UserError(
            f"none of the {len(mapped)} pictures with maps has a mask",
            where=root,
            expected="masks of some training pictures, such as masks/NAME.png",
            fix="draw 10 to 20; start from:  wsss export-labels "
            f"{shlex.quote(str(store.parent))} --what pseudo-labels --format png",
        )
    return known


def _write(name: str, changes: Mapping[str, Any]) -> None:
    from wsss.project.config import LOCAL_FILE
    from wsss.project.local_file import update_local

    update_local(LOCAL_FILE, {"runs": {name: changes}})
    print(f"wrote them into {LOCAL_FILE}, runs.{name}; what depends on them is made again by:")
    print(f"  snakemake --cores all results/{name}/done")
