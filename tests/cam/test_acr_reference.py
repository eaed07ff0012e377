"""One RU and one CU step against the released ACR code's own numbers.

Weights come from a rule (a random stream seeded by each tensor's name), so nothing but the
numbers is stored. Tolerances: 1e-5 relative on losses, 1e-3 on gradient norms, 1e-3 of the
maximum on arrays (some are stored in float16).
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.modules.dropout import _DropoutNd

from wsss.cam.losses import resize_grid
from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.acr_config import AcrConfig, AcrSettings
from wsss.cam.methods.step_inputs import StepInputs
from wsss.models.config import BackboneConfig
from wsss.models.published.acr_checkpoint import load_classifier, load_reconstructor

DATA = Path(__file__).parents[1] / "reference"
OFFICIAL = AcrSettings(
    backbone=BackboneConfig(name="resnet38", weights="none", output_stride=8),
    head="official",
    precision="float32",
    acr=AcrConfig(
        preset="official",
        decoder_depth=8,
        decoder_width=64,
        decode_px=None,
        feature_levels=(2, 3, 4),
        feature_channels=(64, 128, 256),
    ),
)


def fill(name: str, shape: list[int]) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    seed = (zlib.crc32(name.encode()) + 11) % 2**32
    count = int(np.prod(shape))
    z = np.random.RandomState(seed).standard_normal(count).reshape(shape)
    if name.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif "bn" in name and name.endswith("weight"):
        z = 1 + 0.1 * z
    elif len(shape) == 1:
        z = 0.1 * z
    else:
        fan = shape[0] * 4 if "genUnet.up" in name else int(np.prod(shape[1:]))
        z = z * np.sqrt((1 if "fc9" in name else 2) / fan)
        if name.endswith("conv_branch2b1.weight"):
            z = 0.35 * z
    return torch.from_numpy(z.astype(np.float32))


def assert_close_array(ours: torch.Tensor, reference: np.ndarray) -> None:
    expected = torch.from_numpy(np.asarray(reference, dtype=np.float32))
    assert ours.shape == expected.shape
    assert float((ours.detach() - expected).abs().max() / expected.abs().max()) < 1e-3


@pytest.fixture(scope="module")
def run() -> SimpleNamespace:
    torch.set_num_threads(2)  # until the test ends that asks for this first; see below
    names = json.loads((DATA / "acr_official_checkpoint_names.json").read_text())
    method = AcrMethod(OFFICIAL, 20, device=torch.device("cpu"))
    state = {name: fill(name, shape) for name, shape in names.items()}
    reports = (
        load_classifier(method.classifier, state),
        load_reconstructor(method.reconstructor, state),
    )
    del state
    for module in method.modules.values():
        # The layout the reference was computed in. The adversarial gradient has kinks (signs of
        # errors, rectifiers): another layout rounds differently by 1e-6, which flips a few of
        # them and moves single elements by 6e-3 of the maximum (float64 itself by 2e-3). So does
        # one thread, which sums in another order: 7e-3.
        module.to(memory_format=torch.contiguous_format)
        for part in module.modules():
            if isinstance(part, _DropoutNd):
                part.p = 0.0
    with np.load(DATA / "acr_official_step.npz") as file:
        arrays = {key: file[key] for key in file.files}
    image = torch.from_numpy(arrays["image"].astype(np.float32))
    keep = 1 - torch.from_numpy(arrays["erase_grid"].astype(np.float32))[:, None]
    inputs = StepInputs(
        x=image,
        image=image,
        label=torch.from_numpy(arrays["label"].astype(np.float32)),
        target=torch.from_numpy(arrays["target"]),
        grid=resize_grid(keep, 256),
    )
    recorded: dict[str, torch.Tensor] = {}

    # What the step itself computes is recorded on its way, not computed again.
    def keep_feature(module, args, output):
        if method.reconstructor.training:
            recorded["feature_up"] = args[0][:2].detach().clone()
            recorded["recon_full"] = output[:2].detach().clone()

    handle = method.reconstructor.decoder.register_forward_hook(keep_feature)
    logits, cam = method.classifier(inputs.x)
    ru = method.reconstructor_terms(inputs, cam)
    ru.total.backward()
    handle.remove()
    cu = method.classifier_terms(inputs, logits, cam)
    weights = OFFICIAL.acr.weights
    adversarial = -weights.cu_target * cu.target - weights.cu_nontarget * cu.nontarget
    (cam_gradient,) = torch.autograd.grad(adversarial, cam, retain_graph=True)
    before = {
        name: parameter.grad.clone()
        for name, parameter in method.reconstructor.named_parameters()
        if parameter.grad is not None and "decoder" in name
    }
    cu.total.backward()
    assert all(
        torch.equal(before[name], parameter.grad)
        for name, parameter in method.reconstructor.named_parameters()
        if name in before
    ), "the classifier's update reached the reconstructor's parameters"
    with torch.no_grad():
        _, feature = method.reconstructor.encode(inputs.x)
    return SimpleNamespace(
        arrays=arrays,
        numbers=json.loads((DATA / "acr_official_step.json").read_text()),
        method=method,
        inputs=inputs,
        reports=reports,
        logits=logits,
        cam=cam,
        ru=ru,
        cu=cu,
        cam_gradient=cam_gradient,
        feature=feature,
        recorded=recorded,
        names=names,
    )


@pytest.mark.slow
def test_every_checkpoint_tensor_is_used_or_left_out(run):
    classifier, reconstructor = run.reports
    assert {*classifier.used, *classifier.left_out} == set(run.names)
    assert {*reconstructor.used, *reconstructor.left_out} == set(run.names)
    unused = {n for n in classifier.left_out if n.startswith("net_main.")}
    assert all(re.search(r"genUnet|dr[12]|fc_recon", name) for name in unused)
    assert len(unused) == 20
    assert all(name.startswith("net_main.") for name in reconstructor.left_out)


@pytest.mark.slow
def test_arrays(run):
    arrays = run.arrays
    assert_close_array(run.cam, arrays["cam_logit"])
    assert_close_array(run.logits, arrays["class_logit"])
    assert_close_array(run.feature, arrays["feature"])
    assert_close_array(run.recorded["recon_full"], arrays["recon_full"])
    ours = run.method.target_map(run.inputs, run.cam)[:, 0]
    assert_close_array(ours, arrays["normalised_target_cam"])
    assert_close_array(run.cam_gradient, arrays["cu_adversarial_grad_cam_logit"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "update", "term"),
    [
        ("ru_cls", "ru", "classification"),
        ("ru_full", "ru", "full"),
        ("ru_erase_nontarget", "ru", "target"),
        ("ru_erase_target", "ru", "nontarget"),
        ("ru_total", "ru", "total"),
        ("cu_cls", "cu", "classification"),
        ("cu_from_target", "cu", "target"),
        ("cu_from_nontarget", "cu", "nontarget"),
        ("cu_total", "cu", "total"),
    ],
)
def test_losses(run, reference, update, term):
    ours = float(getattr(getattr(run, update), term).detach())
    assert ours == pytest.approx(run.numbers[reference], rel=1e-5)


def parameters_by_name(run) -> dict[str, torch.nn.Parameter]:
    """Ours under the checkpoint's names, through the loader's own report order."""
    from wsss.models.published import acr_checkpoint as names

    ours = {}
    for prefix, module, rename in (
        ("net_main.", run.method.classifier, names._classifier_name),
        ("net_recon.", run.method.reconstructor, names._reconstructor_name),
    ):
        parameters = dict(module.named_parameters())
        for name in run.names:
            if name.startswith(prefix):
                renamed = rename(name.removeprefix(prefix))
                if renamed in parameters:
                    ours[name] = parameters[renamed]
    return ours


@pytest.mark.slow
def test_gradient_norms(run):
    ours = parameters_by_name(run)
    norms = {k.split("/")[1]: v for k, v in run.numbers.items() if k.startswith("grad_norm/")}
    assert len(norms) == 11
    for name, expected in norms.items():
        assert float(ours[name].grad.norm()) == pytest.approx(expected, rel=1e-3), name
