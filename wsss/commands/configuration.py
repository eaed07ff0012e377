"""`wsss config`: check, show and describe the configuration."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.project.run_folders import name_given

if TYPE_CHECKING:
    from wsss.project.config import ProjectConfig


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the actions of `wsss config`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")

    check = actions.add_parser("check", help="check config.yaml and config.local.yaml")
    check.add_argument(
        "name", nargs="?", type=name_given, metavar="RUN", help="also check this run's data"
    )
    check.set_defaults(run=_check)

    show = actions.add_parser("show", help="show every setting of a run")
    show.add_argument("name", type=name_given, metavar="RUN")
    show.set_defaults(run=_show)

    schema = actions.add_parser("schema", help="print or write the schema of config.yaml")
    schema.add_argument("--output", type=Path, metavar="PATH")
    schema.set_defaults(run=_schema)

    defaults = actions.add_parser(
        "defaults", help="print the `defaults:` section of config.yaml, with its comments"
    )
    defaults.add_argument(
        "--into", type=Path, metavar="PATH", help="put it into this config.yaml instead"
    )
    defaults.set_defaults(run=_defaults)

    write = actions.add_parser("write", help="write one stage's settings (a rule's command)")
    write.add_argument("--stage", required=True)
    write.add_argument("--settings", required=True, metavar="JSON")
    write.add_argument("--output", type=Path, required=True, metavar="PATH")
    write.set_defaults(run=_write)


def _check(options: argparse.Namespace) -> None:
    from wsss.project.config import load_config
    from wsss.project.file import STAGES

    config = load_config()
    if options.name is None:
        print(f"the configuration is right; runs: {', '.join(sorted(config.runs))}")
        return
    config.run(options.name)
    for stage in STAGES:
        config.weights_files(options.name, stage)
    config.check_weights(options.name)
    config.seeds_root(options.name)
    root = config.existing_root(options.name)
    print(f"run '{options.name}' is right, its data in {root}")
    if root.is_dir():
        _check_data(config, options.name)


def _check_data(config: ProjectConfig, name: str) -> None:
    """Read the data set as the index would, and say what it holds."""
    from wsss.data.build import build_index, build_masks
    from wsss.data.description import describe
    from wsss.data.index import require_truth
    from wsss.data.indexing import check_sets

    settings, root = config.run(name).stages["index"], config.root_folder(name)
    index = build_index(settings, root)
    drawn = config.data_format(name).draws_masks
    masks = None if drawn else build_masks(settings, root, index)
    print(describe(settings, root, index, masks))
    stages = config.run(name).stages
    check_sets(index, [stages["evaluation"].seed_split, stages["prediction"].split])
    if masks is not None and config.run(name).stop_after == "segmentation":
        kind = stages["segmentation"].labels
        require_truth(kind, index.training_set(), masks, where=root)


def _show(options: argparse.Namespace) -> None:
    import yaml

    from wsss.project.config import load_config
    from wsss.project.file import STAGES

    config = load_config()
    run = config.run(options.name)
    values = {
        "run": run.name,
        "extends": list(run.parents),
        "root": f"{run.root} ({config.root_folder(run.name)})",
        "stop_after": run.stop_after,
        **{stage: run.settings(stage) for stage in STAGES},
    }
    print(yaml.safe_dump(values, sort_keys=False, default_flow_style=None), end="")


def _schema(options: argparse.Namespace) -> None:
    from wsss.files import write_text
    from wsss.project.schema import config_schema

    text = json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)


def _defaults(options: argparse.Namespace) -> None:
    from wsss.files import write_text
    from wsss.project.schema import defaults_yaml, replace_defaults

    if options.into is None:
        print(defaults_yaml(), end="")
    else:
        write_text(options.into, replace_defaults(options.into.read_text(encoding="utf-8")))


def _write(options: argparse.Namespace) -> None:
    from wsss.data.json_files import parse_json
    from wsss.files import write_json
    from wsss.project.file import stage_settings
    from wsss.runtime.settings import to_dict

    values = parse_json(options.settings, f"--settings {options.settings[:200]}")
    settings = stage_settings(options.stage, values, where=options.stage)
    write_json(options.output, to_dict(settings))
