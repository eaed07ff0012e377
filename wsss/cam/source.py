"""Where exported CAMs come from: a classifier, and a transformer's attention to refine with.

The refinement is MCTformer's (CVPR 2022): patch-to-patch attention, summed over the layers, times
the CAM. ACR (CVPR 2023, supplementary, section B) applies it to the CAM obtained by its method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cam.config import ExportConfig
from wsss.cam.inference import view_batch, view_size, views
from wsss.data.index import ImageRecord, Index
from wsss.models.classifier import Classifier
from wsss.models.vit import refine_with_patch_attention

# Matrices of all tokens by all tokens that one layer's explicit attention keeps at a time: the
# mean over heads, one head's scores and softmax, the sum over layers.
_ATTENTION_MATRICES = 4


class MapSource(Protocol):
    """Whatever gives the class maps of a picture."""

    @property
    def attributes(self) -> Mapping[str, str | int | float]:
        """Where the maps come from, for the map store."""
        ...

    @property
    def description(self) -> str:
        """The same in words, for the log."""
        ...

    def prepare(self, record: ImageRecord, root: Path) -> Any:
        """Read of a picture what `maps` takes; may run in another thread.

        Args:
            record: The picture.
            root: Folder that its path is relative to.
        """
        ...

    def maps(self, prepared: Any, class_indices: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Return the maps of some classes.

        It is called under `torch.inference_mode`; what needs gradients leaves it by itself.

        Args:
            prepared: Of `prepare`.
            class_indices: K positions in the class list.
            size: (H, W) of the picture.

        Returns:
            (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1.
        """
        ...


@dataclass(frozen=True)
class SourceFiles:
    """What the export is given for a method that trains nothing, beside the method's settings.

    Attributes:
        weights: The weight file or folder that the settings name by a key.
        cams: The map store of the run that the settings' `cams_run` names.
        seeds_root: The folder that the settings' `seeds_root` names.
    """

    weights: Path | None = None
    cams: Path | None = None
    seeds_root: Path | None = None


class SourceBuilder(Protocol):
    """What the record of a method that trains nothing names as its source."""

    def __call__(
        self,
        settings: Any,
        export: ExportConfig,
        index: Index,
        *,
        device: torch.device,
        files: SourceFiles,
    ) -> MapSource:
        """Load what the maps come from, with the method's own settings; `index` is what of it."""
        ...


class View(NamedTuple):
    """One size of an image, (3, h, w) uint8; a second time as the attention's network takes it."""

    image: Tensor
    attention_image: Tensor | None


@dataclass(frozen=True)
class CamSource:
    """Reads the CAMs of views.

    Attributes:
        classifier: The network whose CAMs are read, in eval mode, on `device`.
        attention_from: The network whose patch attention refines them, which may be `classifier`
            itself; None: the CAMs are left as they are.
        mirror: Whether to read the mirror image, too.
        device: Where the networks are.
    """

    classifier: Classifier
    attention_from: Classifier | None
    mirror: bool
    device: torch.device

    def views(self, image: np.ndarray, scales: Sequence[float]) -> list[View]:
        """Return `image` (H, W, 3) uint8 at each scale, in sides that the networks take."""
        images = views(image, scales, self.classifier.size_multiple)
        if self._lender is None:
            return [View(image, None) for image in images]
        lent = views(image, scales, self._lender.size_multiple)
        return [View(*pair) for pair in zip(images, lent, strict=True)]

    def cam(self, view: View, class_indices: Sequence[int]) -> Tensor:
        """Return the CAMs of some classes.

        Args:
            view: One of `views`.
            class_indices: Positions in the class list.

        Returns:
            (1 or 2, K, h', w'), the second of the mirror image; refined CAMs are not negative.
        """
        wanted = torch.as_tensor(list(class_indices), dtype=torch.int64, device=self.device)
        batch = self._batch(view.image, self.classifier)
        # Only the tagged classes go on: with 80 classes that is most of the work saved.
        if self.attention_from is None:
            # The mirror image along with its view keeps a GPU busy; on a CPU the two would push
            # each other out of the caches (Lite0: 1.3 times slower), and take twice the memory.
            passes = 1 if self.device.type == "cuda" else len(batch)
            maps = [self.classifier.inference_cam(part).cam for part in batch.chunk(passes)]
            return torch.cat([part.index_select(1, wanted) for part in maps])
        # One by one: attention of a large view and its mirror image need not lie side by side.
        if self._lender is None or view.attention_image is None:
            return torch.cat(
                [self._refined_by_itself(one, wanted) for one in batch.chunk(len(batch))]
            )
        lent = self._batch(view.attention_image, self._lender)
        refined = [
            self._refined(
                self.classifier.inference_cam(one).cam.index_select(1, wanted),
                self._lender.inference_cam(other, attention=True).attention,
                _grid(other, self._lender),
            )
            for one, other in zip(batch.chunk(len(batch)), lent.chunk(len(lent)), strict=True)
        ]
        return torch.cat(refined)

    def features(self, view: View) -> Tensor:
        """Return what the class weights are multiplied with, (1 or 2, D, h', w') float32."""
        batch = self._batch(view.image, self.classifier)
        passes = 1 if self.device.type == "cuda" else len(batch)
        return torch.cat([self.classifier.features(part).float() for part in batch.chunk(passes)])

    def attention_bytes(self, size: tuple[int, int], scales: Sequence[float]) -> int:
        """Return about how much memory the attention of an image's largest view takes."""
        if self.attention_from is None:
            return 0
        patch = self.attention_from.size_multiple
        height, width = view_size(size, max(scales), patch)
        patches = (height // patch) * (width // patch)
        return _ATTENTION_MATRICES * 4 * patches**2

    def weight_bytes(self) -> int:
        """Return how much memory the networks' weights take."""
        tensors = {
            tensor.data_ptr(): tensor.nbytes
            for network in (self.classifier, self.attention_from)
            if network is not None
            for tensor in (*network.parameters(), *network.buffers())
        }
        return sum(tensors.values())

    @property
    def _lender(self) -> Classifier | None:
        """The network that lends its attention to another one's CAMs."""
        return None if self.attention_from is self.classifier else self.attention_from

    def _batch(self, image: Tensor, network: Classifier) -> Tensor:
        return view_batch(image, network.normalisation, mirror=self.mirror, device=self.device)

    def _refined_by_itself(self, one: Tensor, wanted: Tensor) -> Tensor:
        cam, attention = self.classifier.inference_cam(one, attention=True)
        return self._refined(cam.index_select(1, wanted), attention, _grid(one, self.classifier))

    def _refined(self, cam: Tensor, attention: Tensor | None, grid: tuple[int, int]) -> Tensor:
        assert attention is not None
        # Rounded to bfloat16, sums over a thousand patches would lose what they add up.
        with torch.autocast(self.device.type, enabled=False):
            resized = F.interpolate(cam.float(), size=grid, mode="bilinear", align_corners=False)
            return refine_with_patch_attention(F.relu(resized), attention.float())


def _grid(batch: Tensor, network: Classifier) -> tuple[int, int]:
    multiple = network.size_multiple
    return batch.shape[-2] // multiple, batch.shape[-1] // multiple
