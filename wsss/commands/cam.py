"""Subcommands of the CAM stages."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from wsss.commands import options as shared
from wsss.commands import sharding
from wsss.maps.shards import Shard


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of one subcommand."""
    if name == "train-cam":
        shared.add_paths(parser, "config", "index", "root", "output", "work_dir")
        shared.add_weights_file(parser)
        parser.add_argument(
            "--transformer-weights-file",
            type=Path,
            metavar="PATH",
            help="initial weights of the transformer, when the settings name a weight file",
        )
        parser.add_argument(
            "--reconstructor-output",
            type=Path,
            metavar="PATH",
            help="also write the reconstructor of acr and acr-vit here (safetensors)",
        )
        parser.set_defaults(run=_train)
    else:
        shared.add_paths(parser, "config", "model", "index", "root", "output")
        parser.add_argument(
            "--attention-model",
            type=Path,
            metavar="PATH",
            help="trained transformer that refines the CAMs, when the settings ask for another's",
        )
        sharding.add_shards(parser)
        parser.set_defaults(run=_export)
    shared.add_compute(parser, trains=name == "train-cam")


def _train(options: argparse.Namespace) -> None:
    from wsss.cam.training import train_cam

    train_cam(
        config=shared.settings(options, "cam"),
        index=options.index,
        root=options.root,
        output=options.output,
        work_dir=options.work_dir,
        compute=shared.compute(options),
        weights_file=options.weights_file,
        transformer_weights_file=options.transformer_weights_file,
        reconstructor_output=options.reconstructor_output,
    )


def _export(options: argparse.Namespace) -> None:
    config = shared.settings(options, "export")

    def work(paths: Mapping[str, Path], shard: Shard) -> None:
        from wsss.cam.export import export_cams

        export_cams(
            config=config,
            model=options.model,
            index=options.index,
            root=options.root,
            output=paths["cams.h5"],
            compute=shared.compute(options),
            attention_model=options.attention_model,
            shard=shard,
        )

    sharding.run(
        options,
        work,
        outputs={"cams.h5": options.output},
        module="wsss.cam.export",
        settings=config,
        inputs=("model", "attention_model"),
    )
