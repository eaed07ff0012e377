"""Stronger augmentation: torchvision's by our draws, and rectangles of noise by the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from wsss.data.augment import rand_augment, random_erasing


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_operations_are_torchvisions_by_the_generator(seed: int) -> None:
    image = torch.randint(0, 256, (3, 20, 24), generator=torch.Generator().manual_seed(seed))
    image = image.to(torch.uint8)
    before = torch.random.get_rng_state()
    found = rand_augment(image, np.random.default_rng(seed), operations=2, magnitude=9)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**62)))
        # ImageNet's mean colour where a turned picture leaves nothing.
        expected = v2.RandAugment(2, 9, fill=[124, 116, 104])(image)
    assert torch.equal(found, expected)


def test_rectangles_have_the_papers_sizes_and_lie_anywhere() -> None:
    rng = np.random.default_rng(0)
    image = torch.zeros(3, 100, 120)
    shares, ratios, touched = [], [], set()
    for _ in range(400):
        erased = (random_erasing(image, rng, 1.0) != 0).any(dim=0)
        rows, columns = np.flatnonzero(erased.any(dim=1)), np.flatnonzero(erased.any(dim=0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert erased.sum() == height * width
        shares.append(height * width / 12000)
        ratios.append(height / width)
        ends = {"top": rows[0], "left": columns[0], "bottom": 99 - rows[-1]}
        touched |= {name for name, end in {**ends, "right": 119 - columns[-1]}.items() if not end}
    assert 0.019 < min(shares) < 0.03 and 0.3 < max(shares) < 0.34
    assert 0.28 < min(ratios) < 0.4 and 2.5 < max(ratios) < 3.6
    assert touched == {"top", "left", "bottom", "right"}
