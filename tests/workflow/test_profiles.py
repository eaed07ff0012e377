"""Profiles for clusters, as far as they go without one; test_slurm.py has the rest."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, Project

PROFILES = REPOSITORY / "profiles"
CLUSTERS = ("slurm", "cluster-generic", "kubernetes")
CAMS = "results/tiny/cams.h5"


def read(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text())
    assert isinstance(values, dict)
    return values


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_profile_has_all_that_the_default_has(name: str) -> None:
    default, own = read(PROFILES / "default/config.yaml"), read(PROFILES / name / "config.yaml")
    assert {key: own.get(key) for key in default} == default
    assert own["retries"] >= 1
    for key in ("jobscript", "slurm-partition-config", "cluster-generic-status-cmd"):
        assert (REPOSITORY / own.get(key, "")).exists(), key


def resources(output: str, rule: str) -> dict[str, str]:
    """Return what a dry run says that a rule asks for."""
    found = re.search(rf"^rule {rule}:$.*?^    resources: (.*?)$", output, re.M | re.S)
    assert found, output
    return dict(entry.split("=", 1) for entry in found[1].split(", ") if "=" in entry)


@pytest.mark.parametrize(
    ("name", "device", "gpus"),
    [("slurm", "cpu", "0"), *((name, "cuda", "1") for name in CLUSTERS)],
)
def test_a_login_node_without_gpu_plans_gpu_jobs(
    project: Project, name: str, device: str, gpus: str
) -> None:
    done = project.run(
        *("snakemake", "--workflow-profile", f"profiles/{name}", "--dry-run", CAMS),
        *("--config", f"compute={{device: {device}}}"),
    )
    assert done.returncode == 0, done.stdout
    asked = resources(done.stdout, "cam")
    assert (asked["gpu"], asked["mem_mb"]) == (gpus, "32000")
    assert resources(done.stdout, "index")["gpu"] == "0"


def test_nothing_is_submitted_before_it_is_known_what_the_nodes_have(project: Project) -> None:
    done = project.run(
        *("snakemake", "--workflow-profile", "profiles/cluster-generic", CAMS),
        *("--cluster-generic-submit-cmd", "false", "--config", "compute={device: auto}"),
    )
    assert done.returncode != 0
    for words in ("device is 'auto'", "compute: {device: cuda}", "config.local.yaml"):
        assert words in done.stdout, done.stdout
    # Digests of the data that were looked at are no result.
    assert {p.name for p in project.folder.glob("results/*")} <= {".digests"}


# ----- Kubernetes


FAKE_KUBECTL = f"""#!{sys.executable}
# Stands in for kubectl and the cluster: a job's container is a process here.
import json, os, subprocess, sys
from pathlib import Path

