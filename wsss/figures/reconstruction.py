"""What the reconstructor makes of an image in both updates (ACR, CVPR 2023, figure A6).

Image, target and non-target CAM, the grid of remnants, and four reconstructions: from both
segments with remnants, as the reconstructor's update (RU) feeds them, and from both without, as
the classifier's update (CU) does.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss.cam.losses import (
    normalise_cam,
    remnant_grid,
    resize,
    resize_grid,
    segments,
    select_class,
)
from wsss.cam.methods.acr_config import AdversarialSettings
from wsss.cam.model_file import CLASSIFIER, RECONSTRUCTOR, CamModel
from wsss.data import drawing, transforms
from wsss.data.images import read_image
from wsss.data.index import ImageRecord, read_index
from wsss.data.sampling import shown_records
from wsss.errors import UserError
from wsss.files import atomic_directory
from wsss.models.backbones import IMAGENET
from wsss.models.reconstructor import Reconstructor
from wsss.runtime.compute import Device, autocast, setup

TILE_WIDTH_PX = 200


@dataclass(frozen=True)
class Phases:
    """What both updates see of one image and one target class, P the decoded side.

    Attributes:
        target_map: A_t, (P, P) in 0..1; the non-target map is 1 - A_t.
        grid: g, (P, P), 0 or 1, as drawn in the last epoch; None without remnant feeding.
        reconstructions: (4, P, P, 3) uint8 RGB: RU from the target and from the non-target
            segment, CU from both.
    """

    target_map: np.ndarray
    grid: np.ndarray | None
    reconstructions: np.ndarray


def load_reconstructor(path: Path, trained: CamModel) -> Reconstructor:
    """Read the reconstructor that was trained against a classifier, in eval mode.

    Raises:
        UserError: It is missing, damaged, another kind of model, or of another training.
    """
    adversary = RECONSTRUCTOR.load(path)
    if adversary.identity != trained.identity:
        raise UserError(
            "this reconstructor was not trained against this classifier",
            where=path,
            expected="both files of one training",
        )
    return adversary.network


def _settings(trained: CamModel) -> AdversarialSettings:
    assert isinstance(trained.settings, AdversarialSettings)
    return trained.settings


def central_square(image: np.ndarray, side_px: int) -> Tensor:
    """Resize (H, W, 3) uint8 until its shorter side is `side_px`, and cut the middle out.

    Returns:
        (3, side_px, side_px) uint8: a training crop without its draws, and without padding.
    """
    height, width = image.shape[:2]
    factor = side_px / min(height, width)
    size = (max(side_px, round(height * factor)), max(side_px, round(width * factor)))
    resized = transforms.resize(transforms.image_to_tensor(image), size)
    top, left = (size[0] - side_px) // 2, (size[1] - side_px) // 2
    return resized[:, top : top + side_px, left : left + side_px]


def phases(
    trained: CamModel,
    reconstructor: Reconstructor,
    image: Tensor,
    target: int,
    generator: torch.Generator,
) -> Phases:
    """Compute both updates' segments and reconstructions as in training, networks in eval mode.

    Args:
        trained: The classifier.
        reconstructor: Its adversary, on the same device.
        image: (3, S, S) uint8.
        target: Position of the target class.
        generator: CPU generator of the grid.
    """
    config = _settings(trained)
    acr, side = config.acr, config.decoded_px
    device = next(reconstructor.parameters()).device
    x = transforms.normalise(image[None].to(device).float().div(255), trained.network.normalisation)
    grid = None
    if acr.srf:
        cells = (acr.grid_min + acr.grid_max) // 2
        drawn = remnant_grid(1, cells, _last_q(config), generator)
        grid = resize_grid(drawn, side).to(device)
    with torch.inference_mode(), autocast(device, config.precision):
        _, cam = trained.network(x)
        chosen = torch.tensor([target], device=device)
        target_map = resize(normalise_cam(select_class(cam, chosen)), side)
        masks = torch.cat([*segments(target_map, grid), target_map, 1 - target_map])
        _, feature = reconstructor.encode(x, classify=False)
        feature = resize(feature, side)
        decoded = reconstructor.decode(feature * masks.to(feature.dtype)).float()
    mean = torch.tensor(IMAGENET.mean, device=device)[:, None, None]
    std = torch.tensor(IMAGENET.std, device=device)[:, None, None]
    colours = (decoded * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Phases(
        target_map=target_map[0, 0].float().cpu().numpy(),
        grid=None if grid is None else grid[0, 0].cpu().numpy(),
        reconstructions=colours.permute(0, 2, 3, 1).cpu().numpy(),
    )


def _last_q(config: AdversarialSettings) -> float:
    return config.acr.q(config.epochs - 1)


def draw_phases(image: np.ndarray, title: str, result: Phases, q: float) -> drawing.Picture:
    """Return the row of one target class: its eight tiles, each with a title.

    Args:
        image: (S, S, 3) uint8, as the networks saw it.
        title: Of the target class.
        result: What `phases` computed.
        q: Probability of a remnant, for the grid's title.
    """
    small = drawing.resized(image, TILE_WIDTH_PX)
    maps = [
        _enlarged(drawing.heat_map(_resized_to(image, values), values))
        for values in (result.target_map, 1 - result.target_map)
    ]
    if result.grid is None:
        grid = drawing.message(small, "no remnants")
    else:
        cells = (255 * result.grid).astype(np.uint8)
        grid = _enlarged(np.repeat(cells[..., None], 3, axis=2), smooth=False)
    tiles = [
        (small, title),
        (maps[0], "target CAM"),
        (maps[1], "non-target CAM"),
        (grid, f"remnants (white), q {q:.2f}" if result.grid is not None else "remnants"),
    ]
    names = ("RU: from target", "RU: from non-target", "CU: from target", "CU: from non-target")
    pictures = [_enlarged(picture) for picture in result.reconstructions]
    tiles += list(zip(pictures, names, strict=True))
    return drawing.beside([drawing.titled(picture, text) for picture, text in tiles])


def _enlarged(picture: drawing.Picture, *, smooth: bool = True) -> drawing.Picture:
    return drawing.resized(picture, TILE_WIDTH_PX, smooth=smooth)


def _resized_to(image: drawing.Picture, values: np.ndarray) -> drawing.Picture:
    return drawing.resized(image, values.shape[1])


def write_reconstructions(
    *,
    model: Path,
    reconstructor: Path,
    index: Path,
    root: Path,
    output: Path,
    split: str,
    names: Sequence[str] = (),
    count: int = 8,
    compute: Device,
) -> None:
    """Write one PNG an image, a row each tagged class, and the contact sheet `index.png`.

    Args:
        model: The trained classifier.
        reconstructor: The reconstructor of the same training.
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: Folder to write.
        split: Image set to choose from.
        names: Images to show; where none is in the split: `count`, evenly spaced.
        count: How many images to show where no name decides.
        compute: Device and threads.

    Raises:
        UserError: The files are not of one training or know other classes than the index, the
            split is empty, or there is no image of a name.
    """
    device = setup(compute, seed=0)
    trained = CLASSIFIER.load(model)
    known = read_index(index)
    if trained.classes != known.classes:
        raise UserError(
            "the model was trained for other classes than the index has",
            where=model,
            expected=", ".join(known.classes),
        )
    trained.network.to(device)
    adversary = load_reconstructor(reconstructor, trained).to(device)
    pictures = {}
    for record in shown_records(known, split=split, names=names, count=count):
        if record.tags:
            indices = known.class_indices(record)
            pictures[record.name] = _picture(record, indices, root, trained, adversary)
    if not pictures:
        raise UserError("none of the images to show has a tag", where=index, expected="tags")
    with atomic_directory(output) as folder:
        drawing.save_all(pictures, folder)


def _picture(
    record: ImageRecord,
    indices: Sequence[int],
    root: Path,
    trained: CamModel,
    reconstructor: Reconstructor,
) -> drawing.Picture:
    image = central_square(read_image(root / record.path), _settings(trained).crop_px)
    shown = image.permute(1, 2, 0).numpy()
    rows = []
    for target in indices:
        # One grid an image: the rows differ in their target alone.
        generator = torch.Generator().manual_seed(zlib.crc32(record.name.encode()))
        result = phases(trained, reconstructor, image, target, generator)
        title = f"{record.name}: {trained.classes[target]}"
        rows.append(draw_phases(shown, title, result, _last_q(_settings(trained))))
    return drawing.below(rows)
