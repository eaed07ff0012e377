"""`wsss status`: told from files alone, whatever machine the stages run on."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wsss.cli import main
from wsss.errors import UserError
from wsss.files.temporaries import _is_gone
from wsss.monitor.plan import PLAN_FILE, PlannedJob, read_plan, relative_job, write_plan
from wsss.monitor.status import SILENT_S, JobStatus, run_status
from wsss.monitor.status_text import format_status
from wsss.runtime.heartbeat import (
    Heartbeat,
    beat,
    beating,
    heartbeat_file,
    host_identity,
    host_name,
    process_identity,
)

NOW = 2_000_000_000.0


def job(rule: str, output: str, *, must_run: bool = True) -> PlannedJob:
    return PlannedJob(rule, (output,), f"logs/{rule}.log", f"benchmarks/{rule}.tsv", must_run)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three stages, planned a thousand seconds ago; nothing is made."""
    folder = tmp_path / "results" / "voc"
    jobs = [job("index", "index.csv"), job("cam", "cam/model"), job("export", "cams.h5")]
    write_plan(folder, jobs, whole=True)
    plan = json.loads((folder / PLAN_FILE).read_text())
    (folder / PLAN_FILE).write_text(json.dumps({**plan, "written": NOW - 1000}))
    return folder


def made(path: Path, ago_s: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("made")
    os.utime(path, (NOW - ago_s, NOW - ago_s))


def tell(output: Path, **values: Any) -> None:
    """Write a heartbeat as a stage on another machine would."""
    output.parent.mkdir(parents=True, exist_ok=True)
    told = {"command": "x", "state": "running", "host": "node17 pid:[7]", "pid": 1, "process": "1"}
    times = {"started": NOW - 500, "time": NOW - 5, "progressed": NOW - 5}
    heartbeat_file(output).write_text(json.dumps({**told, **times, **values}))


def states(folder: Path) -> dict[str, str]:
    return {each.rule: each.state for each in run_status(folder, now=NOW).jobs}


def one(folder: Path, rule: str) -> JobStatus:
    return next(each for each in run_status(folder, now=NOW).jobs if each.rule == rule)


def test_stages_wait_run_and_are_done(run: Path) -> None:
    assert states(run) == dict.fromkeys(("index", "cam", "export"), "waiting")
    made(run / "index.csv", 900)
    (run / "benchmarks").mkdir()
    (run / "benchmarks" / "index.tsv").write_text("s\th:m:s\tmax_rss\n75.2\t0:01:15\t100\n")
    progress = {"done": 1200, "total": 19800, "unit": "step", "images_per_s": 31.2, "eta_s": 12011}
    tell(run / "cam" / "model", **progress, epoch=2, epochs=15, loss=0.12344)
    assert states(run) == {"index": "done", "cam": "running", "export": "waiting"}
    text = format_status(run_status(run, now=NOW))
    assert text.splitlines()[0].endswith(": 1 running, 1 waiting, 1 done")
    assert "  done      index                   0:01:15" in text
    assert (
        "  running   cam                     epoch 3/15, step 1200/19800 (6 %), loss 0.1234, "
        "31.2 images/s, ETA 3:20:11, on node17, pid 1"
    ) in text


def test_a_failure_shows_the_end_of_its_log(run: Path) -> None:
    (run / "logs").mkdir()
    lines = [f"line {number}" for number in range(100)]
    (run / "logs" / "cam.log").write_text("\n".join(lines) + "\n")
    tell(run / "cam" / "model", state="failed", message="the GPU ran out of memory\n  where: here")
    failed = one(run, "cam")
    assert (failed.state, failed.note) == ("failed", "the GPU ran out of memory")
    assert failed.log_tail == tuple(lines[-8:])
    text = format_status(run_status(run, now=NOW))
    assert f"{run}/logs/cam.log ends with:" in text and "| line 99" in text
    # Once it was made after all, the failure is over.
    made(run / "cam" / "model", 1)
    assert states(run)["cam"] == "done"


def test_who_was_asked_to_stop_has_stopped(run: Path) -> None:
    tell(run / "cam" / "model", state="stopped", message="SIGTERM asked it to stop")
    assert (one(run, "cam").state, one(run, "cam").log_tail) == ("stopped", ())


def test_silence_and_idleness_on_another_machine(run: Path) -> None:
    tell(run / "cam" / "model", time=NOW - SILENT_S + 1)
    assert states(run)["cam"] == "running"
    tell(run / "cam" / "model", time=NOW - SILENT_S - 100)
    assert states(run)["cam"] == "stalled?"
    assert "no sign of life from node17 (pid 1) for 0:03:40" in one(run, "cam").note
    tell(run / "cam" / "model", progressed=NOW - 1900, done=1, total=11, eta_s=10)
    assert "no progress on node17 (pid 1) for 0:31:40" in one(run, "cam").note
    # Items that take long by themselves are no reason to worry.
    tell(run / "cam" / "model", progressed=NOW - 1900, done=1, total=11, eta_s=1000)
    assert states(run)["cam"] == "running"


def test_a_process_of_this_machine_that_is_gone(run: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        here = {"host": host_identity(), "pid": child.pid, "process": process_identity(child.pid)}
        tell(run / "cam" / "model", **here, time=NOW - 10_000)
        assert states(run)["cam"] == "running"
        tell(run / "cam" / "model", **{**here, "process": "another with its number"})
        assert states(run)["cam"] == "failed"
        tell(run / "cam" / "model", **here)
        child.kill()
    gone = one(run, "cam")
    assert (gone.state, "is gone" in gone.note) == ("failed", True)
    # Killed after its output was whole: there is nothing to complain about.
    made(run / "cam" / "model", 3)
    assert states(run)["cam"] == "done"


def test_a_process_may_call_itself_what_is_no_text() -> None:
    # PR_SET_NAME of Linux's prctl.
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff) Z'); print(flush=True); input()"
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **how) as child:
        child.stdout.readline()
        assert process_identity(child.pid) not in (None, "") and not _is_gone(child.pid)
        child.kill()


