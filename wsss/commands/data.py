"""Subcommands on data sets: demo data, index, masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsss.commands import options as shared


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of one subcommand."""
    if name == "demo-data":
        shared.add_paths(parser, "output")
        shared.add_manifest(parser)
        parser.set_defaults(run=_demo_data)
    elif name == "index":
        shared.add_paths(parser, "config", "root", "output")
        parser.set_defaults(run=_index)
    elif name == "masks":
        shared.add_paths(parser, "config", "root", "index", "output")
        parser.set_defaults(run=_masks)
    else:
        shared.add_paths(parser, "root")
        parser.add_argument(
            "--record", type=Path, metavar="PATH", help="also write the rule and the labels here"
        )
        parser.add_argument("--workers", type=int, default=2, help="processes")
        parser.set_defaults(run=_coco_masks)


def _demo_data(options: argparse.Namespace) -> None:
    from wsss.data.formats.demo_pictures import generate_demo

    generate_demo(options.output)
    shared.manifest(options, options.output)


def _index(options: argparse.Namespace) -> None:
    from wsss.data.build import build_index
    from wsss.data.index import write_index

    index = build_index(shared.settings(options, "index"), options.root)
    write_index(index, options.output)
    print(f"{len(index.records)} images, {len(index.classes)} classes")


def _masks(options: argparse.Namespace) -> None:
    from wsss.data.build import build_masks
    from wsss.data.index import read_index, write_masks

    masks = build_masks(shared.settings(options, "index"), options.root, read_index(options.index))
    write_masks(masks, options.output)
    print(f"{len(masks)} masks")


def _coco_masks(options: argparse.Namespace) -> None:
    from wsss.data.formats.coco_masks import draw_once

    drawn = draw_once(options.root, options.record, workers=options.workers)
    folder = options.root / "masks"
    print(f"{folder}: " + ("drawn" if drawn else "already drawn from these annotations"))
