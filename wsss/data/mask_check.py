"""Whether masks say what the tags say; where most do not, their numbers stand for something else.

Scores against such masks look like any others, so they are refused when the masks are listed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.errors import UserError, listed

# A class of fewer pictures can be drawn otherwise by chance.
MIN_PICTURES = 3
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture is tagged with, and what its mask shows.

    Attributes:
        file: The mask, relative to the data root.
        tags: Labels of its tags, 1.. in the classes' order.
        labels: Labels in its mask, without 0 and 255.
        ignores: Whether 255 is in the mask.
        colours: What the colours of those labels stand for in VOC's colour map; None: some are
            not in it, or there are no colours.
    """

    file: str
    tags: frozenset[int]
    labels: frozenset[int]
    ignores: bool = False
    colours: frozenset[int] | None = None

    @property
    def contradicts(self) -> bool:
        """Whether the mask shows what is not tagged, or nothing of what is."""
        return bool(self.labels - self.tags) or not self.labels


def class_table(classes: Sequence[str]) -> str:
    """Return a line that says what each label stands for."""
    named = [f"{label} = {name}" for label, name in enumerate(classes, start=1)]
    return f"labels: {', '.join(['0 = background', *named, '255 = ignore'])}"


def check_tags(
    seen: Iterable[Seen], classes: Sequence[str], root: Path, *, refuse: bool = True
) -> None:
    """Compare masks with tags: print what a few masks have otherwise, refuse where most have.

    Pictures without tags say nothing.

    Args:
        seen: The masks.
        classes: Class names without background.
        root: Data root.
        refuse: Off for so few masks of a data set that they say nothing of how it numbers its
            classes: whatever they have otherwise is printed.

    Raises:
        UserError: Most masks contradict the tags, or most of a class with at least three
            pictures; or palettes are in another order than their colours.
    """
    tagged = [each for each in seen if each.tags]
    wrong = [each for each in tagged if each.contradicts]
    by_colour = [each for each in wrong if each.colours == each.tags]
    astray = _classes_astray(tagged)
    if not refuse:
        _warn([each for each in tagged if each.labels != each.tags], len(tagged), classes)
        return
    if by_colour and len(by_colour) * 2 > len(wrong):
        cause = (
            "the colours are right and the numbers behind them are not: a program has put the "
            "palette into another order"
        )
        fix = "save these masks in colour (RGB), which are read by VOC's colour map"
    elif len(wrong) * 2 > len(tagged) or astray:
        cause = _cause(tagged, classes)
        fix = "give the masks these numbers, or list the classes in the masks' order in classes.txt"
        fix += " where the data set has one"
    else:
        _warn([each for each in tagged if each.labels != each.tags], len(tagged), classes)
        return
    shown = by_colour or [each for each in wrong if not astray or each.tags & astray]
    lines = [f"{len(wrong)} of {len(tagged)} masks contradict the tags of their pictures"]
    lines += [f"  - {_said(each, classes)}" for each in shown[:_EXAMPLES]]
    if astray:
        names = listed((classes[label - 1] for label in sorted(astray)), 10)
        lines.append(f"  most pictures of these classes have other labels: {names}")
    lines.append(f"  likely cause: {cause}")
    raise UserError("\n".join(lines), where=root, expected=class_table(classes), fix=fix)


def _said(each: Seen, classes: Sequence[str]) -> str:
    tags = ", ".join(f"{label} = {classes[label - 1]}" for label in sorted(each.tags))
    found = ", ".join(map(str, sorted(each.labels))) or "no label but 0 and 255"
    return f"{each.file} has {found}; its picture is tagged {tags}"


def _warn(others: Sequence[Seen], total: int, classes: Sequence[str]) -> None:
    if others:
        lines = [f"warning: {len(others)} of {total} masks differ from the tags of their pictures"]
        lines += [f"  - {_said(each, classes)}" for each in others[:50]]
        if len(others) > 50:
            lines.append(f"  - ... and {len(others) - 50} more")
        print("\n".join(lines), file=sys.stderr)


def _classes_astray(tagged: Sequence[Seen]) -> frozenset[int]:
    """Return the classes whose pictures mostly have a label that is not theirs instead."""
    pictures: Counter[int] = Counter()
    astray: Counter[int] = Counter()
    for each in tagged:
        pictures.update(each.tags)
        if each.labels - each.tags:
            astray.update(each.tags - each.labels)
    return frozenset(
        label
        for label, count in astray.items()
        if pictures[label] >= MIN_PICTURES and count * 2 > pictures[label]
    )


def _cause(tagged: Sequence[Seen], classes: Sequence[str]) -> str:
    """Return what explains more masks than anything else, and most of them."""
    order = _other_order(tagged)
    named = (f"{label} for {classes[tag - 1]}" for label, tag in sorted(order.items()))
    single = len({label for each in tagged for label in each.labels}) == 1 < len(classes)
    causes: dict[str, Callable[[Seen], bool]] = {
        "255 is taken for the thing, but here it means 'ignore' (masks of 0 and 255)": (
            lambda each: each.ignores and not each.labels
        ),
        "off by one: every label is one too low (the first class is 1, not 0)": (
            lambda each: each.labels == {tag - 1 for tag in each.tags} - {0}
        ),
        "off by one: every label is one too high (the first class is 1)": (
            lambda each: each.labels == {tag + 1 for tag in each.tags}
        ),
        "they tell things from background, but not which class (a single label in all)": (
            lambda each: single
        ),
        f"the classes are numbered in another order: {listed(named, 20)}": (
            lambda each: {order.get(label) for label in each.labels} == each.tags
        ),
    }
    fitting = {cause: sum(map(fits, tagged)) for cause, fits in causes.items()}
    likely = max(fitting, key=lambda cause: fitting[cause])
    if fitting[likely] * 2 > len(tagged):
        return likely
    return "none that is known; are these the masks of these pictures?"


def _other_order(tagged: Sequence[Seen]) -> dict[int, int]:
    """Return label -> class, each label for the class that it comes with most often."""
    together: Counter[tuple[int, int]] = Counter()
    labels: Counter[int] = Counter()
    tags: Counter[int] = Counter()
    for each in tagged:
        labels.update(each.labels)
        tags.update(each.tags)
        together.update((label, tag) for label in each.labels for tag in each.tags)
    # How many pictures have both, of those that have one of them.
    pairs = sorted(
        together, key=lambda p: (-together[p] / (labels[p[0]] + tags[p[1]] - together[p]), p)
    )
    order: dict[int, int] = {}
    for label, tag in pairs:
        if label not in order and tag not in order.values():
            order[label] = tag
    return order
