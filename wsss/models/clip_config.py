"""Which CLIP; apart from the network, so that reading it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import model_validator

from wsss.models.config import NO_FILE
from wsss.runtime.settings import Settings, impossible


class ClipConfig(Settings):
    """A CLIP with a vision transformer."""

    weights_check: ClassVar[str] = "wsss.models.clip_files:check_clip"

    name: str = "openai/clip-vit-base-patch16"
    """Its name on the Hugging Face hub, where `weights` is `hub`."""

    weights: str = "hub"
    """`hub` (by name, cached), or the key of a folder of transformers or of OpenAI's file."""

    revision: str | None = None
    """Commit, branch or tag on the hub; null: what the cache has, or the newest."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """A name on the hub matters only where the weights come from there."""
        weights = values.get("weights", "hub")
        reason = f"clip.weights is '{weights}'"
        return {} if weights == "hub" else dict.fromkeys(("name", "revision"), reason)

    @model_validator(mode="after")
    def _weights_are_a_clips(self) -> Self:
        if not self.weights or (self.weights in NO_FILE and self.weights != "hub"):
            raise impossible(
                f"clip.weights is {self.weights!r}",
                key="weights",
                expected="'hub' or a key of `weights:`; no CLIP comes as a pip package, and a "
                "random one says nothing",
            )
        return self
