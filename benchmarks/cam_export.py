"""CAM export: the published form, an image and a view a time in float32, against ours.

    python -m benchmarks.cam_export                    # Lite0 at 500x375; ResNet-38, a small image
    python -m benchmarks.cam_export --full             # ResNet-38 at 500x375, too: minutes
    python -m benchmarks.cam_export --network lite0 --parts     # what each change brings
    python -m benchmarks.cam_export --device cuda --images 16

The naive form is written plainly, the way the field's scripts do it: four scales and their mirror
images one after the other, float32, the CAMs of all classes resized to the image's full size,
summed and normalised in NumPy, one pickled .npy an image. Both read the same JPEG file, with one
trained classifier (`--model`), or ImageNet weights for Lite0 and random ones for ResNet-38 under a
random head: neither changes the time.

That both give the same is checked twice: the naive arithmetic at the stored size against the store,
and the labels of both at full size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.harness import Row, add_options, finish, interleave, measure
from benchmarks.machine import flop_counter, product_rate
from wsss.cam.config import ExportConfig
from wsss.cam.export import cam_source
from wsss.cam.inference import multi_scale_cam, view_size
from wsss.cam.model_file import CLASSIFIER
from wsss.cam.source import CamSource
from wsss.data.images import read_image
from wsss.data.transforms import image_to_tensor, resize
from wsss.maps.map_store import MapStore, MapStoreWriter, map_size, upsample
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.classifier import Classifier
from wsss.models.config import BackboneConfig
from wsss.models.lean import lean_classifier
from wsss.models.reconstructor import CamClassifier
from wsss.runtime.compute import convolution_dtype
from wsss.runtime.pool import ordered_map
from wsss.runtime.settings import replace

CLASSES = 20
SCALES = (0.5, 1.0, 1.5, 2.0)
BACKGROUND = 0.2
NETWORKS = {
    "lite0": BackboneConfig(),
    "resnet38": BackboneConfig(name="resnet38", weights="none", output_stride=8),
}
TARGETS = {("lite0", "cpu"): 3.0, ("resnet38", "cpu"): 2.5}
TARGET_ON_GPU = 6.0


def network(name: str, model: str | None) -> Classifier:
    """The trained classifier, or one that costs the same, in eval mode on the CPU."""
    if model is not None:
        return CLASSIFIER.load(Path(model)).network
    torch.manual_seed(0)
    built = CamClassifier(build_backbone(NETWORKS[name]), CLASSES, "paper")
    if NETWORKS[name].weights == "none":
        for module in built.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
    return freeze_batchnorm(built).eval()


def write_picture(path: Path, width: int, height: int) -> None:
    """A smooth picture with a few squares, as a JPEG file."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, 6, 8), dtype=np.float32))
    image = F.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    side = min(width, height) // 4
    for _ in range(4):
        top, left = rng.integers(0, (height - side, width - side))
        colour = torch.from_numpy(rng.random((3, 1, 1), dtype=np.float32))
        image[:, top : top + side, left : left + side] = colour
    grain = torch.from_numpy(rng.normal(0, 0.03, image.shape).astype(np.float32))
    pixels = (image + grain).clamp(0, 1).mul(255).to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(path, quality=95)


# --- the published form -----------------------------------------------------------------------


def naive_cams(
    classifier: Classifier, path: Path, device: torch.device
) -> Iterator[tuple[torch.Tensor, bool]]:
    """The CAMs of all classes, (1, C, h, w), of an image file's views, one view at a time."""
    mean, std = (np.array(v, np.float32) for v in vars(classifier.normalisation).values())
    picture = image_to_tensor(np.array(Image.open(path).convert("RGB")))
    for scale in SCALES:
        # Resized as ours is: implementations of the bicubic kernel differ by a grey level or two.
        view = resize(picture, view_size((picture.shape[1], picture.shape[2]), scale))
        array = (view.permute(1, 2, 0).numpy().astype(np.float32) / 255 - mean) / std
        for mirrored in (False, True):
            chw = np.ascontiguousarray(array.transpose(2, 0, 1)[:, :, :: -1 if mirrored else 1])
            with torch.no_grad():
                yield classifier(torch.from_numpy(chw)[None].to(device))[1], mirrored


def added_up(cams: Iterable[tuple[torch.Tensor, bool]], size: tuple[int, int]) -> np.ndarray:
    """Their sum at one size, (C, H, W), each class normalised."""
    total: np.ndarray | float = 0.0
    for cam, mirrored in cams:
        with torch.no_grad():
            maps = F.relu(F.interpolate(cam, size=size, mode="bilinear", align_corners=False))[0]
        total = total + maps.cpu().numpy()[:, :, :: -1 if mirrored else 1]
    assert isinstance(total, np.ndarray)
    low, high = total.min((1, 2), keepdims=True), total.max((1, 2), keepdims=True)
    return np.asarray(np.maximum(total - low - 1e-5, 0) / (high - low + 1e-5))


