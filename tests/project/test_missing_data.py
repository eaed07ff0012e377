"""What is said of a data set that is not there: what it is, and where to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.project.config import resolve


@pytest.mark.parametrize(
    ("format_name", "what", "place"),
    [
        ("voc", "PASCAL VOC 2012", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"),
        ("coco", "MS-COCO 2014", "https://cocodataset.org"),
        ("folder", "the data set", ""),
    ],
)
def test_what_is_missing_and_where_it_is_got(
    tmp_path: Path, format_name: str, what: str, place: str
) -> None:
    runs = {"a": {"root": "own", "index": {"format": format_name}}}
    config = resolve({"roots": {"own": str(tmp_path / "none")}, "runs": runs})
    with pytest.raises(UserError) as caught:
        config.existing_root("a")
    expected = caught.value.expected or ""
    assert expected.startswith(f"{tmp_path / 'none'}: {what}") and place in expected
