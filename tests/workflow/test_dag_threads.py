"""The workflow's stages compute with the threads that their run began with."""

from __future__ import annotations

import re

from conftest import Project

from wsss.files import read_json
from wsss.project.threads import record_threads
from wsss.runtime.cores import usable_cores


def test_a_run_goes_on_with_the_threads_that_it_began_with(project: Project) -> None:
    local = project.folder / "config.local.yaml"
    local.write_text(local.read_text().replace("threads: 1", "threads: auto"))
    results = project.folder / "results"
    record_threads(results / "tiny-cam", 3)
    targets = [f"results/{run}/cam/model.safetensors" for run in ("tiny", "tiny-cam")]
    done = project.snakemake("--dry-run", *targets)
    assert done.returncode == 0, done.stdout
    commands = re.findall(
        r"wsss cam .*--work-dir results/(\S+)/cam/work.*--threads (\d+)", done.stdout
    )
    assert dict(commands) == {"tiny": str(usable_cores()), "tiny-cam": "3"}
    assert not (results / "tiny").exists()
    project.make("results/tiny/index.csv")
    assert read_json(results / "tiny" / "threads.json") == {"threads": usable_cores()}
