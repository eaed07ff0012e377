"""Registries: settings as the union over records, with what has no effect left out or refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest

from wsss.errors import UserError
from wsss.models.config import BackboneConfig
from wsss.models.heads.deeplab_config import V2Settings
from wsss.runtime.plugins import VARIABLE, load_plugins
from wsss.runtime.registry import Record, Registry, chosen_modules, load_code, parse_kind, used
from wsss.runtime.settings import Count, Settings, check, parse, replace, to_dict
from wsss.segmentation.config import SegmentationConfig


class Shape(Settings):
    kind: str
    colour: str = "red"
    """Its colour."""


class Circle(Shape):
    kind: Literal["circle"] = "circle"
    """Round."""
    radius: Count = 1
    """Half its width."""


class Square(Shape):
    kind: Literal["square"] = "square"
    """Not round."""
    side: Count = 2
    """Its width."""
    corners: Literal["sharp", "blunt"] = "sharp"
    """What they are like."""
    rounding: int = 3
    """How blunt."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        return {} if values.get("corners") == "blunt" else {"rounding": "corners are sharp"}


def registry(default: str | None = "circle") -> Registry[Record]:
    # A package without modules whose names end so: nothing else registers.
    shapes: Registry[Record] = Registry(
        "shape", about="A shape.", key="kind", package="wsss.figures", suffix="_x", default=default
    )
    shapes.register(Record("square", "not round", Square))
    shapes.register(Record("circle", "round", Circle))
    return shapes


SHAPES = registry()


class Page(Settings):
    title: str = ""
    """What it says."""
    shape: Annotated[Shape, SHAPES] = Circle()
    """What it shows."""


def test_the_key_chooses_the_class() -> None:
    assert list(SHAPES.entries()) == ["circle", "square"]
    assert SHAPES.parse({"side": 5, "kind": "square"}, where="s") == Square(side=5)
    assert SHAPES.parse({}, where="s") == Circle()
    assert parse_kind(SHAPES, {"radius": 2}, where="s") == Circle(radius=2)
    page = parse(Page, {"title": "a", "shape": {"kind": "square", "side": 5}}, where="p")
    assert page == Page(title="a", shape=Square(side=5))
    assert parse(Page, to_dict(page), where="p") == page
    assert replace(page, shape=Circle(radius=7)).shape == Circle(radius=7)


@pytest.mark.parametrize(
    ("shape", "place", "words"),
    [
        ({"kind": "cirle"}, "kind", ["unknown shape 'cirle'", "did you mean 'circle'"]),
        ({"kind": 3}, "kind", ["unknown shape '3'"]),
        ({"kind": "square", "radius": 1}, "radius", ["unknown key 'radius'"]),
        ({"kind": "square", "side": 0}, "side", ["side is 0", "1 or more"]),
        ({"radius": "wide"}, "radius", ["a whole number"]),
        (3, "", ["3 (int) is not a mapping of settings"]),
    ],
)
def test_errors_name_the_place(shape: Any, place: str, words: list[str]) -> None:
    for build, where in (
        (lambda: SHAPES.parse(shape, where="page.shape"), "page.shape"),
        (lambda: parse(Page, {"shape": shape}, where="page"), "page.shape"),
    ):
        with pytest.raises(UserError) as caught:
            build()
        assert caught.value.where == (f"{where}.{place}" if place else where)
        for word in words:
            assert word in str(caught.value)


def test_without_a_default_the_key_is_needed() -> None:
    with pytest.raises(UserError, match="'kind' is missing") as caught:
        registry(default=None).parse({"side": 1}, where="s")
    assert (caught.value.where, caught.value.expected) == ("s.kind", "one of: circle, square")


def test_an_incomplete_section_is_for_any_record() -> None:
    for values in ({"side": 1, "radius": 2}, {"kind": "circle", "side": 3}):
        SHAPES.check(values, where="s")
        check(Page, {"shape": values}, where="p")
    with pytest.raises(UserError, match="did you mean 'side'") as caught:
        check(Page, {"shape": {"sied": 1}}, where="p")
    assert caught.value.where == "p.shape.sied"
    with pytest.raises(UserError, match="1 or more"):
        SHAPES.check({"radius": 0}, where="s")


def test_what_is_inherited_without_effect_is_left_out() -> None:
    merged = {"kind": "square", "radius": 3, "side": 4, "rounding": 5}
    assert used(SHAPES, merged, {"side": 4}, where="s") == {"kind": "square", "side": 4}
    blunt = merged | {"corners": "blunt"}
    assert used(SHAPES, blunt, {}, where="s")["rounding"] == 5
    inner = used(Page, {"title": "a", "shape": merged}, {"title": "a"}, where="p")
    assert inner == {"title": "a", "shape": {"kind": "square", "side": 4}}


def test_ones_own_without_effect_is_an_error() -> None:
    values = {"kind": "square", "radius": 3}
    with pytest.raises(UserError, match="the shape 'square' has no setting 'radius'") as caught:
        used(Page, {"shape": values}, {"shape": {"radius": 3}}, where="p")
    assert caught.value.where == "p.shape.radius"
    assert "p.shape.kind to circle" in str(caught.value)
    values = {"kind": "square", "rounding": 3}
    with pytest.raises(UserError, match="'rounding' has no effect: corners are sharp"):
        used(SHAPES, values, values, where="s")


def test_schema_has_the_keys_of_all_records() -> None:
    schema = Page.model_json_schema()["properties"]["shape"]
    assert set(schema["properties"]) == {"kind", "colour", "radius", "side", "corners", "rounding"}
    assert schema["properties"]["kind"] == {
        "enum": ["circle", "square"],
        "default": "circle",
        "description": "`circle` (round), `square` (not round).",
    }
    validator = jsonschema.Draft202012Validator(Page.model_json_schema())
    assert validator.is_valid({"shape": {"kind": "square", "radius": 1}})
    assert not validator.is_valid({"shape": {"height": 1}})


def test_two_of_one_name_are_an_error() -> None:
    class Mine(Circle):
        pass

    Mine.__module__ = "my_plugin"
    with pytest.raises(UserError, match="two of the shape 'circle'") as caught:
        registry().register(Record("circle", "again", Mine))
    assert caught.value.where == f"{Circle.__module__} and my_plugin"


def test_code_is_loaded_by_name() -> None:
    assert load_code("json:dumps")([1]) == "[1]"


# ----- plug-ins


def test_a_plugin_is_a_module_of_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "plugin_of_this_test.py"
    path.write_text("VALUE = 3\n")
    code = (
        "import multiprocessing, sys\n"
        "from wsss.runtime.plugins import load_named_plugins\n"
        "if __name__ == '__main__':\n"
        "    load_named_plugins()\n"
        "    print(sys.modules['plugin_of_this_test'].VALUE)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={VARIABLE: str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "3\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("not_there.py", None, "is not there"),
        ("json.py", "", "another module 'json'"),
        ("broken_plugin.py", "import nothing_of_this_name", "ModuleNotFoundError"),
        ("syntax_plugin.py", "def", "SyntaxError"),
        ("leaving_plugin.py", "import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_plugins_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None, words: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_plugins([tmp_path / name])
    assert caught.value.where == str(tmp_path / name)


def test_a_backbone_of_its_own_chooses_its_code() -> None:
    own = BackboneConfig(name="resnet38", weights="none", output_stride=8)
    settings = SegmentationConfig(backbone=own, head=V2Settings())
    assert "wsss.models.resnet38" in chosen_modules(settings)
    assert not any("resnet38" in name for name in chosen_modules(SegmentationConfig()))
