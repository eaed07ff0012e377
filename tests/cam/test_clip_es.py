"""CLIP-ES's maps against the public code's numbers and naive forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_helpers import reference

from wsss.cam.clip_es import balance_, box_mask, grad_cam, min_max, refine, spread

IMAGES = ("square", "wide")


def arrays(name: str) -> dict[str, np.ndarray]:
    return {k.split("/")[1]: v for k, v in reference().items() if k.startswith(name)}


def close(found: torch.Tensor, wanted: np.ndarray, tolerance: float = 1e-4) -> None:
    assert found.shape == wanted.shape
    difference = np.abs(found.numpy().astype(np.float64) - wanted).max()
    assert difference <= tolerance * np.abs(wanted).max()


def naive_affinity(attention: np.ndarray) -> np.ndarray:
    """Return CLIP-ES's affinity in float64, in the order of its text."""
    matrix = attention.astype(np.float64)
    for _ in range(3):
        matrix = matrix / matrix.sum(axis=0, keepdims=True)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    symmetric = (matrix + matrix.T) / 2
    return symmetric @ symmetric


@pytest.mark.parametrize("name", IMAGES)
def test_grad_cam(name: str) -> None:
    wanted = arrays(name)
    channels, *grid = wanted["act"].shape
    activation = torch.from_numpy(wanted["act"].reshape(channels, -1).T.copy())
    weights = torch.from_numpy(wanted["grad"].mean(axis=(2, 3)))
    close(grad_cam(activation, weights, tuple(grid)), wanted["gradcam"])


def test_a_faint_map_still_reaches_one() -> None:
    maps = grad_cam(torch.tensor([[0.0], [1e-7], [2e-7]]), torch.ones(1, 1), (1, 3))
    # Once would leave 2e-7 / 3e-7.
    assert maps.max() > 1 - 1e-6
    assert min_max(torch.tensor([[[0.0, 1e-7, 2e-7]]])).max() == pytest.approx(2 / 3, rel=1e-4)


@pytest.mark.parametrize("name", IMAGES)
def test_affinity(name: str) -> None:
    wanted = arrays(name)
    balanced = balance_(torch.from_numpy(wanted["attn_mean_last8"].copy()))
    close(balanced, wanted["sinkhorn"])
    count = len(balanced)
    close(spread(balanced, torch.eye(count)[:, None])[:, 0].T, wanted["affinity"])
    close(torch.from_numpy(naive_affinity(wanted["attn_mean_last8"])).float(), wanted["affinity"])


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(("prefix", "threshold"), [("", 0.4), ("coco_", 0.7)])
def test_boxes_and_refinement(name: str, prefix: str, threshold: float) -> None:
    wanted = arrays(name)
    cams = torch.from_numpy(wanted["gradcam"])
    masks = [box_mask(cam, threshold, far_edge=False) for cam in cams]
    assert (torch.stack(masks).numpy() == wanted[f"{prefix}box_mask"]).all()
    balanced = torch.from_numpy(wanted["sinkhorn"])
    refined = refine(cams, balanced, threshold=threshold, far_edge=False)
    close(refined, wanted[f"{prefix}refined"])


def test_boxes_reach_the_far_edge_unless_told_otherwise() -> None:
    cam = torch.zeros(5, 6)
    cam[3:, 4:] = 1.0
    cam[0, 0] = 0.45
    mask = box_mask(cam, 0.4, far_edge=True)
    assert mask.sum() == 5 and mask[3:, 4:].all() and mask[0, 0]
    published = box_mask(cam, 0.4, far_edge=False)
    assert published.sum() == 2 and published[3, 4] and published[0, 0]


def test_diagonal_neighbours_are_one_region_and_a_hole_is_filled() -> None:
    cam = torch.zeros(6, 6)
    cam[[1, 2], [1, 2]] = 1.0
    assert box_mask(cam, 0.4, far_edge=True)[1:3, 1:3].all()
    ring = torch.zeros(6, 6)
    ring[1:4, 1:4] = 1.0
    ring[2, 2] = 0.0
    assert box_mask(ring, 0.4, far_edge=True).sum() == 9


def test_an_empty_map_stays_empty() -> None:
    cams = torch.zeros(1, 3, 4)
    refined = refine(cams, balance_(torch.rand(12, 12) + 0.1), threshold=0.4, far_edge=True)
    assert not refined.any() and not min_max(refined).any()


def test_the_threshold_is_taken_of_the_eight_bit_maximum() -> None:
    # 254 * 0.4 = 101.6, cut to 101: 102 is in, 101 is not.
    cam = torch.tensor([[0.9999, 0.0, 102.5 / 255, 0.0, 101.5 / 255]])
    assert box_mask(cam, 0.4, far_edge=True)[0].tolist() == [True, False, True, False, False]
