"""Runs the stages of a run one after another, and kills each at random moments before it may end.

A program of its own, started by `test_kill.py`: it imports the library once and every stage is a
fork of it, so that a kill hits the stage at work rather than while it imports PyTorch. Prints what
it did as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

TICKS_S = 1 / os.sysconf("SC_CLK_TCK")
# What the stages would otherwise import each for itself.
WARM = (
    *("wsss.data.build", "wsss.cam.training", "wsss.cam.export", "wsss.irn.labels"),
    *("wsss.irn.training", "wsss.irn.pseudo_labels", "wsss.segmentation.training"),
    *("wsss.segmentation.prediction", "wsss.evaluation.scoring", "wsss.figures.panels"),
)

TRAININGS = ("cam", "irn", "segmentation")
SCORED = ("cam", "pseudo_label", "segmentation", "segmentation_crf")


def commands(run: str, root: str) -> dict[str, list[str]]:
    """Return the arguments of each stage's command, in order, by its name and a word beside it.

    They are those of the workflow's rules, so that the results are too.
    """
    index = ["--index", f"{run}/index.csv"]
    data = [*index, "--root", root]
    masks = ["--masks", f"{run}/masks.csv"]
    machine = ["--device", "cpu", "--threads", "1", "--workers", "0"]
    alone = ["--workers", "0"]
    every_step = [*machine, "--checkpoint-minutes", "0"]

    def settings(stage: str) -> list[str]:
        return ["--config", f"{run}/config/{stage}.json"]

    def folder(name: str) -> list[str]:
        return ["--output", f"{run}/{name}", "--manifest", f"{run}/{name}.sha256"]

    def training(name: str) -> list[str]:
        model = f"{run}/{name}/model.safetensors"
        return ["--output", model, "--work-dir", f"{run}/{name}/work", *every_step]

    def score(name: str) -> list[str]:
        return ["--output", f"{run}/evaluation/{name}.csv", "--run", "tiny", "--stage", name]

    def curve(name: str) -> list[str]:
        path = f"{run}/evaluation/{name}_curve"
        return [*score(name), "--curve", f"{path}.csv", "--plot", f"{path}.png"]

    def value(stage: str, key: str) -> str:
        return str(json.loads(Path(f"{run}/config/{stage}.json").read_text())[key])

    reconstructor = ["--reconstructor-output", f"{run}/cam/reconstructor.safetensors"]
    cams, walked = f"{run}/cams.h5", f"{run}/walked.h5"
    predicted = ["--output-crf", f"{run}/predictions_crf"]
    predicted += ["--manifest-crf", f"{run}/predictions_crf.sha256"]
    return {
        "index": [*settings("index"), "--root", root, "--output", f"{run}/index.csv"],
        "masks": [*settings("index"), *data, "--output", f"{run}/masks.csv"],
        "cam": [*settings("cam"), *data, *reconstructor, *training("cam")],
        "export": [
            *(*settings("export"), "--model", f"{run}/cam/model.safetensors", *data),
            *("--output", cams, *machine),
        ],
        "labels": [*settings("labels"), "--cams", cams, *data, *folder("irn/labels"), *alone],
        "irn": [*settings("irn"), "--labels", f"{run}/irn/labels", *data, *training("irn")],
        "pseudo-labels": [
            *(*settings("pseudo_labels"), "--cams", cams, *data, *machine),
            *("--model", f"{run}/irn/model.safetensors", "--maps", walked),
            *folder("pseudo_labels"),
        ],
        "segmentation": [
            *(*settings("segmentation"), "--labels", f"{run}/pseudo_labels", *data),
            *training("segmentation"),
        ],
        "prediction": [
            *(*settings("prediction"), "--model", f"{run}/segmentation/model.safetensors", *data),
            *(*folder("predictions"), *predicted, *machine),
        ],
        "prediction sample": [
            *(*settings("prediction"), *data, "--split", "train", "--count", "2"),
            *("--model", f"{run}/segmentation/model.safetensors", *folder("sample"), *machine),
        ],
        "score-maps cam": [
            *(*settings("evaluation"), "--maps", cams, *data, *masks, *curve("cam")),
            *("--split", "train", "--background", value("evaluation", "cam_background"), *alone),
        ],
        "score-maps pseudo_label": [
            *(*settings("evaluation"), "--maps", walked, *data, *masks, *curve("pseudo_label")),
            *("--split", "train", "--background", value("pseudo_labels", "background"), *alone),
        ],
        "score-labels segmentation": [
            *("--labels", f"{run}/predictions", *data, *masks),
            *(*score("segmentation"), "--split", "val"),
        ],
        "score-labels segmentation_crf": [
            *("--labels", f"{run}/predictions_crf", *data, *masks),
            *(*score("segmentation_crf"), "--split", "val"),
        ],
        "panels": [
            *("--cams", cams, *data, *masks, "--split", "train", "--count", "2"),
            *("--pseudo-labels", f"{run}/pseudo_labels", "--predictions", f"{run}/sample"),
            *folder("panels"),
        ],
        "collect": [
            *("--scores", *(f"{run}/evaluation/{name}.csv" for name in SCORED)),
            *("--output", f"{run}/miou.csv"),
        ],
    }


def start(arguments: Sequence[str], log: Path, prepare: Callable[[], None] | None = None) -> int:
    """Start a command in a process of its own; return its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        from wsss.cli import main

        if prepare is not None:
            prepare()
        status = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has taken: unlike the clock, it tells how far it is."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICKS_S


