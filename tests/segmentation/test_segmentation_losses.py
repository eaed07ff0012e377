"""Segmentation losses against their definition, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from wsss.segmentation.losses import multi_scale_loss, pixel_cross_entropy


def naive_cross_entropy(logits, target):
    total, count = 0.0, 0
    for b in range(target.shape[0]):
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                label = int(target[b, y, x])
                if label == 255:
                    continue
                row = [float(v) for v in logits[b, :, y, x]]
                total += math.log(sum(math.exp(v) for v in row)) - row[label]
                count += 1
    return total / count


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    target = torch.randint(0, 5, (2, 5, 6), generator=generator)
    target[target == 4] = 255
    return logits, target


def test_mean_over_the_labelled_pixels_alone():
    logits, target = example()
    loss = pixel_cross_entropy(logits, target)
    assert float(loss) == pytest.approx(naive_cross_entropy(logits, target), rel=1e-6)


def test_logits_are_brought_to_the_targets_size():
    logits, _ = example()
    target = torch.zeros(2, 10, 12, dtype=torch.int64)
    big = F.interpolate(logits, size=(10, 12), mode="bilinear", align_corners=False)
    loss = pixel_cross_entropy(logits, target)
    assert float(loss) == pytest.approx(naive_cross_entropy(big, target), rel=1e-6)


def test_nothing_labelled_is_a_loss_of_zero_that_can_be_differentiated():
    logits, target = example()
    logits.requires_grad_()
    loss = pixel_cross_entropy(logits, torch.full_like(target, 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_bfloat16_logits_are_summed_in_float32():
    logits, target = example()
    low = logits.bfloat16()
    loss = pixel_cross_entropy(low, target)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(naive_cross_entropy(low.float(), target), rel=1e-6)


def test_several_scales_and_their_maximum():
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, 16, 24, generator=generator)
    target = torch.randint(0, 4, (2, 16, 24), generator=generator)
    weight = torch.randn(4, 3, 1, 1, generator=generator)
    seen = []

    def network(x):
        seen.append(tuple(x.shape[2:]))
        return F.conv2d(F.avg_pool2d(x, 4), weight)

    loss = multi_scale_loss(network, image, target, (1.0, 0.75, 0.5))
    assert seen == [(16, 24), (12, 18), (8, 12)]
    full = network(image)
    others = [
        network(F.interpolate(image, scale_factor=s, mode="bilinear", align_corners=False))
        for s in (0.75, 0.5)
    ]
    maximum = full
    for other in others:
        resized = F.interpolate(other, size=full.shape[2:], mode="bilinear", align_corners=False)
        maximum = torch.where(resized > maximum, resized, maximum)
    expected = 0.0
    for logits in (full, *others, maximum):
        big = F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)
        expected += naive_cross_entropy(big, target)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_one_scale_is_one_loss():
    image = torch.randn(1, 3, 8, 8)
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    loss = multi_scale_loss(lambda x: x, image, target, (1.0,))
    torch.testing.assert_close(loss, pixel_cross_entropy(image, target))
