from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest

from wsss.errors import UserError
from wsss.runtime.settings import (
    check,
    field_docs,
    from_dict,
    json_schema,
    nearest,
    read_settings,
    to_dict,
)


@dataclass(frozen=True)
class Inner:
    depth: int = 3
    """How deep."""
    name: str = "unet"  # What it is called.

    def __post_init__(self) -> None:
        if self.depth > 9:
            raise UserError(f"depth is {self.depth}", where="depth", expected="at most 9")


@dataclass(frozen=True)
class Outer:
    learning_rate: float = 0.1
    """Step size."""
    method: Literal["acr", "cam"] = "acr"
    scales: tuple[float, ...] = (1.0,)
    pair: tuple[int, int] = (1, 2)
    limit: int | None = None
    flip: bool = True
    inner: Inner = field(default_factory=Inner)


def test_round_trip_through_json() -> None:
    built = from_dict(
        Outer,
        {"learning_rate": 1, "scales": [0.5, 2], "limit": 4, "inner": {"depth": 5}},
        where="runs.voc.cam",
    )
    assert built == Outer(learning_rate=1.0, scales=(0.5, 2.0), limit=4, inner=Inner(depth=5))
    assert isinstance(built.learning_rate, float)
    again = from_dict(Outer, json.loads(json.dumps(to_dict(built))), where="file")
    assert again == built


@pytest.mark.parametrize(
    ("values", "place", "words"),
    [
        ({"learning_rat": 1}, "cam.learning_rat", ["learning_rate", "did you mean"]),
        ({"inner": {"dept": 1}}, "cam.inner.dept", ["'depth'"]),
        ({"learning_rate": "fast"}, "cam.learning_rate", ["a number", "'fast'"]),
        ({"learning_rate": True}, "cam.learning_rate", ["a number"]),
        ({"inner": {"depth": 2.5}}, "cam.inner.depth", ["a whole number", "2.5"]),
        ({"inner": {"depth": True}}, "cam.inner.depth", ["a whole number"]),
        ({"inner": 3}, "cam.inner", ["a mapping of settings"]),
        ({"method": "acrr"}, "cam.method", ["acr, cam", "'acr'?"]),
        ({"scales": 1.0}, "cam.scales", ["a list"]),
        ({"scales": [1.0, "x"]}, "cam.scales[1]", ["a number"]),
        ({"pair": [1, 2, 3]}, "cam.pair", ["a list of 2"]),
        ({"limit": "many"}, "cam.limit", ["a whole number"]),
        ({"flip": 1}, "cam.flip", ["true or false"]),
        ({"flip": None}, "cam.flip", ["null is not true or false"]),
    ],
)
def test_errors_name_place_and_expectation(
    values: dict[str, Any], place: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(Outer, values, where="cam")
    assert caught.value.where == place
    for word in words:
        assert word in str(caught.value)
    # An override alone is judged the same way.
    with pytest.raises(UserError) as caught:
        check(Outer, values, where="cam")
    assert caught.value.where == place


def test_impossible_value_gets_the_place_in_the_file() -> None:
    with pytest.raises(UserError) as caught:
        from_dict(Outer, {"inner": {"depth": 12}}, where="runs.voc.cam")
    assert caught.value.where == "runs.voc.cam.inner.depth"
    assert caught.value.expected == "at most 9"


def test_check_leaves_what_depends_on_the_whole_to_the_whole() -> None:
    check(Outer, {"inner": {"depth": 12}}, where="runs.voc.cam")


def test_scientific_notation_that_yaml_takes_for_text() -> None:
    assert from_dict(Outer, {"learning_rate": "1e-4"}, where="x").learning_rate == 1e-4
    with pytest.raises(UserError):
        from_dict(Outer, {"learning_rate": "1e"}, where="x")


def test_missing_required_setting() -> None:
    @dataclass(frozen=True)
    class Required:
        format: Literal["voc", "folder"]

    with pytest.raises(UserError, match="'format' is missing") as caught:
        from_dict(Required, {}, where="runs.a.index")
    assert caught.value.where == "runs.a.index.format"


def test_descriptions_from_strings_and_comments() -> None:
    assert field_docs(Inner) == {"depth": "How deep.", "name": "What it is called."}
    assert field_docs(Outer)["flip"] == ""


def test_schema_agrees_with_the_loader() -> None:
    schema = json_schema(Outer)
    assert schema["properties"]["learning_rate"]["description"] == "Step size."
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(to_dict(Outer()))
    for wrong in ({"learning_rat": 1}, {"method": "x"}, {"pair": [1]}, {"flip": "yes"}):
        assert not validator.is_valid(wrong)


def test_nearest() -> None:
    assert nearest("learning_rat", ["momentum", "learning_rate"]) == "learning_rate"
    assert nearest("zzz", ["momentum"]) is None


def test_read_settings_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cam.json"
    path.write_text('{"flip": "no"}')
    with pytest.raises(UserError) as caught:
        read_settings(Outer, path)
    assert caught.value.where == f"{path}.flip"
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_settings(Outer, path)
