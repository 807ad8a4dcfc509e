"""Starts processes, watches them and sends them signals; shares folders."""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def output_of(command, **environment):
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT,
        check=False,
    )


def layouts(count):
    """Returns TF_CONFIG for each of several processes, as if on machines."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        workers = ["{}:{}".format(*one.getsockname()) for one in sockets]
    return [
        json.dumps(
            {
                "cluster": {"worker": workers},
                "task": {"type": "worker", "index": index},
            }
        )
        for index in range(count)
    ]


def meanwhile(command, path, act):
    """Runs a trainer; once it has written a file, acts on the process.

    Returns:
        Its status and what it wrote, when it has ended.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as process:
        deadline = time.monotonic() + 300
        while not path.exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        act(process)
        text, _ = process.communicate()
    assert path.exists(), text
    return process.returncode, text


def signalled(command, path, number=signal.SIGKILL):
    """Runs a trainer until it has written a file; returns what it wrote."""
    status, text = meanwhile(
        command, path, lambda process: process.send_signal(number)
    )
    assert status == (0 if number == signal.SIGTERM else -number), text
    return text


def made_once(name, make, tmp_path_factory):
    """Returns a folder that one of the processes of `pytest -n` makes."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder
