"""`wsss init`: look at a folder of pictures and write a run for it."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.errors import UserError, with_help
from wsss.maps.background import AUTO
from wsss.maps.chosen import KEYS

if TYPE_CHECKING:
    from wsss.data.index import Index

VAL_SHARE = 0.2
# The run whose settings gave the best results on photographs, on a small machine.
BASE = "voc-lite-best"
# Of two layouts that fit, the one that says more; a plug-in's own comes before all of these.
ORDER = ("folder", "voc", "coco", "coco_json", "table", "class_folders")
# Those whose files and folders are there for nothing else.
LISTS = ("voc", "coco", "coco_json")


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="the pictures")
    parser.add_argument("--name", default="mine", help="name of the run (default: %(default)s)")
    parser.add_argument("--method", metavar="NAME", help="CAM method (default: the base run's)")
    parser.add_argument(
        "--extends", default=BASE, metavar="RUN", help="its settings (default: %(default)s)"
    )
    parser.add_argument(
        "--val",
        type=float,
        default=VAL_SHARE,
        metavar="SHARE",
        help="share of the pictures held out, where no set is named val (default: %(default)s)",
    )
    parser.add_argument(
        "--project",
        type=Path,
        metavar="DIR",
        help="make a working folder here first: Snakefile, config.yaml, rules, profiles",
    )
    parser.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> None:
    if options.project is not None:
        from wsss.project.working_folder import make_working_folder

        make_working_folder(options.project)
        place = shlex.quote(str(options.project))
        print(f"{options.project} is ready to work in:  cd {place}")
    elif options.folder is None:
        raise UserError("no folder is named", expected="wsss init FOLDER, or --project DIR")
    if options.folder is not None:
        _add_run(options, options.project or Path())


def recognised(root: Path) -> Mapping[str, Any]:
    """Return the settings of the layout that a folder has.

    Raises:
        UserError: It has none that is known; the message says what each that comes near lacks.
    """
    from wsss.data.formats.registry import FORMATS

    entries = FORMATS.entries()
    order = [name for name in entries if name not in ORDER] + [n for n in ORDER if n in entries]
    near: dict[tuple[str, str], str] = {}
    lists: list[str] = []
    for name in order:
        recognise = entries[name].recognise
        try:
            values = recognise(root) if recognise is not None else None
        except UserError as error:
            if near and name == ORDER[-1]:
                continue  # that there is no list, where there is one that is nearly right
            # What is wrong with a file that two formats take for theirs is said once.
            said = f"  - as {name}: {_told(error, root)}"
            near.setdefault((error.where or "", error.found), said)
            lists += [name] if name in LISTS else []
            continue
        # Folders are classes wherever there are any: not where a list of the pictures was meant.
        if values is not None and (name != ORDER[-1] or not lists):
            damaged = [said for (where, _), said in near.items() if Path(where).is_file()]
            if damaged:
                print("\n".join(["files that were not taken for lists of pictures:", *damaged]))
            return values
        if values is not None:
            near["", name] = (
                f"  - as {name}: its folders could be classes; to insist, take away what was "
                "taken for a list, or write the run with index: {format: class_folders}"
            )
    raise UserError(
        "\n".join(["this folder has no layout that is known", *near.values()]),
        where=root,
        expected="a folder a class; images/ and labels.csv; COCO JSON; CSV, JSON or JSON lines "
        "of pictures and tags; or a VOC devkit",
        fix="docs/own-pictures.md shows each",
    )


def _told(error: UserError, root: Path) -> str:
    """Return what one format misses as one line, with the file."""
    place = (error.where or "").removeprefix(str(root)).lstrip("/")
    said = " ".join(with_help(error).split())
    return f"{place}: {said}" if place else said


def automatic(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that let the maps choose their background scores.

    A run's numbers suit the pictures that they were chosen on; where background is a power of
    what the classes leave, it follows the maps by itself.

    Args:
        stages: Settings by stage of the run that is extended.
    """
    return {
        section: chosen
        for section, keys in KEYS.items()
        if (
            chosen := {
                k: AUTO for k in keys if isinstance(getattr(stages[section], k, None), float)
            }
        )
    }


