"""Batches and augmentation: a function of (seed, epoch, image) and of nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from wsss.data.loader import batches, epoch_order, random_generator
from wsss.data.transforms import (
    image_to_tensor,
    label_to_tensor,
    normalise,
    random_crop,
    random_flip,
    random_long_side,
    random_scale,
)
from wsss.models.backbones import IMAGENET


class Noise:
    names = tuple(f"n{i}" for i in range(10))

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"x": torch.from_numpy(rng.standard_normal(3)), "name": self.names[position]}


def all_batches(start: int = 0, workers: int = 0, seed: int = 3) -> list[tuple[list[str], bytes]]:
    loader = batches(Noise(), batch_size=4, seed=seed, start=start, stop=6, workers=workers)
    return [(batch["name"], batch["x"].numpy().tobytes()) for batch in loader]


def test_batches_depend_on_seed_epoch_and_image_only() -> None:
    reference = all_batches()
    assert len(reference) == 6
    assert all_batches(workers=2) == reference
    assert all_batches(start=3) == reference[3:]
    assert all_batches(seed=4) != reference
    assert reference[0] != reference[2]  # the first batches of epochs 0 and 1


def test_an_incomplete_batch_is_left_out() -> None:
    seen = [name for names, _ in all_batches()[:2] for name in names]
    order = [Noise.names[p] for p in epoch_order(3, 0, 10)]
    assert seen == order[:8]


def test_generator_is_a_function_of_its_key() -> None:
    draws = {
        key: random_generator(*key).random() for key in [(0, 1, "a"), (0, 11, "a"), (0, 1, "b")]
    }
    assert len(set(draws.values())) == 3
    assert random_generator(0, 1, "a").random() == draws[0, 1, "a"]
    # Pinned: results must not change with the version of this project or of NumPy.
    assert random_generator(0, 0, "image").integers(1000, size=4).tolist() == [196, 943, 336, 869]


def coordinates(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose red and green tell where a pixel came from, and a label that agrees."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([rows, columns, np.ones_like(rows)], axis=-1)
    return image_to_tensor(image), label_to_tensor(rows)


def test_crop_keeps_image_and_label_together_and_pads_at_random_places() -> None:
    image, label = coordinates(20, 40)
    offsets = set()
    for seed in range(20):
        crop = random_crop(image, label, 30, np.random.default_rng(seed))
        assert crop.image.shape == (3, 30, 30)
        assert crop.target is not None
        valid = crop.valid[0]
        assert int(valid.sum()) == 20 * 30
        assert torch.equal(crop.target == 255, ~valid)
        assert torch.equal(crop.target[valid].float(), (crop.image[0] * 255).round()[valid])
        assert float(crop.image[:, ~valid].abs().sum()) == 0
        columns = (crop.image[1] * 255).round()[valid]
        assert len(columns.unique()) == 30
        offsets.add((int(valid.any(1).nonzero()[0]), int(columns.min())))
    assert len(offsets) > 10


def test_flip_mirrors_both() -> None:
    image, label = coordinates(4, 6)
    results = [random_flip(image, label, np.random.default_rng(s)) for s in range(20)]
    flipped = [torch.equal(i, image.flip(-1)) for i, _ in results]
    assert 4 < sum(flipped) < 16
    for (image_out, label_out), is_flipped in zip(results, flipped, strict=True):
        assert torch.equal(image_out, image.flip(-1) if is_flipped else image)
        assert torch.equal(label_out, label.flip(-1) if is_flipped else label)


def test_long_side_and_scale_stay_in_range() -> None:
    image, label = coordinates(50, 100)
    longest, factors = set(), set()
    for seed in range(60):
        resized, target = random_long_side(image, label, 30, 33, np.random.default_rng(seed))
        assert target is not None
        assert resized.shape[-2:] == target.shape[-2:]
        assert abs(resized.shape[1] * 2 - resized.shape[2]) <= 1
        longest.add(resized.shape[2])
        scaled, _ = random_scale(image, None, 0.5, 1.5, np.random.default_rng(seed))
        factors.add(scaled.shape[2] / 100)
    assert longest == {30, 31, 32, 33}
    assert 0.5 <= min(factors) < 0.6
    assert 1.4 < max(factors) <= 1.5


def test_padding_is_zero_after_normalisation() -> None:
    image, _ = coordinates(8, 8)
    crop = random_crop(image, None, 12, np.random.default_rng(0))
    out = normalise(crop.image[None], IMAGENET, crop.valid[None])
    assert float(out[0, :, ~crop.valid[0]].abs().max()) == 0
    expected = (crop.image[0] - 0.485) / 0.229
    assert torch.allclose(out[0, 0][crop.valid[0]], expected[crop.valid[0]])