def finished(pid: int) -> int:
    """Wait for a process; return its exit status, negative for the signal that ended it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def kill_after(pid: int, limit_s: float) -> bool:
    """Kill a process once it has taken so much CPU time; False: it was faster, and is done."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, "a stage failed that was not killed"
            return False
        if cpu_s(pid) >= limit_s:
            os.kill(pid, signal.SIGKILL)
            return finished(pid) == -signal.SIGKILL
        time.sleep(0.002)


def kill_at_rename(number: int, *, before: bool) -> Callable[[], None]:
    """Return what makes a process kill itself around the moment when an output gets its name.

    That moment is short, and random kills hardly ever meet it.
    """

    def prepare() -> None:
        rename, seen = os.replace, 0

        def replace(source: str, target: str) -> None:
            nonlocal seen
            seen += ".heartbeat" not in str(target)
            if seen == number and before:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace  # type: ignore[assignment]

    return prepare


def main() -> None:
    """Run all stages undisturbed into `quiet`, and often killed into `killed`."""
    draw = random.Random(int(sys.argv[1]))
    kills_each, kills_of_trainings = int(sys.argv[2]), int(sys.argv[3])
    for module in WARM:
        importlib.import_module(module)
    from wsss.files import write_json
    from wsss.project.config import load_config
    from wsss.project.file import STAGES

    run = load_config().run("tiny")
    for folder in ("quiet", "killed"):
        # Clusters of features and another run's predictions are no stages of this run's plan.
        for stage in set(STAGES) - {"lpcam", "self_labels"}:
            write_json(f"{folder}/config/{stage}.json", run.settings(stage))
    random_kills, rename_kills, resumed = {}, {}, {}
    killed = commands("killed", "data/tiny")
    for name, arguments in commands("quiet", "data/tiny").items():
        word, place = name.split()[0], name.replace(" ", "-")
        log = Path(f"{place}.log")
        # The process is asked how much CPU time it took before it is gone.
        child = start([word, *arguments], log)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        needed_s = cpu_s(child)
        assert finished(child) == 0, log.read_text()

        log = Path(f"{place}.killed.log")
        command = [word, *killed[name]]
        wanted = kills_of_trainings if name in TRAININGS else kills_each
        random_kills[name] = rename_kills[name] = 0
        for _ in range(20 * wanted):
            if random_kills[name] == wanted:
                break
            limit_s = draw.uniform(0.05, 0.9) * needed_s
            random_kills[name] += kill_after(start(command, log), limit_s)
        # A training renames its metrics, then checkpoints: with the fourth there is one to go on
        # from. Of the others some have one output only.
        for number in (4, 2) if name in TRAININGS else (2, 1):
            child = start(command, log, kill_at_rename(number, before=draw.random() < 0.5))
            rename_kills[name] += finished(child) == -signal.SIGKILL
        assert finished(start(command, log)) == 0, log.read_text()
        resumed[name] = log.read_text().count("resuming at")
    json.dump({"random": random_kills, "rename": rename_kills, "resumed": resumed}, sys.stdout)


if __name__ == "__main__":
    main()