def test_results_that_will_be_made_again_wait(run: Path) -> None:
    made(run / "index.csv", 2000)
    assert (one(run, "index").state, "earlier start" in one(run, "index").note) == ("waiting", True)
    write_plan(run, [job("index", "index.csv", must_run=False)], whole=True)
    assert states(run) == {"index": "done"}


def test_what_came_out_the_same_leaves_nothing_waiting_once_all_is_done(run: Path) -> None:
    for output, ago_s in (("index.csv", 500), ("cam/model", 400), ("cams.h5", 2000)):
        made(run / output, ago_s)
    assert states(run)["export"] == "waiting"
    made(run / "done", 1500)  # of an earlier start, too
    assert states(run)["export"] == "waiting"
    made(run / "done", 300)
    assert states(run) == {"index": "done", "cam": "done", "export": "done"}
    # While a Snakemake works, nothing is decided yet.
    locks = run.parent.parent / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("results/voc/index.csv\n")
    assert states(run)["export"] == "waiting"


def test_a_smaller_start_keeps_what_is_known_of_the_rest(run: Path) -> None:
    write_plan(run, [job("export_alone", "cams.h5")], whole=False)
    plan = read_plan(run)
    assert plan is not None
    assert [each.rule for each in plan.jobs] == ["export_alone", "index", "cam"]


def test_paths_of_a_plan_are_relative_to_the_run() -> None:
    found = relative_job(
        *("results/a", "demo_data", ["results/demo-data", "results/a/x.csv"], []),
        benchmark="results/benchmarks/demo_data.tsv",
        must_run=True,
    )
    assert found.outputs == ("../demo-data", "x.csv")
    assert (found.log, found.benchmark) == (None, "../benchmarks/demo_data.tsv")


def test_jobs_that_share_a_stage(run: Path) -> None:
    (run / "shards").mkdir()
    (run / "shards" / "export.json").write_text('{"shards": 3, "asked": "3 jobs"}')
    assert len(run_status(run, now=NOW).jobs) == 3
    parts = [run / "shards" / "export" / f"{part}-of-3" for part in (1, 2, 3)]
    tell(parts[0], state="done", command="export")
    tell(parts[1], done=10, total=40, command="export")
    found = [each for each in run_status(run, now=NOW).jobs if each.rule == "export parts"]
    assert [each.state for each in found] == ["done", "running", "waiting"]
    text = format_status(run_status(run, now=NOW))
    assert "export parts            1 of 3 done" in text and "10/40 (25 %)" in text
    for part in parts:
        tell(part, state="done", command="export")
    assert len(run_status(run, now=NOW).jobs) == 3


