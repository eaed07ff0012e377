"""Networks rewritten for inference, against the networks as they are."""

from __future__ import annotations

import pytest
import torch
from batchnorm_statistics import with_statistics
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.any_size import Depthwise, Pointwise, plan_nothing
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.deeplab_config import LargeFovSettings, V2Settings, V3PlusSettings
from wsss.models.heads.registry import HeadSettings
from wsss.models.lean import LeanClassifier, lean_backbone, lean_classifier, lean_network
from wsss.models.reconstructor import CamClassifier
from wsss.runtime.compute import convolution_dtype

CPU = torch.device("cpu")
# Convolutions padded by the input's size; a network's own last convolution; another family.
NETWORKS = {
    "lite0": BackboneConfig(name="tf_efficientnet_lite0", weights="none", output_stride=16),
    "lite0-final": BackboneConfig(
        name="tf_efficientnet_lite0", weights="none", output_stride=32, final_conv=True
    ),
    "resnet": BackboneConfig(name="test_resnet", weights="none", output_stride=32),
    "effnet": BackboneConfig(name="test_efficientnet", weights="none", output_stride=16),
}


def classifier(config: BackboneConfig, head: str = "paper", frozen: bool = True) -> CamClassifier:
    torch.manual_seed(0)
    network = CamClassifier(build_backbone(config), 5, head)
    with_statistics(network)
    return (freeze_batchnorm(network) if frozen else network).eval()


def difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("frozen", [True, False])
def test_same_cams_at_any_size(name: str, frozen: bool) -> None:
    whole = classifier(NETWORKS[name], frozen=frozen)
    images = [torch.rand(2, 3, 33, 47), torch.rand(1, 3, 64, 50)]
    with torch.inference_mode():
        wanted = [whole(image)[1] for image in images]
        norms = sum(isinstance(m, _BatchNorm) for m in whole.modules())
        lean = lean_classifier(whole, dtype=torch.float32)
        assert isinstance(lean, LeanClassifier)
        assert sum(isinstance(m, _BatchNorm) for m in lean.modules()) < norms / 4
        for image, cam in zip(images, wanted, strict=True):
            assert difference(lean.inference_cam(image).cam, cam) < 1e-4


@pytest.mark.parametrize(
    "config",
    [
        V3PlusSettings(channels=16, low_level_channels=8),
        LargeFovSettings(channels=16),
        V2Settings(),
    ],
)
def test_same_logits_of_deeplab_at_any_size(config: HeadSettings) -> None:
    torch.manual_seed(0)
    whole = DeepLab(build_backbone(NETWORKS["lite0-final"]), 5, config).eval()
    images = [torch.rand(2, 3, 64, 96), torch.rand(1, 3, 65, 33)]
    with torch.inference_mode():
        for module in whole.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
        wanted = [whole(image) for image in images]
        lean = lean_network(whole, dtype=torch.float32)
        assert isinstance(lean, fx.GraphModule)
        assert not any(isinstance(module, _BatchNorm) for module in lean.modules())
        for image, logits in zip(images, wanted, strict=True):
            assert difference(lean(image), logits) < 1e-4


def test_resnet38_keeps_the_norms_that_come_before_their_convolution() -> None:
    with torch.device("meta"):
        whole = CamClassifier(
            build_backbone(BackboneConfig(name="resnet38", weights="none", output_stride=8)),
            5,
            "official",
        )
    lean = lean_classifier(whole.eval(), dtype=torch.bfloat16)
    # Those before blocks 2 to 17, which read a sum, and the last one. The first block's and the 19
    # inside follow a convolution that nothing else reads.
    assert sum(isinstance(m, _BatchNorm) for m in lean.modules()) == 17
    assert isinstance(lean, LeanClassifier)
    for part, dtype in ((lean.graph, torch.bfloat16), (lean.head, torch.float32)):
        convs = [m for m in part.modules() if isinstance(m, nn.Conv2d)]
        assert {p.dtype for conv in convs for p in conv.parameters()} == {dtype}


