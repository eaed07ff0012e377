"""Settings that reach a stage as options of its command, or decide which there are."""

from __future__ import annotations

import shlex

import pytest
import yaml
from conftest import Project

from wsss.project.local import LocalCompute
from wsss.runtime.settings import to_dict

COMPUTE = {
    "device": "cuda",
    "threads": 3,
    "workers": 5,
    "deterministic": False,
    "gpus": 2,
    "micro_batch": {"cam": 1, "irn": 2, "segmentation": 3},
    "checkpoint_minutes": 7.5,
    "feature_cache_gb": 1.5,
}
EVALUATION = {
    "seed_split": "val",
    "cam_background": 0.4,
    "panel_count": 3,
    "panel_names": ["image_09", "image_10"],
}
COMPUTING = ("cam", "irn", "segmentation", "export", "pseudo-labels", "prediction")
TRAININGS = COMPUTING[:3]


def commands(printed: str) -> dict[str, list[list[str]]]:
    """Return the words of the commands that a dry run prints, by their stage."""
    found: dict[str, list[list[str]]] = {}
    for line in printed.splitlines():
        mark, _, command = line.partition("Shell command: ")
        if mark == "" and "wsss" in command:
            words = shlex.split(command.partition(" 2>&1 | tee ")[0])
            found.setdefault(words[words.index("wsss") + 1], []).append(words)
    return found


def option(words: list[str], name: str) -> list[str]:
    """Return what is given for an option; nothing: it is not there."""
    if f"--{name}" not in words:
        return []
    rest = words[words.index(f"--{name}") + 1 :]
    ends = [i for i, word in enumerate(rest) if word.startswith("--")]
    return rest[: ends[0] if ends else None]


@pytest.mark.setting(
    "compute.device",
    "compute.threads",
    "compute.workers",
    "compute.deterministic",
    "compute.gpus",
    "compute.micro_batch.cam",
    "compute.micro_batch.irn",
    "compute.micro_batch.segmentation",
    "compute.checkpoint_minutes",
    "compute.feature_cache_gb",
    "evaluation.seed_split",
    "evaluation.cam_background",
    "evaluation.panel_count",
    "evaluation.panel_names",
    "prediction.crf",
    "prediction.split",
)
def test_every_command_is_given_what_is_set(project: Project) -> None:
    default = to_dict(LocalCompute())
    assert all(default[key] != value for key, value in COMPUTE.items())
    local = project.folder / "config.local.yaml"
    values = yaml.safe_load(local.read_text())
    values["compute"] = COMPUTE
    values["runs"]["tiny"]["evaluation"] = EVALUATION
    values["runs"]["tiny"]["prediction"] = {"crf": False, "split": "train"}
    local.write_text(yaml.safe_dump(values))
    done = project.snakemake("--dry-run", "--printshellcmds", "results/tiny/done")
    assert done.returncode == 0, done.stdout
    found = commands(done.stdout)

    for stage in COMPUTING:
        for words in found[stage]:
            for name, wanted in {
                "device": "cuda", "threads": "3", "workers": "5", "deterministic": "false"
            }.items():  # fmt: skip
                assert option(words, name) == [wanted], (stage, name)
            launched = ["2"] if stage in TRAININGS else []
            assert option(words[: words.index("wsss")], "nproc-per-node") == launched, stage
    for words in (*found["labels"], *found["score-maps"]):
        assert option(words, "workers") == ["5"]
    assert done.stdout.count(" gpu=2,") == 3
    for part, stage in enumerate(TRAININGS, start=1):
        (words,) = found[stage]
        assert option(words, "micro-batch") == [str(part)]
        assert option(words, "checkpoint-minutes") == ["7.5"]
        assert option(words, "feature-cache-gb") == (["1.5"] if stage == "segmentation" else [])

    scored = {option(words, "stage")[0]: words for words in found["score-maps"]}
    assert {name: option(words, "split") for name, words in scored.items()} == {
        "cam": ["val"],
        "pseudo_label": ["val"],
    }
    assert option(scored["cam"], "background") == ["0.4"]
    # The panels show seeds; the model sees their images for it.
    for words in [*found["panels"], *(w for w in found["prediction"] if option(w, "names"))]:
        assert option(words, "split") == ["val"]
        assert option(words, "names") == EVALUATION["panel_names"]
        assert option(words, "count") == ["3"]
    assert len(found["prediction"]) == 2 and len(found["panels"]) == 1
    assert not any(option(words, "output-crf") for words in found["prediction"])
    scored_labels = {option(words, "stage")[0]: words for words in found["score-labels"]}
    assert {name: option(words, "split") for name, words in scored_labels.items()} == {
        "segmentation": ["train"]
    }
