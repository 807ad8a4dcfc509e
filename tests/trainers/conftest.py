"""How the tests run a trainer: as a person does, by its command."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def trainer(*arguments, script="omniglot.py"):
    return [sys.executable, str(ROOT / "trainers" / script), *arguments]


def tiny_trainer(*arguments, script="omniglot.py", num_devices=1):
    """The trainer itself, but for the number of features, and of devices."""
    launch = (
        "import runpy, sys; from tests.conftest import tiny_sizes; "
        "import tensorflow as tf; "
        "tf.config.set_logical_device_configuration("
        "tf.config.list_physical_devices('CPU')[0], "
        f"[tf.config.LogicalDeviceConfiguration()] * {num_devices}); "
        f"sys.argv[0] = 'trainers/{script}'; sys.path.insert(0, 'trainers')\n"
        "with tiny_sizes(): runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return [sys.executable, "-c", launch, *arguments]


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


def printed_by(code):
    """Returns the JSON that code prints, in a process with flags of its own."""
    code = f"import sys; sys.path.insert(0, 'trainers')\n{code}"
    result = output_of([sys.executable, "-c", code])
    assert result.returncode == 0, result.stdout
    return json.loads(result.stdout.splitlines()[-1])


_IN_TURN = """
import contextlib, importlib, io
from absl import app
from absl.testing import flagsaver
script, said = importlib.import_module(sys.argv[1]), []
for arguments in json.loads(sys.argv[2]):
    out = io.StringIO()
    with (
        flagsaver.flagsaver(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        try:
            app.run(script.main, [sys.argv[1], *arguments])
        except SystemExit as stop:
            assert stop.code, f"{arguments} did not fail"
            said.append(out.getvalue() + str(stop.code))
print(json.dumps(said))
"""


def endings(script, *commands):
    """Returns what a script says as it ends, of mistakes, each in turn.

    In one process: most of the time of such a command is that of imports.
    """
    said = printed_by(
        f"import json\nsys.argv[1:] = {[script, json.dumps(commands)]}"
        + _IN_TURN
    )
    assert len(said) == len(commands), said
    return said


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


def interrupted(command, run_dir, number=signal.SIGKILL):
    """Trains, interrupted after the first checkpoint; returns the first text.

    The final evaluation is left out.
    """
    first = signalled(command, run_dir / "checkpoints" / "checkpoint", number)
    assert not (run_dir / "last.keras").exists(), "was not signalled in time"
    text = signalled(command, run_dir / "last.keras")
    assert "Going on from step" in text
    return first
