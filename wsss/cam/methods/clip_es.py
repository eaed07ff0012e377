"""CLIP-ES as a source of CAMs for the export stage."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cam.clip_es import min_max
from wsss.cam.clip_es_maps import ClipEs, ClipEsOptions, network_input, network_size
from wsss.cam.clip_words import background_words, class_words
from wsss.cam.config import ExportConfig
from wsss.cam.methods.clip_es_config import ClipEsSettings
from wsss.cam.source import SourceFiles
from wsss.data.images import read_sized_image
from wsss.data.index import ImageRecord, Index
from wsss.errors import UserError
from wsss.maps.map_store import map_size
from wsss.models.clip_files import ClipOrigin, load_clip
from wsss.models.clip_texts import kept_texts


@dataclass(frozen=True)
class ClipEsSource:
    """Class maps of pictures by CLIP-ES, summed over the export's views.

    Attributes:
        method: CLIP and the classes' texts.
        origin: Which CLIP it is.
        export: Scales and mirror.
    """

    method: ClipEs
    origin: ClipOrigin
    export: ExportConfig

    @property
    def attributes(self) -> Mapping[str, str | int | float]:
        """Provenance for the map store."""
        return {
            "model": self.origin.name,
            "model_revision": self.origin.revision,
            "model_sha256": self.origin.sha256,
            "normalisation": "max-min per class",
        }

    @property
    def description(self) -> str:
        """What maps come from, for the log."""
        revision = f" ({self.origin.revision[:12]})" if self.origin.revision else ""
        return f"CLIP {self.origin.name}{revision}, SHA-256 {self.origin.sha256[:12]}..."

    def prepare(self, record: ImageRecord, root: Path) -> list[Tensor]:
        """Return a picture at each scale, as the network takes it."""
        image = read_sized_image(root, record)
        options, patch = self.method.options, self.method.clip.patch_px
        sizes = [
            (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
            for scale in self.export.scales
        ]
        return [
            network_input(image, network_size(size, patch, options.long_side_limit_px))
            for size in sizes
        ]

    def maps(
        self, views: Sequence[Tensor], class_indices: Sequence[int], size: tuple[int, int]
    ) -> Tensor:
        """Return the maps of a picture's tagged classes.

        Args:
            views: Of `prepare`.
            class_indices: K positions in the class list.
            size: (H, W) of the picture.

        Returns:
            (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1.
        """
        found = []
        for view in views:
            on_device = view.to(self.method.clip.device)
            found.append(self._resized(self.method.maps(on_device, class_indices), size))
            if self.export.mirror:
                mirrored = self.method.maps(on_device.flip(-1), class_indices)
                found.append(self._resized(mirrored.flip(-1), size))
        # The published view, one, is left as it is; a sum is brought to 0..1 again.
        return found[0] if len(found) == 1 else min_max(torch.stack(found).sum(dim=0))

    def _resized(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        target = map_size(*size)
        return F.interpolate(maps[None], size=target, mode="bilinear", align_corners=False)[0]


def clip_es_source(
    settings: ClipEsSettings,
    export: ExportConfig,
    index: Index,
    *,
    device: torch.device,
    files: SourceFiles,
) -> ClipEsSource:
    """Load CLIP, and make the texts of the classes and of background.

    Args:
        settings: Of the method.
        export: Scales and mirror.
        index: What is exported; its classes are looked for.
        device: Where to compute.
        files: The folder or file that `settings.clip.weights` names, where it names one.

    Raises:
        UserError: The weights cannot be had, words are given for a class that there is not, or
            a refinement is asked for that is made for other methods.
    """
    if export.refine != "none":
        raise UserError(
            f"export.refine is '{export.refine}', and clip-es spreads its maps by itself",
            where="export.refine",
            expected="none",
            fix="set export.refine to none; cam.spread says whether clip-es spreads them",
        )
    published = settings.preset == "published"
    words = class_words(index.classes, settings.prompts, published=published)
    background, dropped = background_words(settings.background_words, index.classes)
    if dropped:
        print(
            f"export CAMs: {', '.join(dropped)}: a class, so no word for background",
            file=sys.stderr,
        )
    source = files.weights or settings.clip.name
    clip, origin = load_clip(source, device=device, revision=settings.clip.revision)
    if settings.attention_layers > clip.layers:
        raise UserError(
            f"cam.attention_layers is {settings.attention_layers}",
            where="cam.attention_layers",
            expected=f"at most {clip.layers}, the blocks of {origin.name}",
        )
    sentences = [settings.template.replace("{}", word) for word in (*words, *background)]
    texts = kept_texts(clip, origin.sha256, sentences)
    method = ClipEs(
        clip,
        class_texts=texts[: len(words)],
        background_texts=texts[len(words) :],
        options=ClipEsOptions(
            attention_layers=settings.attention_layers,
            box_threshold=settings.box_threshold,
            refine=settings.spread,
            published=published,
            long_side_limit_px=settings.long_side_limit_px,
        ),
    )
    return ClipEsSource(method, origin, export)
