"""Settings of the stage that reads a data set."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from wsss.runtime.settings import Settings, impossible


class IndexConfig(Settings):
    """How the data set lies on disk and where its image-level tags come from."""

    format: Literal["voc", "folder", "demo", "coco"]
    """Layout under the data root: VOC devkit, plain folder, generated demo, or MS-COCO."""

    tags_from: Literal["auto", "annotations", "cls_labels"] = "auto"
    """VOC only. auto: XML and cls_labels.npy together, which must agree where both exist."""

    classes: tuple[str, ...] = ()
    """Folder only: class names in label order; empty: classes.txt, else the tags, sorted."""

    @model_validator(mode="after")
    def _fits_the_format(self) -> Self:
        if self.classes and self.format != "folder":
            raise impossible(
                f"a class list is given, but a data set of format {self.format!r} brings its own",
                key="classes",
                fix="leave index.classes out, or use index.format: folder",
            )
        if self.tags_from != "auto" and self.format != "voc":
            raise impossible(
                f"tags_from is {self.tags_from!r}, which only the VOC format knows",
                key="tags_from",
                expected="auto",
                fix="leave index.tags_from out",
            )
        seen: set[str] = set()
        for name in self.classes:
            reason = bad_class_name(name)
            if reason is None and name in seen:
                reason = "stands twice in the list"
            if reason is not None:
                raise impossible(f"class {name!r} {reason}", key="classes")
            seen.add(name)
        if len(self.classes) > MAX_CLASSES:
            raise impossible(
                f"{len(self.classes)} classes are more than a label picture can hold",
                key="classes",
                expected=f"at most {MAX_CLASSES}",
            )
        return self


MAX_CLASSES = 254
"""A label is one byte: 0 is background, 255 is "ignore", the rest are classes."""


def bad_class_name(name: str) -> str | None:
    """Say why `name` cannot name a class, or return None when it can."""
    if not name or name != name.strip():
        return "is empty or has blanks at its ends"
    if ";" in name or any(ord(letter) < 32 for letter in name):
        return "contains ';' or a control character (tags are joined by ';')"
    if name.lower() in {"background", "mean"}:
        return "is reserved: the background is label 0, and 'mean' a row of the score table"
    return None