def test_bfloat16_is_as_near_as_its_rounding() -> None:
    whole = classifier(NETWORKS["effnet"])
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = whole(image)[1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = whole(image)[1]
        lean = lean_classifier(whole, dtype=torch.bfloat16)
        ours = lean.inference_cam(image).cam
    assert ours.dtype == torch.float32
    assert 0 < difference(ours, wanted) < 1.5 * difference(cast, wanted)


def test_what_cannot_be_recorded_stays_as_it_is() -> None:
    whole = classifier(NETWORKS["effnet"])

    class Choosy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean() > 0 else -x

    whole.backbone.body.conv_stem = nn.Sequential(Choosy(), whole.backbone.body.conv_stem)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    assert lean_classifier(whole, dtype=torch.bfloat16) is whole
    after = whole.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_it_gives_no_attention_and_no_logits() -> None:
    lean = lean_classifier(classifier(NETWORKS["effnet"]), dtype=torch.float32)
    with pytest.raises(NotImplementedError, match="no attention"):
        lean.inference_cam(torch.rand(1, 3, 32, 32), attention=True)
    with pytest.raises(NotImplementedError):
        lean(torch.rand(1, 3, 32, 32))


def test_precision_of_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for native, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        found = {"avx512_bf16": native, "avx2": True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert convolution_dtype(CPU, "auto") == wanted
        assert convolution_dtype(gpu, "auto") == torch.bfloat16
        for device in (CPU, gpu):
            assert convolution_dtype(device, "float32") == torch.float32
            assert convolution_dtype(device, "bfloat16") == torch.bfloat16


@pytest.mark.parametrize("name", NETWORKS)
def test_same_features_of_a_backbone(name: str) -> None:
    whole = classifier(NETWORKS[name]).backbone
    image = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        wanted = whole(image)
        lean = lean_backbone(whole, dtype=torch.float32)
        features = lean(image)
    assert lean is not whole
    assert (lean.channels, lean.strides) == (whole.channels, whole.strides)
    assert lean.normalisation == whole.normalisation
    for feature, other in zip(features, wanted, strict=True):
        assert difference(feature, other) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_convolutions_that_a_gpu_plans_dearly_are_replaced_by_their_equals(name: str) -> None:
    whole = build_backbone(NETWORKS[name]).eval()
    images = [torch.rand(2, 3, 64, 96), torch.rand(1, 3, 65, 33)]
    with torch.inference_mode():
        wanted = [whole(image)[-1] for image in images]
        lean = lean_network(whole, dtype=torch.float32)
        convolutions = [m for m in lean.modules() if isinstance(m, nn.Conv2d)]
        plan_nothing(lean)
        kinds = [type(m) for m in lean.modules()]
        for image, feature in zip(images, wanted, strict=True):
            assert difference(lean(image)[-1], feature) < 1e-4
    inside = {id(m.conv) for m in lean.modules() if isinstance(m, Depthwise)}
    left = [m for m in lean.modules() if isinstance(m, nn.Conv2d) and id(m) not in inside]
    assert kinds.count(Pointwise) + kinds.count(Depthwise) + len(left) == len(convolutions)
    assert kinds.count(Pointwise) > 1
    # All that is left is wider than one pixel, or skips pixels, and reads all its channels.
    assert all(m.groups == 1 for m in left)
    assert all(m.kernel_size != (1, 1) or m.stride != (1, 1) for m in left)


def test_what_a_gpu_plans_dearly_and_what_not(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {
        "depthwise": nn.Conv2d(2, 4, 3, groups=2),
        "pointwise": nn.Conv2d(4, 3, 1),
        "one channel": nn.Conv2d(1, 4, 3),
        "groups": nn.Conv2d(4, 4, 1, groups=2),
        "strided": nn.Conv2d(4, 4, 1, stride=2),
        "padded": nn.Conv2d(4, 4, 1, padding=1),
    }
    network = nn.ModuleDict(dict(layers))
    plan_nothing(network)
    kinds = {name: type(layer) for name, layer in network.items()}
    assert kinds.pop("depthwise") is Depthwise and kinds.pop("pointwise") is Pointwise
    assert set(kinds.values()) == {nn.Conv2d}
    # PyTorch's own kernel, and for this one alone.
    asked: list[bool] = []

    def forward(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        asked.append(torch.backends.cudnn.enabled)
        return x

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    x = torch.rand(1, 4, 5, 5)
    network["depthwise"](x), network["strided"](x)
    assert asked == [False, True]
