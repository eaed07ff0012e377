"""Subcommands of the IRN stages."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from wsss.commands import options as shared
from wsss.commands import sharding
from wsss.maps.shards import Shard


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of one subcommand."""
    if name == "irn-labels":
        shared.add_paths(parser, "config", "cams", "index", "root", "output")
        shared.add_manifest(parser)
        sharding.add_shards(parser)
        parser.set_defaults(run=_labels)
    elif name == "train-irn":
        shared.add_paths(parser, "config", "labels", "index", "root", "output", "work_dir")
        shared.add_weights_file(parser)
        parser.set_defaults(run=_train)
    else:
        shared.add_paths(parser, "config", "cams", "model", "index", "root", "output")
        parser.add_argument(
            "--maps",
            type=Path,
            metavar="PATH",
            help="map store to write: the walked CAMs (HDF5); not with --shard",
        )
        shared.add_manifest(parser)
        sharding.add_shards(parser)
        parser.set_defaults(run=_pseudo_labels)
    shared.add_compute(parser, trains=name == "train-irn")


def _labels(options: argparse.Namespace) -> None:
    config = shared.settings(options, "labels")

    def work(paths: Mapping[str, Path], shard: Shard) -> None:
        from wsss.irn.labels import mine_labels

        mine_labels(
            config=config,
            cams=options.cams,
            index=options.index,
            root=options.root,
            output=paths["labels"],
            compute=shared.compute(options),
            shard=shard,
        )

    sharding.run(
        options,
        work,
        outputs={"labels": options.output},
        module="wsss.irn.labels",
        settings=config,
        inputs=("cams",),
    )
    shared.manifest(options, options.output)


def _train(options: argparse.Namespace) -> None:
    from wsss.irn.training import train_irn

    train_irn(
        config=shared.settings(options, "irn"),
        labels=options.labels,
        index=options.index,
        root=options.root,
        output=options.output,
        work_dir=options.work_dir,
        compute=shared.compute(options),
        weights_file=options.weights_file,
    )


def _pseudo_labels(options: argparse.Namespace) -> None:
    config = shared.settings(options, "pseudo_labels")

    def work(paths: Mapping[str, Path], shard: Shard) -> None:
        from wsss.irn.pseudo_labels import make_pseudo_labels

        make_pseudo_labels(
            config=config,
            cams=options.cams,
            model=options.model,
            index=options.index,
            root=options.root,
            output=paths["labels"],
            maps=paths["walked.h5"],
            compute=shared.compute(options),
            shard=shard,
        )

    sharding.run(
        options,
        work,
        outputs={"labels": options.output, "walked.h5": options.maps},
        module="wsss.irn.pseudo_labels",
        settings=config,
        inputs=("cams", "model"),
    )
    shared.manifest(options, options.output)
