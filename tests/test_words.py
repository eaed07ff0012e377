"""What the words of people's commands become, and which words are refused."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from wsss.cli import PEOPLE_COMMANDS, build_parser
from wsss.commands.stage import named_paths
from wsss.errors import UserError

R, A, B = Path("results/r"), Path("a"), Path("b")
READ: dict[str, dict[str, Any]] = {
    "init": {
        **{"folder": None, "name": "mine", "method": None, "extends": "voc-lite-best"},
        **{"val": 0.2, "project": None},
    },
    "init a --name n --method recam --extends demo --val .5 --project b": {
        **{"folder": A, "name": "n", "method": "recam", "extends": "demo"},
        **{"val": 0.5, "project": B},
    },
    "run": {"name": "demo", "cores": "all", "dry_run": False},
    "run results/r --cores 3 --dry-run": {"name": "r", "cores": "3", "dry_run": True},
    "predict results/r a b": {
        **{"model": R, "inputs": [A, B], "output": Path("predictions"), "config": None},
        "probabilities": False,
    },
    "predict results/r a --output b --config b --probabilities --workers 3 --threads 2 --device cpu"
    " --deterministic false": {
        **{"model": R, "inputs": [A], "output": B, "config": B, "probabilities": True},
        **{"stage_workers": 3, "stage_threads": 2, "stage_device": "cpu"},
        "stage_deterministic": False,
    },
    "table results/r a": {"runs": [R, A]},
    "export-labels results/r --what predictions --format coco": {
        **{"folder": R, "what": "predictions", "format": "coco", "output": None, "names": None},
    },
    "export-labels results/r --what self-labels --format png --output a --names x y": {
        **{"folder": R, "what": "self-labels", "format": "png", "output": A},
        "names": ["x", "y"],
    },
    "import-masks results/r a": {
        **{"folder": R, "source": A, "unchanged": False, "unsure": "keep", "overwrite": False},
    },
    "import-masks results/r a --unchanged --unsure background --overwrite": {
        **{"folder": R, "source": A, "unchanged": True, "unsure": "background", "overwrite": True},
    },
    "export-model results/r --format onnx": {"model": R, "format": "onnx", "output": None},
    "export-model results/r --format huggingface --output a": {
        **{"model": R, "format": "huggingface", "output": A},
    },
    "thresholds results/r": {"folder": R, "write": False, "output": None},
    "thresholds results/r --write --output a": {"folder": R, "write": True, "output": A},
    "compare a b": {"first": A, "second": B, "output": None},
    "compare a b --output results/r": {"first": A, "second": B, "output": R},
    "status a b": {"runs": [A, B], "json": False, "watch": None},
    "status a --json": {"runs": [A], "json": True, "watch": None},
    "status a --watch": {"runs": [A], "json": False, "watch": 5.0},
    "status a --watch 0.5": {"runs": [A], "json": False, "watch": 0.5},
    "cams info a b": {"action": "info", "files": [A, B]},
    "import-weights acr a --config b --index a --output b": {
        **{"kind": "acr", "checkpoint": A, "config": B, "index": A, "output": B},
        "reconstructor_output": None,
    },
    "import-weights acr a --config b --index a --output b --reconstructor-output results/r": {
        **{"kind": "acr", "checkpoint": A, "config": B, "index": A, "output": B},
        "reconstructor_output": R,
    },
    "import-weights irn a --config b --output a": {
        **{"kind": "irn", "checkpoint": A, "config": B, "output": A},
    },
    "fetch-weights a results/r": {"runs": ["a", "results/r"]},
    "submission a --index b --output results/r": {
        **{"predictions": A, "index": B, "output": R, "split": "test", "competition": "comp6"},
    },
    "submission a --index b --output results/r --split val --competition comp5": {
        **{"predictions": A, "index": B, "output": R, "split": "val", "competition": "comp5"},
    },
    "config check": {"action": "check", "name": None},
    "config check results/r": {"action": "check", "name": "r"},
    "config show results/r": {"action": "show", "name": "r"},
    "config schema": {"action": "schema", "output": None},
    "config schema --output a": {"action": "schema", "output": A},
    "config defaults": {"action": "defaults", "into": None},
    "config defaults --into a": {"action": "defaults", "into": A},
    "config write --stage labels --settings {} --output a": {
        **{"action": "write", "stage": "labels", "settings": "{}", "output": A},
    },
}
STAGE = ("--config", "a", "--cams", "a", "--index", "a", "--root", "a", "--output", "b")
REFUSED = {
    "run r s": "unrecognized arguments: s",
    "run --cor 3": "unrecognized arguments: --cor",
    "predict results/r": "required: IMAGE_OR_FOLDER",
    "table": "required: RUN",
    "export-labels results/r --format coco": "required: --what",
    "export-labels results/r --what predictions": "required: --format",
    "export-labels results/r --what labels --format coco": "invalid choice: 'labels'",
    "export-labels results/r --what predictions --format pdf": "invalid choice: 'pdf'",
    "import-masks results/r": "required: FILE_OR_FOLDER",
    "import-masks results/r a --unsure drop": "invalid choice: 'drop'",
    "export-model results/r": "required: --format",
    "export-model results/r --format pdf": "invalid choice: 'pdf'",
    "compare a": "required: RUN",
    "status": "required: RUN",
    "status a --json --watch": "not allowed with",
    "status a --watch soon": "invalid float value: 'soon'",
    "cams": "required: ACTION",
    "cams info": "required: FILE",
    "import-weights": "required: KIND",
    "import-weights acr a --config b --output a": "required: --index",
    "import-weights irn a --output b": "required: --config",
    "import-weights irn a --config b": "required: --output",
    "fetch-weights": "required: RUN",
    "submission a --output b": "required: --index",
    "submission a --index b": "required: --output",
    "submission a --index b --output a --competition comp7": "invalid choice: 'comp7'",
    "config": "required: ACTION",
    "config show": "required: RUN",
    "config write --settings {} --output a": "required: --stage",
    "config write --stage labels --output a": "required: --settings",
    "config write --stage labels --settings {}": "required: --output",
}


@pytest.mark.parametrize("words", READ)
def test_what_words_become(words: str) -> None:
    given = shlex.split(words)
    options = vars(build_parser(given[0]).parse_args(given))
    assert callable(options.pop("run"))
    assert options == {"command": given[0], **READ[words]}


@pytest.mark.parametrize("words", REFUSED)
def test_words_that_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = shlex.split(words)
    with pytest.raises(SystemExit) as caught:
        build_parser(given[0]).parse_args(given)
    assert caught.value.code == 2
    assert REFUSED[words] in capsys.readouterr().err


def test_paths_by_their_names() -> None:
    assert named_paths(["a=b", "c=results/r"]) == {"a": B, "c": R}
    for words in (["a"], ["=b"], ["a="], ["a=b", "a=a"]):
        with pytest.raises(UserError, match="is not NAME=PATH, or comes twice"):
            named_paths(words)


def test_parts_that_are_put_together() -> None:
    read = build_parser("pseudo-labels").parse_args(["pseudo-labels", "--merge", "a", "b", *STAGE])
    assert (read.merge, read.shard) == ([A, B], None)
    read = build_parser("pseudo-labels").parse_args(["pseudo-labels", "--shard", "1/2", *STAGE])
    assert (read.merge, read.shard) == (None, "1/2")
    assert (read.stage_config, read.stage_output) == (A, B)


def test_all_of_peoples_commands_are_here() -> None:
    assert {words.split()[0] for words in READ} == set(PEOPLE_COMMANDS)
