"""What people write in settings and paths reaches a command as it is, whatever it is."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import Project

from wsss.cli import main
from wsss.errors import UserError
from wsss.maps import shard_files
from wsss.project.local import LocalCompute
from wsss.report.compare import compare
from wsss.runtime import locks
from wsss.runtime.compute import Device

NASTY = "; touch pwned; $(touch pwned) `touch pwned` ' \" \n && touch pwned # x"


def test_no_setting_and_no_path_reaches_a_shell_unquoted(project: Project) -> None:
    local = project.folder / "config.local.yaml"
    values = yaml.safe_load(local.read_text())
    values["roots"]["tiny"] = f"data/{NASTY}"
    values["runs"]["tiny"]["evaluation"]["panel_names"] = [NASTY]
    local.write_text(yaml.safe_dump(values))
    (project.folder / "data/tiny").rename(project.folder / "data" / NASTY)
    project.make("results/tiny/masks.csv", "results/tiny/config/evaluation.json")
    settings = json.loads((project.folder / "results/tiny/config/evaluation.json").read_text())
    assert settings["panel_names"] == [NASTY]
    assert len((project.folder / "results/tiny/masks.csv").read_text().splitlines()) == 12
    assert not list(project.folder.rglob("pwned"))
    # The commands of all stages, as a shell splits them.
    done = project.snakemake("--dry-run", "--printshellcmds", "results/tiny/miou.csv")
    assert done.returncode == 0, done.stdout
    quoted = NASTY.replace("'", "'\"'\"'")
    assert done.stdout.count("touch pwned") > 4
    assert done.stdout.replace(quoted, "").count("touch pwned") == 0


def test_commands_in_messages_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path("my photos; x")
    assert main(["init", "--project", str(place)]) == 0
    shown = [capsys.readouterr().out, shard_files._again(place)]
    shown.append(str(locks._held(place / "x", {"host": "elsewhere", "pid": 1})))
    with pytest.raises(UserError) as caught:
        compare(place, tmp_path)
    shown.append(str(caught.value))
    for text in shown:
        # In quotes, or not at all: no shell sees the words that follow the name.
        (command,) = re.findall(r"(?:cd|rm|rm -r|all) ('.*')", text)
        assert len(shlex.split(command)) == 1, text


@pytest.mark.parametrize(
    "name",
    [
        *("cuda:$(touch x)", "cuda:", "cuda:-1", "cuda:01", "cuda:1 ", "cuda:1\n", "cuda:1;x"),
        *("cuda:٣", "gpu", "", "CUDA", "cpu ", "mps:0", "cpu\ncuda", "cuda:0,1"),
    ],
)
def test_a_device_is_one_of_a_few_words(name: str) -> None:
    for make in (LocalCompute, Device):
        with pytest.raises(UserError, match="device is") as caught:
            make(device=name)
        assert "auto, cpu, cuda, cuda:<number> or mps" in str(caught.value)


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_devices(name: str) -> None:
    # Apple's GPUs have no deterministic kernels.
    exact = name != "mps"
    local = LocalCompute(device=name, deterministic=exact)
    assert local.device == Device(device=name, deterministic=exact).device == name


def test_an_apple_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(UserError, match="'mps' was asked for, and PyTorch sees no Apple GPU"):
        Device(device="mps").torch_device()
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert Device(device="mps").torch_device().type == "mps"
    with pytest.raises(UserError, match="gpus is 2"):
        LocalCompute(gpus=2, device="mps")


def test_a_rank_alone_disables_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsss.runtime.heartbeat import heartbeat_file
    from wsss.runtime.stage_process import stage_process

    output = tmp_path / "out"
    cases = [
        ({"RANK": "1"}, True, True),
        ({"RANK": "1", "WORLD_SIZE": "1"}, True, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, True, False),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False, True),
    ]
    for variables, trains, locked in cases:
        with monkeypatch.context() as patch:
            for name in ("RANK", "WORLD_SIZE"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            heartbeat_file(output).unlink(missing_ok=True)
            with stage_process("cam", output, trains=trains):
                assert heartbeat_file(output).exists() == locked, (variables, trains)
                assert (tmp_path / ".out.lock").exists() == locked
