"""A real Slurm: the tiny data set through its executor, and one stage through cluster-generic.

One run of the chain serves most tests, since each of its jobs starts Snakemake twice.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from conftest import REPOSITORY, Project, skip_or_fail
from slurm_cluster import SlurmCluster, missing, running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RUN = "results/tiny"
ON_THE_CLUSTER = {
    *("index", "masks", "cam", "export", "score_maps", "labels", "irn"),
    *("pseudo_labels", "segmentation", "prediction_crf"),
    *("prediction_sample", "score_labels", "panels"),
}
# Seconds until the first look at a job; the next two follow after 14 and 24 more.
IMPATIENT = ("--slurm-init-seconds-before-status-checks", "4")


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    reason = missing()
    if reason:
        skip_or_fail("slurm", reason)
    with running_cluster() as cluster:
        yield cluster


class Submission:
    """A Snakemake that submits a project's jobs, in the background."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self._log = project.folder / "snakemake.txt"
        # A job that a shell runs in its background ignores Ctrl-C and would hand that on.
        command = ("/usr/bin/env", "--default-signal=INT", sys.executable, "-m", "snakemake")
        command += ("--workflow-profile", "profiles/slurm", *IMPATIENT, *arguments)
        with open(self._log, "w") as log:
            self._process = project.start(*command, output=log)

    def output(self) -> str:
        return self._log.read_text()

    def wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 1800
        while not condition():
            assert self._process.poll() is None, f"ended before {what}: {self.output()}"
            assert time.monotonic() < end, f"waited in vain for {what}: {self.output()}"
            time.sleep(0.1)

    def wait(self) -> int:
        return self._process.wait(3000)

    def stop(self) -> None:
        """End it as Ctrl-C does, which cancels its jobs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(120)


def rule_of(job: dict[str, str]) -> str:
    """Return the rule that a Slurm job is for."""
    found = re.fullmatch(r"rule_(\w+?)(_wildcards_.*)?", job["Comment"])
    assert found, job
    return found[1]


def jobs_of(cluster: SlurmCluster, project: Project) -> dict[str, list[dict[str, str]]]:
    """Return a project's Slurm jobs by rule, the earliest first."""
    jobs: dict[str, list[dict[str, str]]] = {}
    for job in reversed(cluster.jobs()):
        if job["WorkDir"] == str(project.folder):
            jobs.setdefault(rule_of(job), []).append(job)
    return jobs


def trackable(job: dict[str, str]) -> dict[str, str]:
    """Return what a job asked for on its node: cpu, mem."""
    return dict(entry.split("=", 1) for entry in job["TRES"].split(","))