def _set_lengths(spec: dict[str, Any], name: str, index: Index, project: Path) -> str:
    """Make the trainings of a run that is about to be written long enough for its pictures.

    Args:
        spec: What will be laid over the configuration; changed in place.
        name: The run.
        index: Its pictures.
        project: The working folder.

    Returns:
        What there is to say of it.
    """
    from wsss.project.config import load_config
    from wsss.project.scaling import (
        MEANT_FOR,
        TIMED,
        expected_minutes,
        is_timed,
        scaled_to,
        updates,
    )

    count = len(index.training_set().records)
    changes = scaled_to(load_config(spec, folder=project).run(name), count)
    for stage, changed in changes.items():
        spec["runs"][name][stage] = {**spec["runs"][name].get(stage, {}), **changed}
    run = load_config(spec, folder=project).run(name)
    lines = [
        f"{stage} {run.stages[stage].epochs} epochs, {number} updates"
        for stage, number in updates(run, count).items()
    ]
    text = f"training: {'; '.join(lines)}"
    if changes:
        text += (
            f"\n  (at least as many updates as from {MEANT_FOR} pictures, whatever their number)"
        )
    split = run.stages["prediction"].split
    minutes = expected_minutes(run, count, len(index.subset(split).records))
    if minutes is not None:
        method = run.stages["cam"].method
        timed = is_timed(method) or not run.has_cams
        also = "" if timed else f", and the time of the CAM method '{method}'"
        text += (
            f"\ntime:     about {minutes:.0f} min on 2 cores without a GPU, nothing else running, "
            f"by {TIMED}'s times{also}"
        )
    return text


def _add_run(options: argparse.Namespace, project: Path) -> None:
    from wsss.cam.methods.registry import METHODS
    from wsss.data.build import build_index, build_masks
    from wsss.data.description import describe
    from wsss.data.formats.registry import FORMATS
    from wsss.data.index import require_truth
    from wsss.data.indexing import check_sets
    from wsss.project.config import LOCAL_FILE, load_config
    from wsss.project.local_file import update_local

    # Not `resolve`, which fails at links that lead to themselves.
    root, name = Path(os.path.realpath(options.folder.expanduser())), options.name
    if not root.is_dir():
        found = "this is no folder" if root.exists() else "this folder does not exist"
        raise UserError(found, where=root, expected="a folder of pictures")
    config = load_config(folder=project)
    if name in config.runs:
        raise UserError(
            f"there is a run '{name}' already",
            where=f"runs.{name}",
            fix="give another one with --name, or take that one out of config.local.yaml",
        )
    parent = config.run(options.extends)
    method = None
    if options.method is not None:
        method = METHODS.get(options.method, where="--method")
    values = dict(recognised(root))
    chosen = FORMATS.get(values["format"], where="index.format")
    if "val_share" in chosen.settings.model_fields:
        values["val_share"] = options.val
    settings: Any = FORMATS.parse(values, where=f"runs.{name}.index")
    index = build_index(settings, root)
    masks = None if chosen.draws_masks else build_masks(settings, root, index)
    print(describe(settings, root, index, masks))
    needed = (parent.stages["evaluation"].seed_split, parent.stages["prediction"].split)
    check_sets(index, needed)
    if masks is not None and parent.stop_after == "segmentation":
        kind = parent.stages["segmentation"].labels
        require_truth(kind, index.training_set(), masks, where=root)
    run: dict[str, Any] = {"extends": options.extends, "root": name, "index": values}
    run |= automatic(parent.stages)
    if method is not None:
        run["cam"] = {"method": method.name}
        if parent.stages["export"].refine == "lpcam" and not method.has_features:
            run["export"] = {"refine": "none"}
    spec = {"roots": {name: str(root)}, "runs": {name: run}}
    print("\n" + _set_lengths(spec, name, index, project))
    update_local(project / LOCAL_FILE, spec)
    print(f"\nwrote the run '{name}' into {project / LOCAL_FILE}. Next:")
    print(f"  wsss run {name}        (or: snakemake --cores all results/{name}/done)")
    print(f"  wsss status results/{name}")
