"""Class probabilities of a picture: views padded, mirrored and averaged, rounded as told."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from segmentation_helpers import picture, tiny_config
from torch import nn

from wsss.models.backbones import IMAGENET, build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.segmentation import inference
from wsss.segmentation.inference import (
    Segmenter,
    Views,
    class_probabilities,
    image_logits,
    pad_to_multiple,
    segmenter,
    window_starts,
)

CPU = torch.device("cpu")


class _PixelNetwork(nn.Module):
    """Labels each 4 x 4 cell by itself: what it says of a place depends on that place alone."""

    padding_stride = 8

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = torch.randn(3, 3, 1, 1, generator=generator)
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        assert x.shape[2] % 8 == 0 and x.shape[3] % 8 == 0
        return F.conv2d(F.avg_pool2d(x, 4), self.weight)


def predict(network, views, *, mirror):
    segments = Segmenter(network, IMAGENET, network.padding_stride, CPU, torch.float32)
    return class_probabilities(segments, views, mirror=mirror).numpy()


def test_padding_is_right_and_below_and_only_as_needed():
    image = torch.ones(1, 3, 9, 16)
    padded = pad_to_multiple(image, 8)
    assert padded.shape == (1, 3, 16, 16)
    assert (padded[:, :, :9] == 1).all() and (padded[:, :, 9:] == 0).all()


def test_one_view_equals_the_formula():
    network, image = _PixelNetwork(), picture(32, 40)
    got = predict(network, inference.views_of(image, (1.0,)), mirror=False)
    mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
    x = torch.from_numpy((image / 255.0 - mean) / std).permute(2, 0, 1)[None]
    logits = F.conv2d(F.avg_pool2d(x, 4), network.weight.double())
    logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    expected = (logits.exp() / logits.exp().sum(1, keepdim=True))[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_views_are_padded_to_the_stride_and_averaged():
    network, image = _PixelNetwork(), picture(37, 51)
    views = inference.views_of(image, (0.5, 1.0, 1.5))
    assert [tuple(view.shape) for view in views.images] == [(3, 18, 26), (3, 37, 51), (3, 56, 76)]
    got = predict(network, views, mirror=True)
    # Image and mirror image.
    assert network.seen == [(1, 3, *size) for size in ((24, 32), (40, 56), (56, 80)) for _ in "ab"]
    assert got.shape == (3, 37, 51)
    np.testing.assert_allclose(got.sum(0), 1, atol=1e-5)
    single = [
        predict(network, Views(views.size, (each,)), mirror=False)
        for view in views.images
        for each in (view, view.flip(-1))
    ]
    mirrored_back = [p if i % 2 == 0 else p[..., ::-1] for i, p in enumerate(single)]
    np.testing.assert_allclose(got, np.mean(mirrored_back, axis=0), atol=1e-6)


def test_a_mirrored_image_gets_the_mirrored_prediction():
    # Width a multiple of the stride: only then does the padding mirror, too.
    image = picture(40, 56)
    views = inference.views_of(image, (1.0,))
    mirrored = Views(views.size, tuple(view.flip(-1) for view in views.images))
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(weights="none"))
    network = DeepLab(backbone, 3, tiny_config().head).eval()
    segments = segmenter(network, precision="float32", device=CPU)
    left = class_probabilities(segments, views, mirror=True)
    right = class_probabilities(segments, mirrored, mirror=True)
    torch.testing.assert_close(left, right.flip(-1), atol=1e-5, rtol=0)
    # Without the mirror the network is not symmetric, so the test can fail.
    alone, other = (class_probabilities(segments, v, mirror=False) for v in (views, mirrored))
    assert (alone - other.flip(-1)).abs().max() > 1e-4


def test_a_segmenter_rounds_as_told_and_only_so():
    views = inference.views_of(picture(61, 83), (0.5, 1.0))
    torch.manual_seed(0)
    network = DeepLab(build_backbone(BackboneConfig()), 3, tiny_config().head).eval()
    # Logits that differ from place to place, as after training.
    network.head.classifier.weight.data *= 20
    normalisation, stride = network.backbone.normalisation, network.padding_stride
    plain = Segmenter(network, normalisation, stride, CPU, torch.float32)
    wanted = class_probabilities(plain, views, mirror=True)
    assert wanted.std(dim=(1, 2)).max() > 0.01
    far = {}
    for precision in ("float32", "bfloat16"):
        segments = segmenter(copy.deepcopy(network), precision=precision, device=CPU)
        far[precision] = (class_probabilities(segments, views, mirror=True) - wanted).abs().max()
    assert far["float32"] < 1e-4 < far["bfloat16"] < 0.1


def test_padding_does_not_move_the_prediction():
    # Cells of 4 pixels: cutting the image inside the padding keeps the cells before it.
    network, image = _PixelNetwork(), picture(40, 64)
    whole = predict(network, inference.views_of(image, (1.0,)), mirror=False)
    cut = predict(network, inference.views_of(image[:36, :60], (1.0,)), mirror=False)
    np.testing.assert_allclose(cut[:, :30, :54], whole[:, :30, :54], atol=1e-6)


def test_windows_cover_every_pixel_with_a_third_in_common():
    for length, window in ((10, 12), (12, 12), (13, 12), (100, 12), (37, 32), (64, 32), (96, 32)):
        starts = window_starts(length, window)
        assert starts[0] == 0 and starts[-1] == max(0, length - window)
        steps = np.diff(starts)
        assert (steps > 0).all() and (3 * steps <= 2 * window + 3).all()
        # No more of them than needed.
        assert len(starts) == 1 or (len(starts) - 2) * 2 * window / 3 < length - window


def test_windows_give_the_mean_of_what_they_see():
    # Unlike cells of 4 pixels, a wide receptive field sees where its window ends.
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 9, padding=4), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 9, padding=4)
    )
    whole = Segmenter(network, IMAGENET, 8, CPU, torch.float32)
    image = torch.randn(2, 3, 40, 71)
    total, seen = np.zeros((2, 3, 40, 71)), np.zeros((40, 71))
    with torch.inference_mode():
        for top in (0, 8):
            for left in (0, 20, 39):
                part = image[:, :, top : top + 32, left : left + 32]
                total[:, :, top : top + 32, left : left + 32] += network(part).numpy()
                seen[top : top + 32, left : left + 32] += 1
        expected = total / seen
        got = image_logits(replace(whole, window_px=32), image).numpy()
        np.testing.assert_allclose(got, expected, atol=1e-5)
        plain = image_logits(whole, image).numpy()
        assert np.abs(got - plain).max() > 1e-2
        # Where all of what a pixel sees lies in all its windows, nothing is lost.
        assert np.abs(got - plain)[:, :, 16:24, 8:12].max() < 1e-5
        same = image_logits(replace(whole, window_px=71), image).numpy()
    np.testing.assert_array_equal(same, plain)


def test_windows_of_a_pointwise_network_are_the_whole():
    network = torch.nn.Conv2d(3, 5, 1)
    segments = Segmenter(network, IMAGENET, 1, CPU, torch.float32)
    views = inference.views_of(picture(61, 83), (0.5, 1.0))
    whole = class_probabilities(segments, views, mirror=True)
    parts = class_probabilities(replace(segments, window_px=32), views, mirror=True)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)


def test_large_pictures_are_reduced():
    small = inference.views_of(picture(37, 51), (0.5, 1.0), 102)
    assert [tuple(view.shape) for view in small.images] == [(3, 18, 26), (3, 37, 51)]
    large = inference.views_of(picture(90, 120), (0.5, 1.0), 60)
    assert large.size == (90, 120)
    assert [tuple(view.shape) for view in large.images] == [(3, 22, 30), (3, 45, 60)]
    segments = Segmenter(torch.nn.Conv2d(3, 5, 1), IMAGENET, 1, CPU, torch.float32)
    assert class_probabilities(segments, large, mirror=False).shape == (5, 90, 120)
