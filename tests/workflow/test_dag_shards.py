"""Real Snakemake: several jobs share the stages that treat images one by one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import Project

RESULTS = "results/tiny"
TARGETS = [f"{RESULTS}/{name}" for name in ("predictions.sha256", "predictions_crf.sha256")]
SHARED = ("export", "labels", "pseudo_labels", "prediction_crf")


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of everything that the shared stages have made."""
    names = ("cams.h5", "walked.h5", "irn/labels", "pseudo_labels", "predictions")
    files = [folder / name for name in names if name.endswith(".h5")]
    for name in (*names[2:], "predictions_crf"):
        files += [folder / f"{name}.sha256", *sorted((folder / name).glob("*.png"))]
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def rules(output: str) -> Counter[str]:
    """Return how many jobs of each rule Snakemake says it has started."""
    starts = ("rule ", "localrule ", "checkpoint ", "localcheckpoint ")
    return Counter(
        line.split()[1].rstrip(":") for line in output.splitlines() if line.startswith(starts)
    )


def configure(project: Project, *, shards: int, foreground: float = 0.3) -> None:
    path = project.folder / "config.local.yaml"
    values = yaml.safe_load(path.read_text())
    values["shards"] = shards
    values["runs"]["tiny"]["labels"]["foreground_threshold"] = foreground
    path.write_text(yaml.safe_dump(values))


@contextmanager
def unreadable(image: Path) -> Iterator[None]:
    content = image.read_bytes()
    # Of the same size: otherwise it is another data set.
    image.write_bytes(content[:40] + bytes(len(content) - 40))
    try:
        yield
    finally:
        image.write_bytes(content)


@pytest.mark.slow
def test_stages_are_shared_as_the_configuration_says(project: Project) -> None:
    results = project.folder / RESULTS
    configure(project, shards=1)
    started = rules(project.make(*TARGETS))
    assert started["count_shards"] == 4 and not any(name.endswith("_shard") for name in started)
    alone = digests(results)
    assert len(alone) == 2 + 4 + 8 + 8 + 3 + 3

    # Another number: nothing runs, until a stage has to.
    configure(project, shards=3)
    assert project.planned(*TARGETS) == {}
    (results / "cams.h5").unlink()
    started = rules(project.make(*TARGETS))
    for rule in SHARED:
        assert started[f"{rule.removesuffix('_crf')}_shard"] == 3 and started[rule] == 1, rule
    assert digests(results) == alone
    assert not [
        path for path in (results / "shards").rglob("*") if path.is_dir() and "-of-" in path.name
    ]
    configure(project, shards=2)
    assert project.planned(*TARGETS) == {}

    # A job that ends early is made again alone, and goes together with what the others had made.
    labels = f"{RESULTS}/irn/labels.sha256"
    configure(project, shards=3, foreground=0.35)
    with unreadable(project.folder / "data" / "tiny" / "images" / "image_04.png"):
        # The index would see that picture first.
        rules_alone = ("labels", "labels_shard", "count_shards", "stage_config")
        failed = project.snakemake(labels, "--allowed-rules", *rules_alone)
    assert failed.returncode != 0 and "image_04.png" in failed.stdout
    assert project.planned(labels) == {"labels_shard": 1, "labels": 1}
    # Where there are no results, another number counts at once.
    configure(project, shards=5, foreground=0.35)
    assert project.planned(labels) == {"labels_shard": 1, "labels": 1}
    (project.folder / labels).unlink()
    assert project.planned(labels) == {"count_shards": 1, "labels": 1}
    configure(project, shards=3, foreground=0.35)
    started = rules(project.make(labels))
    assert (started["labels_shard"], started["labels"]) == (1, 1)
    assert len((project.folder / labels).read_text().splitlines()) == 8
