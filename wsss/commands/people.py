"""Subcommands that people use on finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsss.api.files import find_cams, find_model, prediction_settings
from wsss.commands import options as shared
from wsss.errors import UserError
from wsss.project.run_folders import find_run, lacking, run_name

_TABLE = "miou.csv"


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of one subcommand."""
    if name == "predict":
        _configure_predict(parser)
    elif name == "table":
        parser.add_argument(
            "runs", nargs="+", type=Path, metavar="RUN", help="results/<run>, or its miou.csv"
        )
        parser.set_defaults(run=_table)
    elif name == "compare":
        for which in ("first", "second"):
            parser.add_argument(which, type=Path, metavar="RUN", help="a run, or results/<run>")
        parser.add_argument("--output", type=Path, metavar="PATH", help="also write it here (.md)")
        parser.set_defaults(run=_compare)
    elif name == "cams":
        actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
        info = actions.add_parser("info", help="say what a CAM file holds")
        info.add_argument("files", nargs="+", type=Path, metavar="FILE", help="or results/<run>")
        info.set_defaults(run=_cams_info)
    else:
        parser.add_argument(
            "predictions", type=Path, help="folder of label PNGs: results/<run>/predictions_crf"
        )
        shared.add_paths(parser, "index")
        parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="a .tar.gz")
        parser.add_argument("--split", default="test", help="image set (default: %(default)s)")
        parser.add_argument(
            "--competition",
            choices=("comp5", "comp6"),
            default="comp6",
            help="comp6 allows other training data than VOC's (default: %(default)s)",
        )
        parser.set_defaults(run=_submission)


def _configure_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, help="results/<run>, or a segmentation model (safetensors)"
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER", help="pictures of any size"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("predictions"),
        metavar="FOLDER",
        help="masks and overlays go here (default: %(default)s)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        help="prediction settings (default: the run's, else the built-in ones)",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also write NAME.npz: probabilities of all classes, and the highest, as float16; "
        "without it, an earlier start's NAME.npz goes with the mask that it belonged to",
    )
    shared.add_compute(parser)
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> None:
    model = find_model(options.model)
    from wsss.segmentation.pictures import CLASSES, predict_images

    if options.config is None:
        config = prediction_settings(model)
    else:
        config = shared.read_config("prediction", options.config)
    count = predict_images(
        model=model,
        inputs=options.inputs,
        output=options.output,
        config=config,
        compute=shared.compute(options),
        probabilities=options.probabilities,
    )
    written = "NAME.png, NAME_overlay.png" + (", NAME.npz" if options.probabilities else "")
    print(f"{count} pictures: {written} in {options.output}/; {CLASSES} there names the labels")


def _table(options: argparse.Namespace) -> None:
    from wsss.evaluation.tables import format_table
    from wsss.evaluation.tags import format_tags

    for given in options.runs:
        run = given.parent if given.name == _TABLE else find_run(given)
        path = run if run.is_file() or run.suffix == ".csv" else run / _TABLE
        if path.name != _TABLE and path.parent.name != "evaluation":
            raise UserError(
                "this is no table of a run's scores",
                where=path,
                expected=f"results/<run>, its {_TABLE}, or a table in its evaluation/",
            )
        if not path.is_file():
            raise lacking(run, "there is no table yet", expected=_TABLE, target=_TABLE)
        print(format_table(path))
        if run.is_dir() and (run / "tags.csv").is_file():
            print("\n" + format_tags(run / "tags.csv"))


def _compare(options: argparse.Namespace) -> None:
    from wsss.files import write_text
    from wsss.files.marks import check_file_replaceable
    from wsss.report.compare import compare, is_comparison

    if options.output is not None:
        check_file_replaceable(options.output, is_comparison, "a comparison of two runs")
    folders = [find_run(given) for given in (options.first, options.second)]
    for folder in folders:
        if not any((folder / "config").glob("*.json")):
            raise lacking(folder, "no run is in this folder", expected="config/ in it")
    first, second = folders
    text = compare(first, second, [run_name(folder) for folder in folders])
    print(text, end="")
    if options.output is not None:
        write_text(options.output, text)


def _cams_info(options: argparse.Namespace) -> None:
    from wsss.maps.map_store import MapStore

    for path in map(find_cams, options.files):
        if not path.is_file():
            raise UserError("this file does not exist", where=path)
        with MapStore(path) as store:
            print(f"{path}: {len(store.names)} images, {path.stat().st_size / 1e6:.1f} MB")
            print(f"  {len(store.classes)} classes: {', '.join(store.classes)}")
            for key, value in sorted(store.attributes.items()):
                print(f"  {key}: {value}")
            for name in store.names[:5]:
                stored = store.read(name)
                tags = ", ".join(store.classes[i] for i in stored.class_indices)
                print(f"  {name}: {tags}; maps {stored.maps.shape} for {stored.size} pixels")
            if len(store.names) > 5:
                print(f"  ... and {len(store.names) - 5} more")


def _submission(options: argparse.Namespace) -> None:
    from wsss.segmentation.submission import pack_submission

    pack_submission(
        predictions=options.predictions,
        index=options.index,
        output=options.output,
        split=options.split,
        competition=options.competition,
    )
