"""A hub's cache on this machine, and no hub behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached_repository(monkeypatch: pytest.MonkeyPatch, cache: Path, name: str) -> Path:
    """Return the folder of `name` in the cache `cache`, to be filled; nothing is fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    # Nobody answers at this port; whoever asks there fails at once.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    store = cache / f"models--{name.replace('/', '--')}"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(COMMIT)
    folder = store / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder
