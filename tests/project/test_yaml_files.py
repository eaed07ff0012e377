"""YAML as people and strangers write it: names are texts, and 30 lines take no gigabytes."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.project.config import load_config
from wsss.project.yaml_files import parse_yaml, read_yaml

RUNS = """\
roots: {own: data}
runs:
  2012: {root: own, index: {format: folder}}
  on: {extends: 2012}
  2024-05-01: {extends: "on"}
"""


def test_names_are_the_texts_that_stand_there(tmp_path: Path) -> None:
    assert parse_yaml("2012: 2012\non: on\n~: ~\n1.10: 1.10\n0x10: 1\n", "x") == {
        **{"2012": 2012, "on": True, "~": None, "1.10": 1.1, "0x10": 1},
    }
    assert parse_yaml("a: {<<: {2012: 1}}", "x") == {"a": {"2012": 1}}
    dated = parse_yaml("2024-05-01: 2024-05-01", "x")
    assert dated == {"2024-05-01": datetime.date(2024, 5, 1)}
    with pytest.raises(UserError, match="the key '2012' stands twice"):
        parse_yaml("2012: 1\n'2012': 2\n", "x")


def test_runs_may_be_called_so(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(RUNS.replace("extends: 2012", 'extends: "2012"'))
    config = load_config(folder=tmp_path)
    assert [*config.runs] == ["2012", "on", "2024-05-01"]
    assert config.run("2024-05-01").parents == ("on", "2012")
    # As a value it is a number still, and that is said.
    (tmp_path / "config.yaml").write_text(RUNS)
    with pytest.raises(UserError, match=r"2012 \(int\) is not a text"):
        load_config(folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a: "x\\0y"', "is no text"),
        ('"a\\0": 1', "is no text"),
        ('a: "\\ud800"', "is no text"),
        ("? [1, 2]\n: 3", "a list or a mapping stands for a name"),
        ("? {a: 1}\n: 3", "a list or a mapping stands for a name"),
        ("a: 2024-13-45", "month must be in"),
        ("a: !!int x", "invalid literal"),
        ("a: !!float ''", "not valid YAML"),
        ("a: !!timestamp 3", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (f"a: {'9' * 5000}", "4300 digits"),
        ("a: &a [*a]", "a value holds itself"),
        ("a: &a {b: *a}", "a value holds itself"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 5000, "nested too deeply"),
        ("- 1", "top level is not a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_yaml(path)
    assert "config.yaml" in str(caught.value)


@pytest.mark.parametrize("content", ["roots: {löwe: x}".encode("latin-1"), b"a: \xff\xfe", b"\xff"])
def test_another_encoding_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte \d+"):
        load_config(folder=tmp_path)


@pytest.mark.parametrize(
    "form", ["m{i}: &m{i} {{<<: [*m{j}, *m{j}]}}", "m{i}: &m{i} [*m{j}, *m{j}]"]
)
def test_aliases_of_aliases_are_not_written_out(form: str) -> None:
    lines = ["m0: &m0 {a: 1, b: 2}", *(form.format(i=i, j=i - 1) for i in range(1, 40))]
    start = time.process_time()
    with pytest.raises(UserError, match="more than 100000 values"):
        parse_yaml("\n".join(lines), "bomb.yaml")
    assert time.process_time() - start < 5
    assert len(parse_yaml("\n".join(lines[:10]), "small.yaml")) == 10