def test_without_a_plan_heartbeats_are_shown(run: Path) -> None:
    (run / PLAN_FILE).unlink()
    tell(run / "cam" / "model", command="cam", done=1, total=2)
    assert states(run) == {"cam": "running"}
    for folder, words in ((run.parent / "other", "no such run"), (run.parent, "nothing of a run")):
        if words.startswith("nothing"):
            heartbeat_file(run / "cam" / "model").unlink()
        with pytest.raises(UserError, match=words):
            run_status(folder, now=NOW)


def test_a_lock_without_a_process_is_explained(run: Path) -> None:
    locks = run.parent.parent / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    assert run_status(run, now=NOW).lock is None
    (locks / "0.input.lock").write_text("results/voc/index.csv\n")
    text = format_status(run_status(run, now=NOW))
    assert "is locked since" in text and "snakemake --unlock" in text
    tell(run / "cam" / "model")
    assert "snakemake --unlock" not in format_status(run_status(run, now=NOW))


def test_a_lock_that_goes_while_it_is_looked_at_is_none(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = run.parent.parent / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([locks / "0.input.lock"]))
    assert run_status(run, now=NOW).lock is None


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(run / "index.csv", 10)
    assert main(["status", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in found["jobs"]] == ["done", "waiting", "waiting"]
    assert main(["status", str(run / "nowhere")]) == 2
    assert "unknown run" in capsys.readouterr().err
    for name in ("cam/model", "cams.h5"):
        made(run / name, 0)
    assert main(["status", str(run), "--watch", "0.01"]) == 0  # ends, as all is done
    assert "3 done" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "clears"), [((), False), (("--watch", "0.01"), True)])
def test_only_who_watches_has_the_screen_cleared(
    run: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], clears: bool
) -> None:
    for name in ("index.csv", "cam/model", "cams.h5"):
        made(run / name, 0)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["status", str(run), *words]) == 0
    assert "3 done" in stream.getvalue() and ("\x1b" in stream.getvalue()) == clears


def test_asking_loads_nothing_heavy(run: Path) -> None:
    code = (
        f"import sys; from wsss.cli import main\nmain(['status', {str(run)!r}])\n"
        "print(sorted({'torch', 'numpy', 'h5py', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


# ----- heartbeats


def read(output: Path) -> dict[str, Any]:
    values = json.loads(heartbeat_file(output).read_text())
    assert isinstance(values, dict)
    return values


def test_a_heartbeat_tells_of_its_process_and_progress(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "cams.h5"
    with beating(output, "export") as heartbeat:
        first = read(output)
        assert (first["state"], first["pid"], first["command"]) == (
            *("running", os.getpid()),
            "export",
        )
        assert first["process"] == process_identity(os.getpid())
        beat(done=5, total=10)  # within the interval: shown by the next write
        heartbeat.finish("failed", "why")
    last = read(output)
    assert (last["done"], last["state"], last["message"]) == (5, "failed", "why")
    beat(done=6)  # no stage runs: nobody is told
    assert read(output) == last


def test_a_heartbeat_is_renewed_without_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.runtime.heartbeat.ALIVE_INTERVAL_S", 0.05)
    heartbeat = Heartbeat(heartbeat_file(tmp_path / "x"), "index")
    first = read(tmp_path / "x")
    deadline = time.monotonic() + 30
    while read(tmp_path / "x")["time"] == first["time"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert read(tmp_path / "x")["progressed"] == first["progressed"]
    heartbeat.finish("done")


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    with beating(tmp_path / "file" / "cams.h5", "export") as heartbeat:
        beat(done=1)
        heartbeat.finish("done")


def test_another_machine_of_this_name_is_told_apart(run: Path) -> None:
    name = socket.gethostname()
    clone = f"{name} 0badcafe pid:[4026531836]"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        # By its numbers, a process of here; but they are another machine's.
        beat = {"host": clone, "pid": child.pid, "process": "another with its number"}
        tell(run / "cam" / "model", **beat)
        found = one(run, "cam")
        assert found.state == "running" and f"{name} (another machine of this name" in found.note
        tell(run / "cam" / "model", **beat, time=NOW - 2 * SILENT_S)
        found = one(run, "cam")
        assert found.state == "stalled?" and "another machine of this name" in found.note
        child.kill()
    assert host_name(clone) != host_name(host_identity()) == name
    assert host_name(name) == name and host_name("node7 1 2") == "node7" and host_name(None) == ""
