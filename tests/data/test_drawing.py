"""What is drawn beside pictures: squares of the labels' colours, and texts that hide none."""

from __future__ import annotations

import numpy as np

from wsss.data.drawing import LINE_PX, legend
from wsss.data.images import voc_palette
from wsss.data.lettering import font, shortened


def _squares(strip: np.ndarray, label: int) -> np.ndarray:
    return np.argwhere((strip == voc_palette()[label]).all(axis=2))


def test_texts_of_a_legend_stand_beside_their_squares() -> None:
    strip = legend(300, [(1, "cat"), (2, "dog")])
    assert strip.shape == (LINE_PX, 300, 3)
    ends = []
    for label in (1, 2):
        places = _squares(strip, label)
        (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0)
        # Whole, with a black frame, and white around it.
        assert len(places) == (bottom - top + 1) * (right - left + 1) > 50
        frame = strip[top - 1 : bottom + 2, left - 1 : right + 2].astype(int)
        assert not frame[[0, -1]].any() and not frame[:, [0, -1]].any()
        assert (strip[:, right + 2] == 255).all() and (strip[:, left - 2] == 255).all()
        ends.append((left, right))
    (first, second) = ends
    # The text of the first lies between the two.
    assert (strip[:, first[1] + 2 : second[0] - 2] < 128).any()


def test_a_legend_breaks_where_it_would_be_wider() -> None:
    entries = [(label, f"class number {label}") for label in range(1, 6)]
    strip = legend(150, entries)
    assert strip.shape == (5 * LINE_PX, 150, 3)
    for row, (label, _) in enumerate(entries):
        places = _squares(strip, label)
        assert (places[:, 0] // LINE_PX == row).all() and len(places) > 50
    assert legend(150, []).shape == (0, 150, 3)


def test_of_a_text_as_much_is_kept_as_fits() -> None:
    text, letters = "a title that is long", font(13)
    assert shortened(text, letters, letters.getlength(text)) == text
    for count in (1, 5, 12):
        cut = f"{text[:count]}..."
        assert shortened(text, letters, letters.getlength(cut)) == cut
    assert shortened(text, letters, 0) == "..."
