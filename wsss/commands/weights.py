"""Subcommand that fetches weights by name ahead of a run."""

from __future__ import annotations

import argparse

from wsss.errors import UserError
from wsss.project.run_folders import name_given


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run: voc-r50, or results/voc-r50")
    parser.set_defaults(run=_fetch)


def _fetch(options: argparse.Namespace) -> None:
    from wsss.models.hub import HubWeights, timm_weights
    from wsss.project.config import load_config
    from wsss.project.weights import named_weights

    config = load_config()
    fetched: dict[tuple[str, str, str | None], HubWeights] = {}
    failed: list[UserError] = []
    for run in map(name_given, options.runs):
        networks = named_weights(config.run(run))
        if not networks:
            print(f"{run}: no weights of this run come by name")
        for place, settings in networks.items():
            key = (settings.weights, settings.name, getattr(settings, "revision", None))  # type: ignore[attr-defined]
            try:
                if key not in fetched:
                    kind, name, revision = key
                    if kind == "timm":
                        fetched[key] = timm_weights(name)
                    else:
                        from wsss.models.clip_files import clip_weights

                        fetched[key] = clip_weights(name, revision=revision)
            except UserError as error:
                failed.append(error)
                continue
            found = fetched[key]
            print(f"{run}, {place}: {found.name}")
            print(f"  revision {found.revision}, SHA-256 {found.sha256}")
            print(f"  {found.path}")
    if failed:
        # All that is lacking is said at once, to be fetched in one go.
        raise UserError("\n\n".join(dict.fromkeys(map(str, failed))))
