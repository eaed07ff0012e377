from __future__ import annotations

import json
import math
from typing import Any, Literal, Self

import jsonschema
import pytest
from pydantic import Field, create_model, model_validator

from wsss.errors import UserError
from wsss.runtime.settings import (
    Count,
    Fraction,
    Number,
    Positive,
    Seed,
    Settings,
    check,
    impossible,
    nearest,
    parse,
    replace,
    to_dict,
)


class Inner(Settings):
    depth: int = 3
    """How deep."""
    name: str = "unet"
    """What it is called."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _not_too_deep(self) -> Self:
        if self.depth > 9:
            raise impossible(f"depth is {self.depth}", key="depth", expected="at most 9")
        return self


class Outer(Settings):
    learning_rate: Positive = 0.1
    """Step size."""
    method: Literal["acr", "cam"] = "acr"
    scales: tuple[Number, ...] = Field((1.0,), min_length=1)
    pair: tuple[int, int] = (1, 2)
    limit: Count | None = None
    share: Fraction = 0.5
    flip: bool = True
    inner: Inner = Inner()


def test_round_trip_through_json() -> None:
    built = parse(
        Outer,
        {"learning_rate": 1, "scales": [0.5, 2], "limit": 4, "inner": {"depth": 5}},
        where="runs.voc.cam",
    )
    assert built == Outer(learning_rate=1.0, scales=(0.5, 2.0), limit=4, inner=Inner(depth=5))
    assert isinstance(built.learning_rate, float)
    again = parse(Outer, json.loads(json.dumps(to_dict(built))), where="file")
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
        ({"pair": [1, 2, 3]}, "cam.pair", ["a list of at most 2"]),
        ({"limit": "many"}, "cam.limit", ["a whole number"]),
        ({"flip": 1}, "cam.flip", ["true or false"]),
        ({"flip": None}, "cam.flip", ["null is not true or false"]),
        ({"learning_rate": 0}, "cam.learning_rate", ["learning_rate is 0", "above 0"]),
        ({"share": 1.5}, "cam.share", ["share is 1.5", "0 to 1"]),
        ({"limit": 0}, "cam.limit", ["1 or more"]),
        ({"learning_rate": math.inf}, "cam.learning_rate", ["a finite number"]),
        ({"share": math.nan}, "cam.share", ["a finite number"]),
        ({"scales": [math.nan]}, "cam.scales[0]", ["a finite number"]),
        ({"inner": {"seed": 2**64}}, "cam.inner.seed", ["seed is 18446744073709551616"]),
        ({"scales": []}, "cam.scales", ["scales is []", "at least one"]),
    ],
)
def test_errors_name_place_and_expectation(
    values: dict[str, Any], place: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        parse(Outer, values, where="cam")
    assert caught.value.where == place
    for word in words:
        assert word in str(caught.value)
    # An override alone is judged the same way.
    with pytest.raises(UserError) as caught:
        check(Outer, values, where="cam")
    assert caught.value.where == place


def test_impossible_value_gets_the_place_in_the_file() -> None:
    with pytest.raises(UserError) as caught:
        parse(Outer, {"inner": {"depth": 12}}, where="runs.voc.cam")
    assert caught.value.where == "runs.voc.cam.inner.depth"
    assert caught.value.expected == "at most 9"


def test_check_leaves_what_depends_on_the_whole_to_the_whole() -> None:
    check(Outer, {"inner": {"depth": 12}}, where="runs.voc.cam")


def test_scientific_notation_that_yaml_takes_for_text() -> None:
    assert parse(Outer, {"learning_rate": "1e-4"}, where="x").learning_rate == 1e-4
    with pytest.raises(UserError):
        parse(Outer, {"learning_rate": "1e"}, where="x")


class Required(Settings):
    format: Literal["voc", "folder"]


def test_missing_required_setting() -> None:
    with pytest.raises(UserError, match="'format' is missing") as caught:
        parse(Required, {}, where="runs.a.index")
    assert caught.value.where == "runs.a.index.format"
    assert caught.value.expected == "one of: voc, folder"
    check(Required, {}, where="runs.a.index")


def test_what_code_builds_is_judged_the_same_way() -> None:
    assert Outer(scales=(0.5,), inner=Inner(depth=5)).inner.depth == 5
    with pytest.raises(UserError, match="at most 9") as caught:
        Inner(depth=12)
    assert caught.value.where == "depth"
    with pytest.raises(UserError, match="above 0"):
        replace(Outer(), learning_rate=-1.0)
    assert replace(Outer(), scales=[0.5, 2.0]).scales == (0.5, 2.0)
    with pytest.raises(UserError, match=r"scales is \(\)"):
        replace(Outer(), scales=[])
    changed = replace(Outer(flip=False), inner=Inner(depth=1))
    assert changed == Outer(flip=False, inner=Inner(depth=1))


def test_descriptions_are_the_strings_below() -> None:
    entries = Inner.model_json_schema()["properties"]
    described = {name: entry.get("description") for name, entry in entries.items()}
    assert described == {"depth": "How deep.", "name": "What it is called.", "seed": None}


def test_descriptions_come_with_what_is_inherited_or_given() -> None:
    class Nearer(Inner):
        name: str = "other"
        """Another one,
        in two lines."""
        shown: int = Field(1, description="Given.")
        """Not this."""

    made = create_model("Made", __base__=Nearer, inner=(Inner, ...))
    schema = made.model_json_schema()
    described = {name: entry.get("description") for name, entry in schema["properties"].items()}
    assert described == {
        "depth": "How deep.",
        "name": "Another one,\nin two lines.",
        "seed": None,
        "shown": "Given.",
        "inner": None,
    }
    assert schema["$defs"]["Inner"]["properties"]["depth"]["description"] == "How deep."


def test_schema_agrees_with_the_loader() -> None:
    schema = Outer.model_json_schema()
    assert schema["properties"]["learning_rate"]["description"] == "Step size."
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(to_dict(Outer()))
    for wrong in ({"learning_rat": 1}, {"method": "x"}, {"pair": [1]}, {"flip": "yes"}):
        assert not validator.is_valid(wrong)


def test_nearest() -> None:
    assert nearest("learning_rat", ["momentum", "learning_rate"]) == "learning_rate"
    assert nearest("zzz", ["momentum"]) is None
