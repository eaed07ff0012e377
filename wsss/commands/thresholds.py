"""The subcommand that lets a few masks choose background scores."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.project.config import ProjectConfig

# Map store of a run -> the setting that its background score is.
STORES = {
    "cams.h5": ("evaluation", "cam_background"),
    "walked.h5": ("pseudo_labels", "background"),
}


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="results/<run>")
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the chosen scores into the run, in config.local.yaml",
    )
    parser.set_defaults(run=_thresholds)


def _thresholds(options: argparse.Namespace) -> None:
    from wsss.data.build import build_masks
    from wsss.data.index import read_index
    from wsss.evaluation.thresholds import choose, count_images, describe
    from wsss.maps.background import threshold_of
    from wsss.project.config import load_config

    config, folder = load_config(), options.folder
    name = folder.name
    run, root = config.run(name), config.existing_root(name)
    found = [store for store in STORES if (folder / store).is_file()]
    if not found:
        raise UserError(
            "this run has no maps yet",
            where=folder,
            expected=" or ".join(STORES),
            fix=f"make them:  snakemake --cores all {folder}/miou.csv",
        )
    index = read_index(folder.parent / config.index_owner(name) / "index.csv")
    # Of the data set as it is now: masks are mostly drawn when there is something to correct.
    masks = build_masks(run.stages["index"], root, index)
    changes: dict[str, dict[str, float]] = {}
    for store in found:
        section, key = STORES[store]
        if section == "pseudo_labels" and run.stages[section].method != "irn":
            # Refined after the background came in: another one would refine other maps.
            continue
        configured = threshold_of(getattr(run.stages[section], key))
        values = run.stages["evaluation"].thresholds(configured)
        known = _masks_of(folder / store, masks, config, name)
        counts = count_images(folder / store, known, len(index.classes), values)
        choice = choose(counts, values, configured)
        print(describe(choice, f"{section}.{key}"))
        changes.setdefault(section, {})[key] = choice.best
    if options.write:
        _write(name, changes)
    else:
        print("to put these scores into the run, in config.local.yaml, add --write")


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
            fix=f"draw 10 to 20; start from:  wsss export-labels {store.parent} --what "
            "pseudo-labels",
        )
    return known


def _write(name: str, changes: Mapping[str, Any]) -> None:
    from wsss.project.config import LOCAL_FILE
    from wsss.project.local_file import update_local

    update_local(LOCAL_FILE, {"runs": {name: changes}})
    print(f"wrote them into {LOCAL_FILE}, runs.{name}; what depends on them is made again by:")
    print(f"  snakemake --cores all results/{name}/miou.csv")
