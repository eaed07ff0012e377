"""Subcommands of the segmentation stages."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.commands import options as shared
from wsss.commands import sharding
from wsss.maps.shards import Shard


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of one subcommand."""
    if name == "train-segmentation":
        shared.add_paths(
            parser, "config", "index", "root", "output", "work_dir", optional=("labels", "masks")
        )
        shared.add_weights_file(parser)
        parser.set_defaults(run=_train)
    else:
        shared.add_paths(parser, "config", "model", "index", "root", "output")
        parser.add_argument(
            "--output-crf", type=Path, metavar="PATH", help="folder for the CRF's label PNGs"
        )
        parser.add_argument(
            "--sample",
            type=Path,
            metavar="PATH",
            help="predict only the images that the panels show: evaluation settings, JSON",
        )
        shared.add_manifest(parser)
        parser.add_argument(
            "--manifest-crf", type=Path, metavar="PATH", help="as --manifest, of --output-crf"
        )
        sharding.add_shards(parser)
        parser.set_defaults(run=_predict_split)
    shared.add_compute(parser, trains=name == "train-segmentation")


def _train(options: argparse.Namespace) -> None:
    from wsss.segmentation.training import train_segmentation

    train_segmentation(
        config=shared.settings(options, "segmentation"),
        labels=options.labels,
        masks=options.masks,
        index=options.index,
        root=options.root,
        output=options.output,
        work_dir=options.work_dir,
        compute=shared.compute(options),
        weights_file=options.weights_file,
    )


def _predict_split(options: argparse.Namespace) -> None:
    from wsss.evaluation.config import EvaluationConfig
    from wsss.provenance import write_manifest
    from wsss.runtime.settings import read_settings

    sample: dict[str, Any] = {}
    if options.sample is not None:
        shown = read_settings(EvaluationConfig, options.sample)
        sample = {
            "split": shown.seed_split,
            "names": shown.panel_names,
            "count": shown.panel_count,
        }
    config = shared.settings(options, "prediction")
    outputs = {"labels": options.output}
    if options.output_crf is not None or (options.shard is not None and config.crf):
        outputs["labels_crf"] = options.output_crf

    def work(paths: Mapping[str, Path], shard: Shard) -> None:
        from wsss.segmentation.prediction import predict_split

        predict_split(
            config=config,
            model=options.model,
            index=options.index,
            root=options.root,
            output=paths["labels"],
            output_crf=paths.get("labels_crf"),
            compute=shared.compute(options),
            shard=shard,
            **sample,
        )

    sharding.run(
        options,
        work,
        outputs=outputs,
        module="wsss.segmentation.prediction",
        settings=config,
        inputs=("model", "sample"),
    )
    shared.manifest(options, options.output)
    if options.manifest_crf is not None:
        write_manifest(options.output_crf, options.manifest_crf)
