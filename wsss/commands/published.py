"""The subcommand that turns published checkpoints into model files."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsss.commands import options as shared


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of `import-weights`."""
    kinds = parser.add_subparsers(metavar="KIND", required=True, dest="kind")
    acr = kinds.add_parser("acr", help="the authors' ACR checkpoint", allow_abbrev=False)
    acr.add_argument("checkpoint", type=Path, help="the Lightning file")
    shared.add_paths(acr, "config", "index", "output")
    acr.add_argument(
        "--reconstructor-output",
        type=Path,
        metavar="PATH",
        help="also write the reconstructor, which figures show",
    )
    acr.set_defaults(run=_acr)
    irn = kinds.add_parser("irn", help="IRN's res50_irn.pth", allow_abbrev=False)
    irn.add_argument("checkpoint", type=Path, help="the published file")
    shared.add_paths(irn, "config", "output")
    irn.set_defaults(run=_irn)


def _acr(options: argparse.Namespace) -> None:
    from wsss.cam.published import import_acr

    import_acr(
        options.checkpoint,
        config=shared.read_config("cam", options.config),
        index=options.index,
        output=options.output,
        reconstructor_output=options.reconstructor_output,
    )


def _irn(options: argparse.Namespace) -> None:
    from wsss.irn.published import import_irn

    import_irn(
        options.checkpoint, config=shared.read_config("irn", options.config), output=options.output
    )
