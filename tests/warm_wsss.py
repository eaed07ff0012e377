"""A `wsss` command whose processes are forks of one that has the library imported already.

Starting Python and importing PyTorch takes seconds, a stage on a few tiny pictures tenths of one.
Tests of the workflow that care for what comes out of many stages put this command first in PATH:
commands, arguments, files, output and exit statuses are the real ones, in a process for each. That
every stage starts by itself is shown by the tests that go without.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Needs nothing but the interpreter, hence starts in a hundredth of a second.
CLIENT = """#!{python} -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({path!r})
    words = "\\0".join([os.getcwd(), *sys.argv[1:]])
    socket.send_fds(server, [words.encode()], [1, 2])
    status = server.recv(1)
sys.exit(status[0] if status else "wsss: the process ended without a status")
"""
LARGEST_COMMAND = 1 << 20


def _serve(listener: socket.socket) -> None:
    import wsss
    from wsss.runtime.compiler import leave_compiler_out

    leave_compiler_out()
    for module in pkgutil.walk_packages(wsss.__path__, "wsss."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    """Run one command in this process and end it."""
    from wsss.cli import main

    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        words, (out, err), _, _ = socket.recv_fds(connection, LARGEST_COMMAND, 2)
        os.dup2(out, 1)
        os.dup2(err, 2)
        # The server's own streams may be files, which remember that they can be wound back.
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        folder, *arguments = words.decode().split("\0")
        os.chdir(folder)
        sys.argv = ["wsss", *arguments]
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([status]))
        os._exit(status)


@contextmanager
def warm_wsss(library: Path) -> Iterator[str]:
    """Serve the library in the folder `library`; gives the PATH under which `wsss` is this one."""
    with tempfile.TemporaryDirectory() as name:  # a socket's path may be no longer than 107 bytes
        folder, path = Path(name), f"{name}/socket"
        command = folder / "wsss"
        command.write_text(CLIENT.format(python=sys.executable, path=path))
        command.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(library), "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            [sys.executable, __file__, path], cwd=library, env=environment, stdin=subprocess.DEVNULL
        )
        try:
            while not Path(path).exists():
                assert server.poll() is None, "the library could not be served"
                time.sleep(0.05)
            # The workflow puts its environment's commands first, unless they are in PATH already.
            own = str(Path(sys.executable).parent)
            yield os.pathsep.join([str(folder), os.environ.get("PATH", ""), own])
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.path.pop(0)  # the tests' folder
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(sys.argv[1])
        listening.listen(64)  # commands wait while the library is imported
        _serve(listening)
