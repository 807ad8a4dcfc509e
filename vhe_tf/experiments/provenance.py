"""The provenance of a run: its code, its machine, its data."""

import functools
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
from typing import Any

__all__ = [
    "gpu_name",
    "has_onednn",
    "machine",
    "of_this_process",
    "processor",
    "versions",
]

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def of_this_process() -> dict[str, Any]:
    """Returns what the results of a run may depend on beside its settings.

    Returns:
        `versions`; `commit`, where the package is in a git checkout (with a
        `+` if files are changed); `onednn`, whether TensorFlow uses oneDNN;
        `processor`; and `gpu` where there is one.
    """
    found = {
        "versions": versions(),
        "commit": _commit(),
        "onednn": has_onednn(),
        "processor": processor(),
        "gpu": gpu_name(),
    }
    return {name: value for name, value in found.items() if value is not None}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that matter."""
    packages = ("vhe_tf", "tensorflow", "keras", "tensorflow-probability")
    return {
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def machine() -> str:
    """Returns the GPU, the processor and its cores, for a reader."""
    count = len(os.sched_getaffinity(0))
    text = f"{count} core{'s' * (count != 1)} of {processor()}"
    gpu = gpu_name()
    return f"{gpu}, {text}" if gpu else text


@functools.cache
def processor() -> str:
    """Returns the name of the processor."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def gpu_name() -> str | None:
    """Returns the name of the first NVIDIA GPU, or None."""
    names = _lines_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names[0].strip() if names else None


@functools.cache
def _commit() -> str | None:
    if not (_ROOT / ".git").exists():
        return None
    git = ("git", "-C", str(_ROOT))
    commit = _lines_of(*git, "rev-parse", "HEAD")
    changed = _lines_of(*git, "status", "--porcelain", "--untracked-files=no")
    return commit[0] + "+" * bool(changed) if commit else None


def has_onednn() -> bool:
    """Returns whether TensorFlow uses oneDNN in this process."""
    from tensorflow.python.util import _pywrap_util_port

    return bool(_pywrap_util_port.IsMklEnabled())


def _lines_of(program: str, *arguments: str) -> list[str]:
    """Returns what a program prints; nothing if it is missing or fails."""
    if not shutil.which(program):
        return []
    answer = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False
    )
    return answer.stdout.splitlines() if answer.returncode == 0 else []