def naive_export(
    classifier: Classifier,
    path: Path,
    tags: list[int],
    output: Path,
    device: torch.device,
    keep: list[tuple[torch.Tensor, bool]],
) -> None:
    """Write the full-size maps of the tagged classes; `keep` gets what they were made of."""
    keep.clear()
    keep.extend(naive_cams(classifier, path, device))
    with Image.open(path) as picture:
        size = (picture.height, picture.width)
    maps = added_up(keep, size)
    np.save(output, {tag: maps[tag] for tag in tags}, allow_pickle=True)  # type: ignore[arg-type]


# --- ours -------------------------------------------------------------------------------------


def our_export(
    source: CamSource, paths: list[Path], tags: list[int], output: Path, workers: int = 1
) -> None:
    """What the stage does between loading the model and its end."""

    def load(path: Path) -> tuple[list, tuple[int, int]]:  # type: ignore[type-arg]
        image = read_image(path)
        return source.views(image, SCALES), (image.shape[0], image.shape[1])

    names = [str(number) for number in range(CLASSES)]
    with (
        torch.inference_mode(),
        MapStoreWriter(output, classes=names, attributes={}) as store,
    ):
        for number, (views, size) in enumerate(ordered_map(load, paths, workers, threads=True)):
            maps = multi_scale_cam(
                partial(source.cam, class_indices=tags), views, size=size, mirror=True
            )
            store.add(str(number), tags, maps.cpu().numpy(), size)


def our_source(name: str, model: str | None, precision: str, device: torch.device) -> CamSource:
    config = ExportConfig(scales=SCALES, mirror=True, precision=precision)  # type: ignore[arg-type]
    return cam_source(config.precision, network(name, model), None, device, mirror=config.mirror)


# --- what is measured -------------------------------------------------------------------------


def alone(
    form: str, name: str, model: str | None, device: str, path: str, tags: list[int], folder: str
) -> Callable[[], None]:
    """One form in a process of its own, for its memory."""
    on, picture, out = torch.device(device), Path(path), Path(folder)
    if form == "naive":
        classifier = network(name, model).to(on)
        return lambda: naive_export(classifier, picture, tags, out / "alone.npy", on, [])
    source = our_source(name, model, form, on)
    return lambda: our_export(source, [picture], tags, out / "alone.h5", workers=0)


@cache
def flops(name: str, width: int, height: int) -> int:
    """Of all views, counted on shapes alone."""
    with torch.device("meta"):
        classifier = network(name, None) if name != "lite0" else _without_weights()
    total = 0
    for scale in SCALES:
        x = torch.empty(1, 3, *view_size((height, width), scale), device="meta")
        with flop_counter() as counter, torch.no_grad():
            classifier(x)
        total += 2 * counter.get_total_flops()
    return total


def _without_weights() -> Classifier:
    config = replace(NETWORKS["lite0"], weights="none")
    return CamClassifier(build_backbone(config), CLASSES, "paper").eval()


def strongest(source: CamSource, path: Path) -> list[int]:
    """Two classes with something in their maps, as tagged classes have."""
    view = source.views(read_image(path), SCALES[:1])[0]
    with torch.inference_mode():
        peaks = source.cam(view, range(CLASSES)).amax(dim=(0, 2, 3))
    return sorted(int(tag) for tag in peaks.argsort()[-2:])


def compare(
    reference: np.ndarray, stored: Path, tags: list[int], full: Path, dtype: torch.dtype
) -> tuple[str, bool]:
    """How far the store is from the naive arithmetic, and the labels of both at full size."""
    with MapStore(stored) as store:
        ours = store.read("0")
    off = np.abs(ours.maps - reference[tags])
    whole = np.load(full, allow_pickle=True).item()
    labels = [
        np.concatenate([np.full((1, *ours.size), BACKGROUND), maps]).argmax(0)
        for maps in (
            np.stack([whole[tag] for tag in tags]),
            upsample(ours.maps, ours.size, "resize"),
        )
    ]
    agree = float((labels[0] == labels[1]).mean())
    words = f"mean {off.mean():.0e}, most {off.max():.0e}, {agree:.2%} of labels"
    # The store has half precision and a fourth of the size. Under a random head more is left of
    # bfloat16's rounding than under a trained one; `cam_precision` says what that does to seeds.
    limit, least = (0.001, 0.98) if dtype == torch.float32 else (0.02, 0.93)
    return words, bool(off.mean() < limit and agree > least)


