"""What is wrong with the names of a data set's classes, and where it is said to be."""

from __future__ import annotations

import pytest

from wsss.data.listing import MAX_CLASSES, class_problems

MANY = [f"class {number}" for number in range(MAX_CLASSES + 1)]


@pytest.mark.parametrize(
    ("file", "one", "all_of_them"),
    [("classes.txt", "classes.txt", "classes.txt"), (None, "background", "images")],
)
def test_problems_say_where(file: str | None, one: str, all_of_them: str) -> None:
    (problem,) = class_problems(["cat", "background"], file=file, root="images")
    assert (problem.file, problem.kind) == (one, "bad class name")
    (problem,) = class_problems(MANY, file=file, root="images")
    assert (problem.file, problem.kind) == (all_of_them, "too many classes")
    assert str(len(MANY)) in problem.reason


def test_as_many_as_a_label_picture_holds_and_each_once() -> None:
    assert class_problems(MANY[:-1], file="classes.txt") == []
    (problem,) = class_problems(["cat", "cow", "cat"], file="classes.txt")
    assert "'cat' stands twice" in problem.reason
