"""IRNet: sizes, what is frozen, mirrored inference, the published weights' names."""

from __future__ import annotations

import pytest
import torch
from irn_checkpoint import published_state
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.backbones import IMAGENET, Backbone, build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.irnet import IrNet, _undilate, edge_map, load_irn_state


class Body(nn.Module):
    """A tiny pyramid of strides 2, 4, 8, 8."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride, 1)
            for i, o, stride in ((3, 4, 2), (4, 6, 2), (6, 8, 2), (8, 8, 1))
        )
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            x = conv(x).relu()
            features.append(x)
        features[-1] = self.norm(features[-1])
        return features


def network() -> IrNet:
    torch.manual_seed(0)
    return IrNet(
        Backbone(Body(), channels=(4, 6, 8, 8), strides=(2, 4, 8, 8), normalisation=IMAGENET)
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 5), (1, 1)])
def test_maps_are_at_stride_4_for_any_size(size: tuple[int, int]) -> None:
    net = network().eval()
    edge, displacement = net(torch.randn(2, 3, *size))
    expected = ((size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)
    assert edge.shape == (2, 1, *expected)
    assert displacement.shape == (2, 2, *expected)
    assert edge.isfinite().all() and displacement.isfinite().all()
    assert net.edge_logits(torch.zeros(1, 3, *size)).shape == edge[:1].shape


def test_large_images_are_not_cropped() -> None:
    # IRN's inference stops at 512 px; here the last columns still answer to what is there.
    net = network().eval()
    image = torch.rand(1, 3, 40, 700, generator=torch.Generator().manual_seed(0))
    changed = image.clone()
    changed[..., 680:] += 1
    with torch.inference_mode():
        difference = (net.edge_logits(image) - net.edge_logits(changed)).abs()[0, 0]
    # GroupNorm spreads a little of any change over the whole map.
    assert float(difference[:, 171:].mean()) > 5 * float(difference[:, :160].mean())


def test_only_the_branches_learn() -> None:
    net = network().train()
    assert not net.backbone.training and net.mean_shift.training
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    parameters = [*net.edge_parameters(), *net.displacement_parameters()]
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    assert {id(p) for p in parameters} == {id(p) for p in trainable}
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    edge, displacement = net(torch.randn(2, 3, 32, 32))
    (edge.square().mean() + displacement.square().mean()).backward()
    optimizer.step()
    for name, tensor in net.state_dict().items():
        frozen = name.startswith("backbone.")
        assert torch.equal(tensor, before[name]) == frozen, name


def test_mean_shift_centres_displacements_at_inference_only() -> None:
    shift = network().mean_shift
    field = torch.randn(2, 2, 6, 6) + torch.tensor([3.0, -2.0])[:, None, None]
    shift.train()
    for _ in range(200):
        assert torch.equal(shift(field), field)
    shift.eval()
    assert torch.allclose(shift(field).mean((0, 2, 3)), torch.zeros(2), atol=1e-4)


def test_edges_are_the_same_for_the_mirrored_image() -> None:
    net = network().eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        edge = edge_map(net, image)
        mirrored = edge_map(net, image.flip(-1))
        logits = [net.edge_logits(image), net.edge_logits(image.flip(-1)).flip(-1)]
    torch.testing.assert_close(mirrored.flip(-1), edge)
    torch.testing.assert_close(edge, torch.sigmoid(sum(logits) / 2)[:, 0])
    assert edge.shape == (1, 8, 12)


def test_a_backbone_without_fine_features_is_refused() -> None:
    coarse = Backbone(Body(), channels=(4, 6, 8, 8), strides=(8, 8, 8, 8), normalisation=IMAGENET)
    with pytest.raises(UserError, match="strides"):
        IrNet(coarse)


def test_published_resnet50_weights_fit_by_name() -> None:
    config = BackboneConfig(name="resnet50", weights="none", output_stride=16)
    net = IrNet(build_backbone(config), dilation=False)
    state = published_state(net)
    report = load_irn_state(net, state)
    own = net.state_dict()
    assert torch.equal(own["edge_levels.2.0.weight"], state["fc_edge3.0.weight"])
    assert torch.equal(own["edge_out.bias"], state["fc_edge6.bias"])
    assert torch.equal(own["displacement_levels.4.1.bias"], state["fc_dp5.1.bias"])
    assert torch.equal(own["displacement_deep.0.weight"], state["fc_dp6.0.weight"])
    assert torch.equal(own["displacement_joint.1.weight"], state["fc_dp7.1.weight"])
    assert torch.equal(own["displacement_out.weight"], state["fc_dp7.3.weight"])
    assert torch.equal(own["mean_shift.running_mean"], state["fc_dp7.4.running_mean"])
    assert torch.equal(own["backbone.body.layer4.1.conv2.weight"], state["stage5.0.1.conv2.weight"])
    assert all(name.startswith(("resnet50.", "fc_dp7.4.")) for name in report.left_out)
    convolutions = [m for m in net.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.dilation == (1, 1) for m in convolutions)
    with pytest.raises(UserError, match="extra_tensor"):
        load_irn_state(net, {**state, "extra_tensor": torch.zeros(1)})
    state.pop("fc_edge4.0.weight")
    with pytest.raises(UserError, match="missing"):
        load_irn_state(net, state)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_kernel_without_its_dilation_keeps_the_size(kernel: int) -> None:
    convolution = torch.nn.Conv2d(1, 1, kernel, dilation=2, padding=kernel - 1)
    before = convolution(torch.ones(1, 1, 9, 12)).shape
    _undilate(torch.nn.Sequential(convolution))
    assert convolution.dilation == (1, 1)
    assert convolution(torch.ones(1, 1, 9, 12)).shape == before
