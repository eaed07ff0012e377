"""The words by which CLIP-ES (CVPR 2023) tells CLIP of classes and of background."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from wsss.errors import UserError

TEMPLATE = "a clean origami {}."

CLASS_WORDS: Mapping[str, str] = {
    # PASCAL VOC; a comma is part of the prompt.
    "bird": "bird avian",
    "chair": "chair seat",
    "person": "person with clothes,people,human",
    "tvmonitor": "tvmonitor screen",
    # MS-COCO, by its own names. CLIP-ES calls some of them as VOC does.
    "airplane": "aeroplane",
    "backpack": "backpack,bag",
    "baseball glove": "glove",
    "couch": "sofa",
    "dining table": "diningtable",
    "hair drier": "hairdrier,blowdrier",
    "handbag": "handbag,purse",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "remote": "remote control",
    "spoon": "dessertspoon",
    "tie": "necktie",
    "tv": "tvmonitor screen",
    "umbrella": "umbrella,parasol",
}
"""Words in place of a class's name, as published; other classes go by their names."""

MISSPELT: Mapping[str, str] = {"snowboard": "sknowboard"}
"""What the public code calls a class by mistake: its numbers were computed so."""

BACKGROUND_WORDS = (
    *("ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river"),
    *("sea", "railway", "railroad", "keyboard", "helmet", "cloud", "house", "mountain", "ocean"),
    *("road", "rock", "street", "valley", "bridge", "sign"),
)
"""What is seldom tagged and often there, as published for VOC."""


def class_words(
    classes: Sequence[str], chosen: Mapping[str, str], *, published: bool
) -> tuple[str, ...]:
    """Return the words for each class.

    Args:
        classes: Class names, background not among them.
        chosen: Class name -> words, in place of those built in.
        published: Whether to keep the public code's misspelling.

    Raises:
        UserError: `chosen` names a class that there is not.
    """
    for name in chosen:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            raise UserError(
                f"cam.prompts has words for {name!r}, which is no class of this data set",
                where=f"cam.prompts.{name}",
                expected="one of " + ", ".join(classes),
                fix=f"did you mean {near[0]!r}?" if near else None,
            )
    known = {**CLASS_WORDS, **(MISSPELT if published else {})}
    # To CLIP, whose tokens have no capitals, `Person` and `person` are one name.
    return tuple(chosen.get(name, known.get(name.lower(), name)) for name in classes)


def background_words(
    words: Sequence[str], classes: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part background words into those that stay and those that are classes.

    A word is a class if it is a class's name or the last word of one, as `sign` is of `stop sign`;
    so COCO loses `keyboard` and `sign`, the two that CLIP-ES leaves out for it.

    Args:
        words: Background words.
        classes: Class names.

    Returns:
        The words that stay and those that are dropped, in their order.
    """
    names = {name.lower() for name in classes}
    taken = names | {name.split()[-1] for name in names if name.split()}
    kept = tuple(word for word in words if word.lower() not in taken)
    return kept, tuple(word for word in words if word.lower() in taken)
