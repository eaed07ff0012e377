"""Subcommands that score and show results."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsss.commands import options as shared


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of one subcommand."""
    if name == "score-maps":
        _configure_maps(parser)
    elif name == "score-labels":
        shared.add_paths(parser, "labels", "index", "masks", "root", "output")
        _add_names(parser)
        parser.set_defaults(run=_score_labels)
    elif name == "collect":
        parser.add_argument("scores", nargs="+", type=Path, help="score tables of a run's stages")
        shared.add_paths(parser, "output")
        parser.set_defaults(run=_collect)
    elif name == "ablation-table":
        parser.add_argument(
            "scores", nargs="+", metavar="ROW=PATH", help="evaluation/cam.csv of each row's run"
        )
        shared.add_paths(parser, "output")
        parser.set_defaults(run=_ablation_table)
    else:
        _configure_panels(parser)


def _configure_maps(parser: argparse.ArgumentParser) -> None:
    shared.add_paths(parser, "config", "maps", "index", "masks", "root", "output")
    parser.add_argument("--curve", type=Path, required=True, help="table of mIoU by threshold")
    parser.add_argument("--plot", type=Path, required=True, help="picture of that curve")
    parser.add_argument(
        "--background", type=float, required=True, help="the configured background score, 0..1"
    )
    _add_names(parser)
    shared.add_compute(parser)
    parser.set_defaults(run=_score_maps)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, dest="run_name", help="name in the table")
    parser.add_argument("--stage", required=True, help="name in the table")
    parser.add_argument("--split", required=True, help="image set to score")
    parser.add_argument(
        "--labels-kind",
        choices=("pseudo", "ground_truth"),
        default="pseudo",
        help="what the segmentation model was trained on; for the table",
    )


def _configure_panels(parser: argparse.ArgumentParser) -> None:
    shared.add_paths(parser, "config", "index", "masks", "root", "output", optional=("cams",))
    for option in ("--pseudo-labels", "--predictions"):
        parser.add_argument(option, type=Path, metavar="PATH", help="folder of label PNGs")
    parser.add_argument("--split", required=True, help="image set to choose from")
    shared.add_manifest(parser)
    parser.set_defaults(run=_panels)


def _score_maps(options: argparse.Namespace) -> None:
    from wsss.evaluation.scoring import score_maps

    score_maps(
        config=shared.settings(options, "evaluation"),
        maps=options.maps,
        index=options.index,
        masks=options.masks,
        root=options.root,
        output=options.output,
        curve=options.curve,
        plot=options.plot,
        run=options.run_name,
        stage=options.stage,
        split=options.split,
        background=options.background,
        compute=shared.compute(options),
    )


def _score_labels(options: argparse.Namespace) -> None:
    from wsss.evaluation.scoring import score_labels

    score_labels(
        labels=options.labels,
        index=options.index,
        masks=options.masks,
        root=options.root,
        output=options.output,
        run=options.run_name,
        stage=options.stage,
        split=options.split,
        labels_kind=options.labels_kind,
    )


def _collect(options: argparse.Namespace) -> None:
    from wsss.evaluation.tables import collect, format_table

    collect(options.scores, options.output)
    print(format_table(options.output))


def _ablation_table(options: argparse.Namespace) -> None:
    from wsss.evaluation.ablation import collect_ablation, format_ablation

    scores = shared.named_paths(options.scores)
    print(format_ablation(collect_ablation(scores, options.output)))


def _panels(options: argparse.Namespace) -> None:
    from wsss.figures.panels import write_panels

    config = shared.settings(options, "evaluation")
    write_panels(
        index=options.index,
        masks=options.masks,
        root=options.root,
        cams=options.cams,
        pseudo_labels=options.pseudo_labels,
        predictions=options.predictions,
        output=options.output,
        names=config.panel_names,
        count=config.panel_count,
        split=options.split,
    )
    shared.manifest(options, options.output)