@pytest.fixture(scope="module")
def finished(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The whole chain; on its way, Slurm announces to the first training that its time is up."""
    project = Project(tmp_path_factory.mktemp("slurm"))
    local = project.folder / "config.local.yaml"
    # Long enough to be caught in the middle.
    local.write_text(local.read_text().replace("epochs: 1", "epochs: 75", 1))
    metrics = project.folder / RUN / "cam/work/metrics.jsonl"
    snakemake = Submission(project, f"{RUN}/miou.csv")
    try:
        snakemake.wait_until(
            "the training", lambda: metrics.exists() and metrics.stat().st_size > 0
        )
        (training,) = jobs_of(cluster, project)["cam"]
        # What `--signal=TERM@120` of the profile has Slurm do two minutes ahead of the limit.
        cluster.command("scancel", "--signal=TERM", training["JobId"])
        assert snakemake.wait() == 0, snakemake.output() + cluster.logs()
    finally:
        snakemake.stop()
    return project


def test_the_chain_reaches_its_table(finished: Project) -> None:
    table = pd.read_csv(finished.folder / RUN / "miou.csv")
    assert set(table["stage"]) == {"cam", "pseudo_label", "segmentation", "segmentation_crf"}
    assert table.loc[table["class"] == "mean", "iou"].between(0, 1).all()


def test_every_stage_went_through_sbatch(cluster: SlurmCluster, finished: Project) -> None:
    jobs = jobs_of(cluster, finished)
    assert set(jobs) == ON_THE_CLUSTER  # the settings and the table are made where Snakemake runs
    for rule, (*_, job) in jobs.items():
        assert (job["JobState"], job["Partition"]) == ("COMPLETED", "cpu"), rule
        assert job["NumCPUs"] == "1", rule
        assert "TresPerJob" not in job  # that is, no GPU
        logs = (finished.folder / RUN / "logs").glob(f"{rule.removesuffix('_crf')}*.log")
        assert any(logs), rule


def test_jobs_ask_for_what_their_rules_say(cluster: SlurmCluster, finished: Project) -> None:
    jobs = jobs_of(cluster, finished)
    for rule, minutes, memory in (
        ("index", 120, "4000M"),
        ("export", 720, "16000M"),
        ("segmentation", 2880, "32000M"),
        ("panels", 30, "4000M"),
    ):
        (job,) = jobs[rule]
        assert time_limit_minutes(job) == minutes, rule
        assert trackable(job)["mem"] == memory, rule


def time_limit_minutes(job: dict[str, str]) -> int:
    days, _, clock = job["TimeLimit"].rpartition("-")
    hours, minutes, _ = clock.split(":")
    return (int(days or 0) * 24 + int(hours)) * 60 + int(minutes)


def test_a_training_whose_time_is_up_goes_on_in_another_job(
    cluster: SlurmCluster, finished: Project
) -> None:
    first, second = jobs_of(cluster, finished)["cam"]
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    # Its last words got through the shell and `tee` around it, which had the signal too.
    (log,) = (finished.folder / ".snakemake/slurm_logs/rule_cam").rglob("*.log")
    assert log.stem == first["JobId"]
    saved = re.search(r"SIGTERM: saved at step (\d+)", log.read_text())
    assert saved, log.read_text()
    # The second went on behind that step: no step was taken twice, none left out.
    second_log = (finished.folder / RUN / "logs/cam.log").read_text()
    assert f"resuming at {saved[1]}" in second_log
    lines = (finished.folder / RUN / "cam/work/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(10, 151, 10))
    # It may have failed for want of memory.
    assert [trackable(job)["mem"] for job in (first, second)] == ["32000M", "62.50G"]


def exports(cluster: SlurmCluster, project: Project) -> list[dict[str, str]]:
    return jobs_of(cluster, project).get("export", [])


def test_a_gpu_stage_asks_for_a_gpu(cluster: SlurmCluster, finished: Project) -> None:
    # The node's GPU is none: its jobs wait in the queue, where Slurm can be asked about them.
    cluster.command("scontrol", "update", "PartitionName=gpu", "State=DOWN")
    before = len(exports(cluster, finished))
    snakemake = Submission(
        finished,
        *(f"{RUN}/cams.h5", "--forcerun", "export"),
        *("--config", "compute={device: cuda, threads: 1, workers: 1}"),
    )
    try:
        for attempt, memory in ((0, "16000M"), (1, "32000M")):
            number = before + attempt + 1
            snakemake.wait_until(
                f"job {number}",
                lambda number=number: len(exports(cluster, finished)) == number,
            )
            job = exports(cluster, finished)[-1]
            assert (job["JobState"], job["Partition"]) == ("PENDING", "gpu")
            assert job["TresPerJob"] == "gres:gpu:1"
            assert trackable(job)["cpu"] == "2"  # a thread and a helper process
            assert trackable(job)["mem"] == memory  # more in an attempt after a failure
            if attempt == 0:
                cluster.command("scancel", job["JobId"])
    finally:
        snakemake.stop()
    # Ctrl-C leaves nothing in the queue.
    assert exports(cluster, finished)[-1]["JobState"] == "CANCELLED"


def test_cluster_generic(cluster: SlurmCluster, project: Project) -> None:
    done = project.run(
        *("snakemake", "--workflow-profile", "profiles/cluster-generic", f"{RUN}/index.csv"),
        *("--seconds-between-status-checks", "1"),
    )
    assert done.returncode == 0, done.stdout + cluster.logs()
    assert (project.folder / RUN / "index.csv").is_file()
    (job,) = (job for job in cluster.jobs() if job["WorkDir"] == str(project.folder))
    assert (job["JobName"], job["JobState"]) == ("wsss-index", "COMPLETED")
    assert (time_limit_minutes(job), trackable(job)["mem"]) == (120, "4000M")


@pytest.mark.usefixtures("cluster")
def test_status_of_a_failed_and_of_an_unknown_job() -> None:
    status = REPOSITORY / "profiles/cluster-generic/status.sh"
    asked = ("sbatch", "--parsable", "--wait", "--mem=10", "--output=/dev/null", "--wrap=exit 3")
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    for job in (done.stdout.strip(), "999999"):
        answer = subprocess.run([status, job], capture_output=True, text=True)
        assert answer.stdout.strip() == "failed", job