folder = Path(os.environ["FAKE_CLUSTER"])
verb, *words = sys.argv[1:]
if verb == "create":
    assert words == ["--output=jsonpath={{.metadata.name}}", "--filename=-"], words
    job = json.load(sys.stdin)
    name = f"{{job['metadata']['generateName']}}{{len(list(folder.iterdir()))}}"
    (folder / f"{{name}}.json").write_text(json.dumps(job))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    script = '"$@"; echo $? > "$0.new"; mv "$0.new" "$0.exit"'
    with open(folder / f"{{name}}.log", "wb") as log:
        subprocess.Popen(["sh", "-c", script, str(folder / name), *container["args"]],
                         cwd="/", stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    print(name, end="")
elif verb == "get":
    assert words[0] == "job" and words[2].startswith("--output=jsonpath="), words
    if not (folder / f"{{words[1]}}.json").exists():
        sys.exit(f'Error from server (NotFound): jobs.batch "{{words[1]}}" not found')
    ended = folder / f"{{words[1]}}.exit"
    if ended.exists():
        good = ended.read_text().strip() == "0"
        print("SuccessCriteriaMet Complete" if good else "FailureTarget Failed", end="")
else:
    sys.exit(f"unknown: {{sys.argv}}")
"""


@pytest.fixture
def fake_cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs, jobs = tmp_path_factory.mktemp("programs"), tmp_path_factory.mktemp("jobs")
    (programs / "kubectl").write_text(FAKE_KUBECTL)
    (programs / "kubectl").chmod(0o755)
    # submit.py runs with the environment's Python, which has PyYAML, as the image's has.
    folders = (programs, Path(sys.executable).parent, os.environ["PATH"])
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
    monkeypatch.setenv("FAKE_CLUSTER", str(jobs))
    return jobs


def kubernetes(command: str, *arguments: str) -> str:
    path = PROFILES / "kubernetes" / command
    done = subprocess.run([path, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(script: Path, *, gpus: int) -> str:
    asked = ("--cpus=4", "--memory-mb=32000", f"--gpus={gpus}", "--minutes=90", "--label=x")
    return kubernetes("submit.py", *asked, str(script))


def test_manifest_of_a_kubernetes_job(fake_cluster: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\nexit 3\n")
    job = json.loads((fake_cluster / f"{submit(script, gpus=2)}.json").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["backoffLimit"] == 0  # Snakemake counts the attempts
    assert job["spec"]["activeDeadlineSeconds"] == 90 * 60
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    amounts = {"cpu": "4", "memory": "32000M", "nvidia.com/gpu": "2"}
    # Kubernetes refuses GPUs whose limit is not what is requested.
    assert container["resources"] == {"requests": amounts, "limits": amounts}
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert "command" not in container  # the image's entry point, which hands signals on, stays
    without = json.loads((fake_cluster / f"{submit(script, gpus=0)}.json").read_text())
    (container,) = without["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_status_of_kubernetes_jobs(fake_cluster: Path, tmp_path: Path) -> None:
    assert kubernetes("status.sh", "wsss-none").strip() == "failed"
    (fake_cluster / "wsss-a.json").write_text("{}")
    assert kubernetes("status.sh", "wsss-a").strip() == "running"
    for code, words in (("0", "success"), ("1", "failed")):
        (fake_cluster / "wsss-a.exit").write_text(code)
        assert kubernetes("status.sh", "wsss-a").strip() == words


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_waits_for_a_stage_that_saves_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    # As Snakemake fills it in, with a stage that takes a while to save.
    stage = tmp_path / "stage.sh"
    stage.write_text(
        f"trap 'sleep 0.5; echo saved; exit 143' {number.name[3:]}\n"
        "echo started\nwhile :; do sleep 0.05; done\n"
    )
    template = (PROFILES / "cluster-generic/jobscript.sh").read_text()
    script = tmp_path / "job.sh"
    script.write_text(template.format(properties="{}", exec_job=f"sh {stage} && exit 0 || exit 1"))
    job = subprocess.Popen(
        ["sh", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "started\n"
    os.killpg(job.pid, number)  # to all processes of the job at once
    assert job.communicate(timeout=30)[0] == "saved\n"
    assert job.returncode == 1


@pytest.mark.slow
def test_what_stands_around_a_training_lets_signals_pass(project: Project) -> None:
    local = project.folder / "config.local.yaml"
    # Long enough to be caught in the middle.
    local.write_text(local.read_text().replace("epochs: 1", "epochs: 150", 1))
    folder = project.folder / "results/tiny"
    metrics = folder / "cam/work/metrics.jsonl"
    with open(project.folder / "snakemake.txt", "w") as output:
        # In a session of its own, so that the signal reaches it, the shell, `tee` and the stage,
        # as a scheduler's does, and not these tests.
        snakemake = project.start(
            *("/usr/bin/setsid", sys.executable, "-m", "snakemake", "--cores", "1"),
            "results/tiny/cam/model.safetensors",
            output=output,
        )
    while snakemake.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.1)
    assert snakemake.poll() is None, (project.folder / "snakemake.txt").read_text()
    os.killpg(snakemake.pid, signal.SIGUSR1)
    assert snakemake.wait(120) == 1  # Snakemake's own status, when a stage has failed
    assert "SIGUSR1: saved at step" in (folder / "logs/cam.log").read_text()
    assert (folder / "cam/work/checkpoint.pt").exists()


@pytest.mark.slow
def test_a_stage_through_the_kubernetes_profile(project: Project, fake_cluster: Path) -> None:
    done = project.run(
        *("snakemake", "--workflow-profile", "profiles/kubernetes", "results/tiny/index.csv"),
        *("--seconds-between-status-checks", "1"),
    )
    assert done.returncode == 0, done.stdout
    assert (project.folder / "results/tiny/index.csv").is_file()
    (path,) = fake_cluster.glob("*.json")
    job = json.loads(path.read_text())
    assert job["metadata"]["labels"] == {"app": "wsss", "stage": "index"}
    assert job["spec"]["activeDeadlineSeconds"] == 120 * 60
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "4000M"}


def test_image_has_what_its_recipe_copies() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (REPOSITORY / "Dockerfile").read_text(), re.M)
    names = {name for line in copied for name in line.split()}
    assert "pyproject.toml" in names
    kept = set(re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(), re.M))
    assert names == kept
    for name in names:
        assert (REPOSITORY / name).exists(), name


def test_the_pods_agree_on_image_and_volume() -> None:
    documents = list(yaml.safe_load_all((PROFILES / "kubernetes/workspace.yaml").read_text()))
    by_kind = {document["kind"]: document for document in documents}
    job = read(PROFILES / "kubernetes/job.yaml")["spec"]["template"]["spec"]
    workspace = by_kind["Pod"]["spec"]
    assert job["containers"][0]["image"] == workspace["containers"][0]["image"]
    volumes = {volume["name"]: volume for volume in job["volumes"]}
    assert volumes["project"] == workspace["volumes"][0]
    claim = volumes["project"]["persistentVolumeClaim"]["claimName"]
    assert claim == by_kind["PersistentVolumeClaim"]["metadata"]["name"]