def rows_of(name: str, width: int, height: int, options: argparse.Namespace) -> list[Row]:
    device = torch.device(options.device)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        picture = folder / "picture.jpg"
        write_picture(picture, width, height)
        classifier = network(name, options.model).to(device)
        tags = strongest(our_source(name, options.model, "auto", device), picture)
        raw: list[tuple[torch.Tensor, bool]] = []
        forms: dict[str, Callable[[], object]] = {
            "naive": lambda: [
                naive_export(classifier, picture, tags, folder / "naive.npy", device, raw)
                for _ in range(options.images)
            ]
        }
        for precision in options.precision:
            source = our_source(name, options.model, precision, device)
            forms[precision] = partial(
                our_export, source, [picture] * options.images, tags, folder / f"{precision}.h5"
            )
        timings = interleave(
            forms, repeats=options.repeats, warm_up=options.warm_up, device=options.device
        )
        common = (name, options.model, options.device, str(picture), tags, temporary)
        peaks = {}
        for form in forms if not options.no_memory else ():
            keys = ("name", "model", "device", "path", "tags", "folder")
            arguments = dict(zip(keys, common, strict=True))
            peaks[form] = measure(alone, form=form, **arguments).grown_mb
        for precision in options.precision:
            dtype = convolution_dtype(device, precision)
            words, agrees = compare(
                added_up(raw, map_size(height, width)),
                folder / f"{precision}.h5",
                tags,
                folder / "naive.npy",
                dtype,
            )
            work = flops(name, width, height) * options.images
            target = TARGETS.get((name, device.type), TARGET_ON_GPU)
            rows.append(
                Row(
                    stage="CAM export",
                    case=f"{width}x{height}, 4 scales x mirror, {CLASSES} classes, 2 tagged",
                    backbone=NETWORKS[name].name,
                    precision=str(dtype).removeprefix("torch."),
                    batch=2 if device.type == "cuda" else 1,
                    images=options.images,
                    naive=timings["naive"],
                    ours=timings[precision],
                    same=words,
                    agrees=agrees,
                    peak_mb=peaks.get(precision),
                    naive_peak_mb=peaks.get("naive"),
                    floor_s=work / product_rate(dtype, options.device),
                    floor=f"{work / 1e9:.0f} GFLOP",
                    target=target if precision == "auto" else None,
                    note="" if precision == "float32" else "the default",
                )
            )
    return rows


def parts_of(name: str, width: int, height: int, options: argparse.Namespace) -> list[Row]:
    """The network alone on one view of the image and its mirror image, change by change."""
    device = torch.device(options.device)
    plain, last = (network(name, options.model).to(device) for _ in range(2))
    last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lean = {
        dtype: lean_classifier(network(name, options.model).to(device), dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    views = torch.rand(2, 3, height, width, device=device)
    views_last = views.contiguous(memory_format=torch.channels_last)

    def one_by_one(read: Callable[[torch.Tensor], object], of: torch.Tensor) -> None:
        for view in of.chunk(2):
            read(view)

    def cast() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            one_by_one(last, views_last)

    forms: dict[str, Callable[[], object]] = {
        "as trained": lambda: one_by_one(plain, views),
        "channels-last": lambda: one_by_one(last, views_last),
        "and BatchNorm folded": lambda: one_by_one(lean[torch.float32].inference_cam, views_last),
        "channels-last, autocast": cast,
        "and folded, weights rounded once": lambda: one_by_one(
            lean[torch.bfloat16].inference_cam, views_last
        ),
        "and mirror image batched": lambda: lean[torch.bfloat16].inference_cam(views_last),
    }
    with torch.inference_mode():
        timings = interleave(
            forms, repeats=options.repeats, warm_up=options.warm_up, device=options.device
        )
    return [
        Row(
            stage="CAM network",
            case=f"{width}x{height} and mirror image: {form}",
            backbone=NETWORKS[name].name,
            precision="float32" if number < 3 else "bfloat16",
            batch=2 if "batched" in form else 1,
            naive=timings["as trained"],
            ours=timings[form],
            same="-",
        )
        for number, form in enumerate(forms)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", choices=sorted(NETWORKS), help="only this one")
    parser.add_argument("--model", help="a trained classifier instead, for one --network")
    parser.add_argument("--size", type=int, nargs=2, help="width and height of the image")
    parser.add_argument("--full", action="store_true", help="ResNet-38 at 500x375 on a CPU, too")
    parser.add_argument("--images", type=int, default=1, help="how many times a call exports it")
    parser.add_argument(
        "--precision", action="append", help="float32, bfloat16 or auto; repeatable"
    )
    parser.add_argument("--repeats", type=int, help="timed calls of each form (3; 1 of minutes)")
    parser.add_argument("--warm-up", type=int, help="calls before these (1; none of minutes)")
    parser.add_argument(
        "--no-memory",
        action="store_true",
        help="leave the memory out (so it is for minutes)",
    )
    parser.add_argument("--parts", action="store_true", help="what each change brings, instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    repeats, warm_up, precision = options.repeats, options.warm_up, options.precision
    no_memory = options.no_memory
    rows: list[Row] = []
    for name in [options.network] if options.network else sorted(NETWORKS):
        whole = name == "lite0" or options.full or options.device != "cpu"
        width, height = options.size or ((500, 375) if whole else (124, 92))
        minutes = name == "resnet38" and options.device == "cpu" and width * height > 300**2
        options.repeats = (1 if minutes else 3) if repeats is None else repeats
        options.warm_up = (0 if minutes else 1) if warm_up is None else warm_up
        options.precision = precision or (["auto"] if minutes else ["float32", "auto"])
        options.no_memory = no_memory or minutes
        rows += (parts_of if options.parts else rows_of)(name, width, height, options)
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
