"""How the tests run a trainer: as a person does, by its command."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def trainer(*arguments, script="omniglot.py"):
    return [sys.executable, str(ROOT / "trainers" / script), *arguments]


def tiny_trainer(*arguments, script="omniglot.py"):
    """The trainer itself, but for the number of features."""
    launch = (
        "import runpy, sys; from tests.conftest import tiny_sizes; "
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
