"""The card of an exported model: what it is, what it learnt from, how good it is, how to use it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from wsss import __version__
from wsss.data.index import Index
from wsss.models.model_file import Trained
from wsss.runtime.settings import to_dict
from wsss.segmentation.config import PredictionConfig

_FOUND = """\
for value in np.unique(mask[mask > 0]):
    print(classes[value - 1], f"{(mask == value).mean():.0%} of the picture")
"""
USAGE = {
    "onnx": f"""\
import json
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
picture = np.array(Image.open("picture.jpg", formats=["JPEG"]).convert("RGB"))
(probabilities,) = session.run(None, {{"image": picture[None]}})
mask = probabilities[0].argmax(axis=0)  # 0 is background, i is classes[i - 1]
{_FOUND}""",
    "torch-export": f"""\
import json
import numpy as np
import torch
from PIL import Image

notes = {{"wsss.json": ""}}
model = torch.export.load("model.pt2", extra_files=notes).module()
classes = json.loads(json.loads(notes["wsss.json"])["classes"])
picture = np.array(Image.open("picture.jpg", formats=["JPEG"]).convert("RGB"))
mask = model(torch.from_numpy(picture[None]))[0].argmax(dim=0).numpy()  # 0 is background
{_FOUND}""",
    "huggingface": """\
import wsss

model = wsss.load(".")  # this folder
result = model.predict("picture.jpg")
result.overlay().save("overlay.png")
for name, share in result.found.items():
    print(name, f"{share:.0%} of the picture")
""",
}
"""How to use a model, by the format; the code of the card, run in its folder."""


@dataclass(frozen=True)
class Origin:
    """What is known of a model besides its file.

    Attributes:
        name: Of the run, or of the file.
        method: CAM method of the run, where known.
        index: The pictures of the run, where known.
        scores: Tables of scores as text, where there are some.
        prediction: Settings of the prediction.
    """

    name: str
    method: str | None
    index: Index | None
    scores: str
    prediction: PredictionConfig


def model_card(trained: Trained[Any, Any], origin: Origin, form: str, smallest_px: int) -> str:
    """Return the card as Markdown, with the header that Hugging Face reads.

    Args:
        trained: The model.
        origin: Where it comes from.
        form: The format that it is written in, one of `USAGE`.
        smallest_px: What each side of a picture has at least; 0: it does not matter.
    """
    parts = [
        _header(form),
        f"# {origin.name}",
        _summary(trained, form, smallest_px),
        "## Use\n\n```python\n" + USAGE[form] + "```",
        "## Data\n\n" + _data(trained, origin),
        "## Scores\n\n" + _scores(origin),
        "## Settings\n\n" + _settings(trained, origin),
        "## Licence\n\nNot stated. Whoever gives this model away says under which licence: in the "
        "header of this file (`license:`) and here. The licences of the pictures and of the "
        "weights that the training began with may have a say in it.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(form: str) -> str:
    library = {"onnx": "onnx", "torch-export": "pytorch", "huggingface": "wsss"}[form]
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: image-segmentation",
        "tags: [semantic-segmentation, weakly-supervised]",
        "# license: to be stated by whoever gives this model away",
        "---",
    ]
    return "\n".join(lines)


def _summary(trained: Trained[Any, Any], form: str, smallest_px: int) -> str:
    settings = trained.settings
    text = (
        f"Semantic segmentation of pictures into background and {len(trained.classes)} "
        f"{'class' if len(trained.classes) == 1 else 'classes'}: a `{settings.head.name}` head on "
        f"`{settings.backbone.name}`, trained and written by wsss {__version__}. "
    )
    if form == "huggingface":
        return text + "`model.safetensors` has weights, settings and classes, `config.json` too."
    return (
        text + "Input: pictures as uint8 RGB, (pictures, height, width, 3), upright, of any size "
        f"from {smallest_px} px a side. Output: probabilities, float32, (pictures, 1 + classes, "
        "height, width), background first. Normalisation, padding to multiples of "
        f"{trained.network.padding_stride} px, resizing and softmax are inside. One scale, no "
        "mirror images, no CRF, in float32: scores below that were taken otherwise are higher or "
        "lower."
    )


def _data(trained: Trained[Any, Any], origin: Origin) -> str:
    learnt = {
        "pseudo": "pseudo-labels made from image-level tags",
        "mixed": "masks where there were some, else pseudo-labels made from image-level tags",
        "ground_truth": "masks",
    }[trained.settings.labels]
    method = "" if origin.method is None else f" (CAM method `{origin.method}`)"
    text = f"Learnt from {learnt}{method}.\n\n"
    if origin.index is None:
        return text + "Classes: " + ", ".join(trained.classes) + "."
    index = origin.index
    train, split = index.training_set(), origin.prediction.split
    held = index.subset(split).records if split in index.sets else ()
    trained_on, held_out = (
        Counter(tag for each in records for tag in each.tags) for records in (train.records, held)
    )
    rows = [f"| {name} | {trained_on[name]} | {held_out[name]} |" for name in trained.classes]
    rows.insert(0, f"| *all pictures* | {len(train.records)} | {len(held)} |")
    return text + "\n".join([f"| tagged | train | {split} |", "|---|---:|---:|", *rows])


def _scores(origin: Origin) -> str:
    if not origin.scores:
        return "None were taken."
    return f"In percent.\n\n```\n{origin.scores}\n```"


def _settings(trained: Trained[Any, Any], origin: Origin) -> str:
    values = {"segmentation": to_dict(trained.settings), "prediction": to_dict(origin.prediction)}
    return "```json\n" + json.dumps(values, indent=2, ensure_ascii=False) + "\n```"
