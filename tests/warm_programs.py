"""`wsss` and `snakemake` whose processes are forks of one that has imported their libraries.

Starting Python and importing PyTorch or Snakemake takes seconds, a stage on a few tiny pictures or
a plan tenths of one. Tests of the workflow that care for what comes out of it put these programs
first in PATH: commands, arguments, variables, files, output and exit statuses are the real ones, in
a process for each, which imports the library of its own project. What is imported beforehand could
hide that something is not: the subcommands that START_BY_ITSELF names start by themselves, and so
does everything in the tests that go without.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# Needs nothing but the interpreter, hence starts in a hundredth of a second.
CLIENT = """#!{python} -IS
import os, socket, sys
if sys.argv[1:2] and sys.argv[1] in os.environ.get("START_BY_ITSELF", "").split():
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({path!r})
    variables = [f"{{name}}={{value}}" for name, value in os.environ.items()]
    words = [os.getcwd(), {name!r}, str(len(sys.argv) - 1), *sys.argv[1:], *variables]
    socket.send_fds(server, [os.fsencode("\\0".join(words))], [0, 1, 2])
    status = server.recv(1)
sys.exit(status[0] if status else "{name}: the process ended without a status")
"""
LARGEST_COMMAND = 1 << 20
# What the library and Snakemake stand on, and nothing of the library: each project has its own.
BEFOREHAND = (
    *("torch", "torchvision.transforms.v2", "timm", "safetensors.torch", "torch.utils.data"),
    *("numpy", "scipy.ndimage", "scipy.sparse.linalg", "pandas", "h5py", "PIL.Image", "pydantic"),
    *("yaml", "ruamel.yaml", "jinja2", "tqdm", "pycocotools.mask", "pydensecrf.densecrf"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "snakemake.cli"),
    *("snakemake_executor_plugin_slurm", "snakemake_executor_plugin_cluster_generic"),
)
# Of the library, yet in no hash of its code, and the same in every project: what imports PyTorch
# without its compiler.
COMPILER = "wsss.runtime.compiler"


@functools.cache
def _server() -> tuple[subprocess.Popen[str], str]:
    """Serve the programs until this process ends; return their folder, too."""
    server = subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        # Ends when nobody holds the other end any more.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    folder = server.stdout.readline().strip()
    assert folder, "the programs could not be served"
    return server, folder


def warm_programs() -> str:
    """Return the PATH under which `wsss` and `snakemake` are these."""
    # The workflow puts its environment's commands first, unless they are in PATH already.
    own = str(Path(sys.executable).parent)
    return os.pathsep.join([_server()[1], os.environ.get("PATH", ""), own])


def warm_program(name: str) -> str:
    """Return the path of one: `wsss`, `snakemake`, or `script`, which runs a file in Python."""
    return f"{_server()[1]}/{name}"


def _serve(listener: socket.socket) -> None:
    """Answer commands until the input ends."""
    sys.path[0] = str(Path(__file__).parent.parent)  # instead of the tests' folder
    importlib.import_module(COMPILER).leave_compiler_out()
    for name in BEFOREHAND:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "wsss"]:
        if name != COMPILER:
            del sys.modules[name]
    sys.path.pop(0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection)
        connection.close()


def _wsss(arguments: list[str]) -> int:
    main: Callable[[list[str]], int] = importlib.import_module("wsss.cli").main
    return main(arguments)


def _snakemake(arguments: list[str]) -> int:
    importlib.import_module("snakemake.cli").main(arguments)
    return 0


def _script(arguments: list[str]) -> int:
    """Run one in Python, which is the first of the words."""
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).parent)
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


PROGRAMS = {"wsss": _wsss, "snakemake": _snakemake, "script": _script}


def _answer(connection: socket.socket) -> NoReturn:
    """Run one command in this process and end it."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        words, streams, _, _ = socket.recv_fds(connection, LARGEST_COMMAND, 3)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        # The server's own streams may be files, which remember that they can be wound back.
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        folder, program, count, *rest = os.fsdecode(words).split("\0")
        arguments, variables = rest[: int(count)], rest[int(count) :]
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variable.split("=", 1) for variable in variables)
        own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        scripts = Path(sys.executable).parent
        sys.path[:0] = [str(scripts), *own]
        sys.argv = [str(scripts / program), *arguments]
        status = PROGRAMS[program](arguments)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            status = stop.code or 0
        else:
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(BrokenPipeError):
            connection.send(bytes([status]))
        os._exit(status)


def main() -> None:
    """Write the programs into a folder, print its name, and serve them."""
    folder = Path(tempfile.mkdtemp())  # a socket's path may be no longer than 107 bytes
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"{folder}/socket")
            listener.listen(64)  # commands wait while the libraries are imported
            for name in PROGRAMS:
                real = str(Path(sys.executable).parent / name)
                values = {"path": f"{folder}/socket", "name": name, "real": real}
                (folder / name).write_text(CLIENT.format(python=sys.executable, **values))
                (folder / name).chmod(0o755)
            print(folder, flush=True)
            _serve(listener)
    finally:
        shutil.rmtree(folder)
        # What it started, too, which is of its session.
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
