"""`wsss figures`: the paper's figures, for a few images of one run or of two."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsss.commands import options as shared


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the figures of `wsss figures`."""
    figures = parser.add_subparsers(metavar="FIGURE", required=True, dest="figure")

    columns = figures.add_parser(
        "columns", help="image, CAMs or label maps, ground truth, side by side"
    )
    shared.add_paths(columns, "config", "index", "masks", "root", "output")
    for option, what in (("cams", "a CAM store"), ("labels", "a folder of label PNGs")):
        columns.add_argument(
            f"--{option}", nargs="+", default=[], metavar="TITLE=PATH", help=f"{what}, a column"
        )
    columns.set_defaults(run=_columns)

    reconstructions = figures.add_parser(
        "reconstructions", help="image, CAMs, remnants and what is reconstructed from them"
    )
    shared.add_paths(reconstructions, "config", "model", "index", "root", "output")
    reconstructions.add_argument(
        "--reconstructor", type=Path, required=True, metavar="PATH", help="of the same training"
    )
    shared.add_compute(reconstructions)
    reconstructions.set_defaults(run=_reconstructions)

    for figure in (columns, reconstructions):
        figure.add_argument("--split", required=True, help="image set to choose from")
        shared.add_manifest(figure)


def _columns(options: argparse.Namespace) -> None:
    from wsss.figures.panels import write_figure

    config = shared.settings(options, "evaluation")
    write_figure(
        index=options.index,
        masks=options.masks,
        root=options.root,
        cams=shared.named_paths(options.cams),
        labels=shared.named_paths(options.labels),
        output=options.output,
        split=options.split,
        names=config.panel_names,
        count=config.panel_count,
    )
    shared.manifest(options, options.output)


def _reconstructions(options: argparse.Namespace) -> None:
    from wsss.figures.reconstruction import write_reconstructions

    config = shared.settings(options, "evaluation")
    write_reconstructions(
        model=options.model,
        reconstructor=options.reconstructor,
        index=options.index,
        root=options.root,
        output=options.output,
        split=options.split,
        names=config.panel_names,
        count=config.panel_count,
        compute=shared.compute(options),
    )
    shared.manifest(options, options.output)
