"""A Slurm of one node on loopback, with a GPU that is none, for as long as a test needs it.

Slurm's commands find their configuration at /etc/slurm/slurm.conf and nowhere else: Snakemake
clears SLURM_CONF inside of jobs. So this writes there, and removes it again, but never replaces a
configuration that somebody else put there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
MARK = "# Written by the tests of wsss; remove it at will.\n"
PROGRAMS = (
    *("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun"),
    "setpriv",
)
# A daemon ends with the process that started it, however that ends.
WITH_US = ("setpriv", "--pdeathsig=TERM")
# Lets a stage that asks for two cores and one that asks for one run side by side.
NODE_CPUS = 3
# What the node claims to have: the stages ask for as much as their largest use needs.
NODE_MEMORY_MB = 80_000
# Partitions by name, with their time limits in minutes.
PARTITIONS = {"cpu": 3000, "gpu": 3000}


def missing() -> str | None:
    """Return why a Slurm cannot be started here, or None if it can."""
    absent = [name for name in PROGRAMS if _program(name) is None]
    if absent:
        return f"Slurm is not installed: no {', '.join(absent)} (Debian: slurm-wlm, munge)"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    path = CONFIGURATION / "slurm.conf"
    if path.exists() and not path.read_text().startswith(MARK):
        return f"{path} belongs to another Slurm"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [int(entry.getsockname()[1]) for entry in sockets]


@dataclass(frozen=True)
class SlurmCluster:
    """A running Slurm; its daemons' logs are in `folder`."""

    folder: Path

    def jobs(self) -> list[dict[str, str]]:
        """Return what Slurm remembers of every job, the last first, by scontrol's names."""
        text = self.command("scontrol", "--oneliner", "show", "job")
        jobs = []
        for line in text.splitlines():
            # Values may contain blanks; keys are words of letters, digits, '/' and ':' before '='.
            fields: dict[str, str] = {}
            key = ""
            for word in line.split(" "):
                name, equals, value = word.partition("=")
                if equals and name and all(part.isalnum() for part in _parts(name)):
                    key = name
                    fields[key] = value
                elif key:
                    fields[key] += f" {word}"
            if fields.get("JobId"):
                jobs.append({key: value.strip() for key, value in fields.items()})
        return sorted(jobs, key=lambda job: -int(job["JobId"]))

    def command(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it printed."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}\n{self.logs()}")
        return done.stdout

    def logs(self) -> str:
        """Return the last lines of the daemons' logs."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            parts.append("\n".join([f"--- {path.name}", *lines[-20:]]))
        return "\n".join(parts)


def _parts(name: str) -> list[str]:
    return name.replace("/", ":").replace("_", ":").split(":")


def _write_configuration(folder: Path) -> None:
    host = socket.gethostname().partition(".")[0]
    controller_port, node_port = _free_ports(2)
    partitions = "\n".join(
        f"PartitionName={name} Nodes={host} MaxTime={minutes} State=UP"
        + (" Default=YES" if name == "cpu" else "")
        for name, minutes in PARTITIONS.items()
    )
    text = f"""{MARK}ClusterName=wsss
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
# Time between a job's SIGTERM and its SIGKILL, in seconds.
KillWait=20
# What finished jobs asked for can be looked at until the tests end.
MinJobAge=3600
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={NODE_CPUS} RealMemory={NODE_MEMORY_MB} Gres=gpu:1
{partitions}
"""
    CONFIGURATION.mkdir(exist_ok=True)
    (CONFIGURATION / "slurm.conf").write_text(text)
    (CONFIGURATION / "gres.conf").write_text(f"{MARK}NodeName={host} Name=gpu File=/dev/null\n")


def _start_munge(folder: Path) -> subprocess.Popen[bytes]:
    """Start the authentication service with a key of its own, as the user it insists on."""
    own = folder / "munge"
    own.mkdir(mode=0o755)
    (own / "key").write_bytes(secrets.token_bytes(128))
    (own / "key").chmod(0o400)
    for path in (own, own / "key"):
        shutil.chown(path, "munge", "munge")
    program = _program("munged")
    assert program is not None
    return subprocess.Popen(
        [
            *(*WITH_US, "--reuid=munge", "--regid=munge", "--clear-groups"),
            *(program, "--foreground", f"--socket={own}/socket", f"--key-file={own}/key"),
            *(f"--log-file={own}/log", f"--pid-file={own}/pid", f"--seed-file={own}/seed"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )


def _start_daemon(name: str, folder: Path) -> subprocess.Popen[bytes]:
    program = _program(name)
    assert program is not None
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen([*WITH_US, program, "-D"], stdout=log, stderr=subprocess.STDOUT)


def _wait_until_idle(cluster: SlurmCluster, seconds: float) -> None:
    end = time.monotonic() + seconds
    state = ""
    while time.monotonic() < end:
        with contextlib.suppress(RuntimeError):
            state = cluster.command("sinfo", "--noheader", "--format=%T")
            if set(state.split()) == {"idle"}:
                return
        time.sleep(0.3)
    raise RuntimeError(f"after {seconds} s the node is '{state}', not idle\n{cluster.logs()}")


@contextlib.contextmanager
def running_cluster() -> Iterator[SlurmCluster]:
    """Start a Slurm, and stop it with all that it wrote outside of its jobs.

    Raises:
        RuntimeError: It does not come up.
    """
    CONFIGURATION.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(open(CONFIGURATION / ".wsss-tests.lock", "w"))
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs on one machine take turns
        # Not pytest's folder: a socket's path may have a hundred characters only, and munged
        # trusts no folder that others may write to.
        folder = Path(tempfile.mkdtemp(prefix="wsss-slurm-"))
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        stack.callback(_remove_configuration)
        _write_configuration(folder)
        processes = [_start_munge(folder)]
        stack.callback(_stop, processes)
        while not (folder / "munge" / "socket").exists() and processes[0].poll() is None:
            time.sleep(0.05)
        processes += [_start_daemon(name, folder) for name in ("slurmctld", "slurmd")]
        cluster = SlurmCluster(folder)
        _wait_until_idle(cluster, 60)
        stack.callback(_cancel_all, cluster)
        yield cluster


def _cancel_all(cluster: SlurmCluster) -> None:
    with contextlib.suppress(RuntimeError):
        cluster.command("scancel", "--full", "--signal=KILL", "--user=root")
        cluster.command("scancel", "--user=root")
        end = time.monotonic() + 30
        while cluster.command("squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.3)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _remove_configuration() -> None:
    for name in ("slurm.conf", "gres.conf"):
        (CONFIGURATION / name).unlink(missing_ok=True)
