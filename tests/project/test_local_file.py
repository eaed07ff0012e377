"""config.local.yaml: what is written into it leaves the rest, and what it says leaves the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from wsss.errors import UserError
from wsss.project.config import load_config
from wsss.project.local_file import update_local
from wsss.project.yaml_files import read_yaml

TEXT = """\
# Mine.
compute: {device: cpu, threads: 1}   # slow machine

runs:
  mine:
    root: mine  # the photographs
    cam: {learning_rate: 1e-4}
    pseudo_labels: {background: 0.3}
"""


def test_comments_order_and_other_values_stay(tmp_path):
    path = tmp_path / "config.local.yaml"
    path.write_text(TEXT)
    update_local(path, {"runs": {"mine": {"pseudo_labels": {"background": 0.41}}}})
    assert path.read_text() == TEXT.replace("0.3", "0.41")
    update_local(path, {"roots": {"mine": "/data/mine"}, "runs": {"other": {"extends": "mine"}}})
    values = read_yaml(path)
    assert values["roots"] == {"mine": "/data/mine"}
    assert values["runs"]["other"] == {"extends": "mine"}
    assert values["runs"]["mine"]["cam"] == {"learning_rate": 1e-4}
    for line in ("# Mine.", "# slow machine", "# the photographs"):
        assert line in path.read_text()


@pytest.mark.parametrize("text", [None, "", "# only a remark\n"])
def test_a_file_without_settings_gets_them(tmp_path, text):
    path = tmp_path / "config.local.yaml"
    if text is not None:
        path.write_text(text)
    update_local(path, {"roots": {"mine": "a b"}})
    assert yaml.safe_load(path.read_text()) == {"roots": {"mine": "a b"}}
    assert "remark" not in (text or "") or "# only a remark" in path.read_text()


@pytest.mark.parametrize("text", [None, "# Mine.\ncompute: {threads: 1}\n"])
def test_texts_that_yaml_takes_for_something_else_are_quoted(tmp_path, text):
    path = tmp_path / "config.local.yaml"
    if text is not None:
        path.write_text(text)
    names = ["on", "yes", "~", "1", "1:30", "2024-01-01", "1e4", "1_0", "null", "012", "a b", ""]
    runs = {name or "x": {"root": name, "index": {"classes": names}} for name in names}
    update_local(path, {"runs": runs})
    assert read_yaml(path)["runs"] == runs


def test_what_is_not_yaml_is_left_alone(tmp_path):
    path = tmp_path / "config.local.yaml"
    path.write_text("runs: {")
    with pytest.raises(UserError, match="not valid YAML"):
        update_local(path, {"roots": {}})
    assert path.read_text() == "runs: {"


def test_a_change_that_would_change_something_else_is_refused(tmp_path):
    path = tmp_path / "config.local.yaml"
    text = "runs:\n  one: {cam: &mine {epochs: 3}}\n  two: {cam: *mine}\n"
    path.write_text(text)
    with pytest.raises(UserError, match="without changing what it says") as refused:
        update_local(path, {"runs": {"one": {"cam": {"epochs": 5}}}})
    assert path.read_text() == text
    expected = {"one": {"cam": {"epochs": 5}}, "two": {"cam": {"epochs": 3}}}
    assert yaml.safe_load(refused.value.fix.partition("\n")[2])["runs"] == expected


def test_local_file_then_overrides(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "compute: {threads: 2, workers: 2, micro_batch: {cam: 2}}\nroots: {own: a}\n"
        "runs: {a: {root: own, index: {format: folder}, cam: {epochs: 3, acr: {q_initial: 0.7}}}}\n"
    )
    assert load_config(folder=tmp_path).compute.threads == 2
    (tmp_path / "config.local.yaml").write_text(
        "compute: {threads: 5, micro_batch: {irn: 3}}\nroots: {own: b}\n"
        "runs: {a: {cam: {acr: {q_decay: 0.5}}}}\n"
    )
    config = load_config({"compute": {"workers": 7}}, folder=tmp_path)
    assert (config.compute.threads, config.compute.workers) == (5, 7)
    assert config.root_folder("a") == Path("b")
    # What the local file does not say stays, at whatever depth.
    parts = config.compute.micro_batch
    assert (parts.cam, parts.irn) == (2, 3)
    cam = config.run("a").stages["cam"]
    assert (cam.epochs, cam.acr.q_initial, cam.acr.q_decay) == (3, 0.7, 0.5)


def test_a_link_stays_one(tmp_path):
    kept, link = tmp_path / "kept" / "mine.yaml", tmp_path / "config.local.yaml"
    link.symlink_to(kept)
    with pytest.raises(UserError, match="this link leads to no file"):
        update_local(link, {"roots": {"mine": "a"}})
    assert not kept.parent.exists()
    kept.parent.mkdir()
    kept.write_text("# mine\nroots: {other: b}\n")
    update_local(link, {"roots": {"mine": "a"}})
    assert link.is_symlink() and kept.read_text() == "# mine\nroots: {other: b, mine: a}\n"


def test_a_section_whose_lines_were_taken_out_says_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "roots: {own: a}\nruns: {a: {root: own, index: {format: folder}}}\n"
    )
    (tmp_path / "config.local.yaml").write_text("roots:\n#  own: b\nruns:\n#  b: {extends: a}\n")
    config = load_config(folder=tmp_path)
    assert list(config.runs) == ["a"] and str(config.roots["own"]) == "a"
