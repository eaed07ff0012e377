"""From a picture and its tags to maps: the public code's numbers, sizes, memory, words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip_helpers import NAMES, reference, write_openai_file

from wsss.cam.clip_es_maps import ClipEs, ClipEsOptions, network_input, network_size
from wsss.cam.clip_words import BACKGROUND_WORDS, TEMPLATE, background_words, class_words
from wsss.data.formats.voc import VOC_CLASSES
from wsss.errors import UserError
from wsss.models.clip import Clip
from wsss.models.clip_files import load_clip

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    file = write_openai_file(tmp_path_factory.mktemp("clip") / "tiny.pt")
    return load_clip(file, device=torch.device("cpu"))[0]


def method(clip: Clip, **options: object) -> ClipEs:
    words = class_words(NAMES["voc_names"], {}, published=True)
    return ClipEs(
        clip,
        class_texts=clip.embed_texts([TEMPLATE.format(word) for word in words]),
        background_texts=clip.embed_texts([TEMPLATE.format(w) for w in NAMES["background"]]),
        options=ClipEsOptions(**options),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", ["square", "wide"])
@pytest.mark.parametrize(
    ("options", "wanted", "tolerance"),
    [
        ({"published": True}, "refined_full", 1e-4),
        ({"published": True, "box_threshold": 0.7}, "coco_refined_full", 2e-3),
        ({"refine": False}, "gradcam_full", 1e-4),
    ],
)
def test_equals_the_public_code(
    clip: Clip, name: str, options: dict[str, object], wanted: str, tolerance: float
) -> None:
    image, keys = reference()[f"{name}/image"], reference()[f"{name}/keys"]
    es = method(clip, **options)
    prepared = es.input(image)
    assert np.abs(prepared.numpy() - reference()[f"{name}/input"]).max() < 1e-6
    maps = es.maps(prepared, keys.tolist())
    full = F.interpolate(maps[None], size=image.shape[:2], mode="bilinear", align_corners=False)
    expected = reference()[f"{name}/{wanted}"].astype(np.float64)
    assert np.abs(full[0].numpy() - expected).max() <= tolerance * expected.max()


def test_default_differs_where_boxes_touch_the_far_edge(clip: Clip) -> None:
    image, keys = reference()["wide/image"], reference()["wide/keys"].tolist()
    published = method(clip, published=True)
    mended = method(clip)
    prepared = mended.input(image)
    assert (mended.maps(prepared, keys) - published.maps(prepared, keys)).abs().max() > 0.05


def test_a_class_alone_has_another_map_than_with_a_rival(clip: Clip) -> None:
    # The softmax is over the tagged classes and background.
    es = method(clip, refine=False)
    prepared = es.input(reference()["square/image"])
    alone, beside = es.maps(prepared, [3]), es.maps(prepared, [3, 0])
    assert (alone[0] - beside[0]).abs().max() > 0.01


@pytest.mark.parametrize("grid", [(4, 19), (2, 38), (1, 1)])
def test_as_many_tokens_as_a_text_has(clip: Clip, grid: tuple[int, int]) -> None:
    # 76 patches and the class token are 77, which stops the public code.
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16 * grid[0], 16 * grid[1], 3), dtype=np.uint8)
    es = method(clip)
    maps = es.maps(es.input(image), [1, 2])
    assert maps.shape == (2, *grid)
    assert torch.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1
    if grid != (1, 1):
        assert maps.amax(dim=(1, 2)).min() > 0.99


def test_works_within_inference_mode_and_autocast(clip: Clip) -> None:
    es = method(clip)
    prepared = es.input(reference()["square/image"])
    plain = es.maps(prepared, [3, 0])
    with torch.inference_mode():
        assert torch.equal(es.maps(es.input(reference()["square/image"]), [3, 0]), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = es.maps(prepared, [3, 0])
    assert half.dtype == torch.float32
    assert 0 < (half - plain).abs().mean() < 0.1


def test_sizes() -> None:
    assert network_size((375, 500), 16, 1024) == (384, 512)
    assert network_size((1, 1), 16, 1024) == (16, 16)
    assert network_size((1500, 2000), 16, 1024) == (768, 1024)
    assert network_size((2048, 2048), 16, 1024) == (1024, 1024)
    # A factor that is not a binary fraction must not cost a row of patches.
    assert network_size((4096 * 3, 4096), 16, 1536) == (1536, 512)
    assert network_input(np.zeros((3, 5, 3), np.uint8), (16, 32)).shape == (3, 16, 32)


def test_words_of_voc_and_coco() -> None:
    words = dict(zip(VOC_CLASSES, class_words(VOC_CLASSES, {}, published=False), strict=True))
    assert words["bird"] == "bird avian" and words["dog"] == "dog"
    assert words["person"] == "person with clothes,people,human"
    assert words["tvmonitor"] == "tvmonitor screen" and words["chair"] == "chair seat"
    assert sum(name != said for name, said in words.items()) == 4
    assert len(BACKGROUND_WORDS) == 25
    assert background_words(BACKGROUND_WORDS, VOC_CLASSES) == (BACKGROUND_WORDS, ())
    coco = ["keyboard", "stop sign", "snowboard", "hair drier"]
    kept, dropped = background_words(BACKGROUND_WORDS, coco)
    assert dropped == ("keyboard", "sign") and len(kept) == 23
    assert class_words(coco, {}, published=True)[2:] == ("sknowboard", "hairdrier,blowdrier")
    assert class_words(coco, {"keyboard": "keys"}, published=False)[0] == "keys"
    assert class_words(coco, {}, published=False)[2] == "snowboard"


def test_words_for_a_class_that_is_not_there() -> None:
    with pytest.raises(UserError, match="did you mean 'bird'"):
        class_words(["bird", "cat"], {"brid": "avian"}, published=False)


def test_template_is_the_references() -> None:
    assert NAMES["prompt"] == TEMPLATE
    assert [TEMPLATE.format(word) for word in NAMES["classes"]] == NAMES["prompts"]["fg"]
