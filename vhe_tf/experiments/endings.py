"""Ends of commands on an error: a message, no traceback."""

import contextlib
import importlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

from vhe_tf._utils.progress import status_line
from vhe_tf._utils.warning_texts import reworded_warnings
from vhe_tf.experiments.settings import SettingsError
from vhe_tf.experiments.settings import in_flags

__all__ = [
    "exit_on_closed_output",
    "exit_on_run_error",
    "exit_on_user_error",
    "import_tensorflow",
]

# The status that a shell expects of a program that a closed pipe ended.
_CLOSED_PIPE = 141
_NVIDIA_DRIVER = pathlib.Path("/proc/driver/nvidia")


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with the message alone if a setting is wrong.

    For the setup of a command: settings, files and data. A setting that a
    message or a warning names becomes its flag. Errors from deeper down keep
    their traceback.
    """
    try:
        with reworded_warnings(in_flags):
            yield
    except SettingsError as error:
        raise SystemExit(f"error: {error.in_flags()}") from error
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {in_flags(str(error))}") from error


@contextlib.contextmanager
def exit_on_run_error() -> Iterator[None]:
    """Ends the program with the message alone if a run cannot continue.

    For the work of a command. Any other error keeps its traceback.
    """
    from vhe_tf import errors
    from vhe_tf._utils import atomic_io
    from vhe_tf.data.datasets.records import recorded_images as records

    try:
        with records.name_corrupt_records():
            yield
    except (
        records.CorruptRecordsError,
        errors.NonFiniteLossError,
        errors.RunError,
        errors.WorkerLostError,
        atomic_io.NotWrittenError,
    ) as error:
        raise SystemExit(f"error: {error}") from error


@contextlib.contextmanager
def exit_on_closed_output() -> Iterator[None]:
    """Ends the program without a message if nobody reads what it prints.

    As in `vhe-tf train --help | head`.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        # What is still in the buffer would fail at the interpreter's end.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise SystemExit(_CLOSED_PIPE) from error


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines that need nobody's attention.

    These are its information, and, on a machine without an NVIDIA driver, that
    there is no GPU and which types oneDNN leaves to others. Its warnings and
    errors are shown. oneDNN, which TensorFlow uses by itself on some processors
    alone, is on unless `TF_ENABLE_ONEDNN_OPTS` is set.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "tensorflow" in sys.modules:
        return
    with status_line("importing TensorFlow"), _filtered_errors():
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for GPUs
        importlib.import_module("vhe_tf.models.vhe")  # TensorFlow Probability
        if not _NVIDIA_DRIVER.exists() and "TF_CONFIG" not in os.environ:
            # oneDNN names one type, at the first operation that has it.
            tf.transpose(tf.zeros([1, 1], tf.int32))


@contextlib.contextmanager
def _filtered_errors() -> Iterator[None]:
    """Filters what libraries write to the error stream of the process."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        stream = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stream, 2)
            os.close(stream)
            written.seek(0)
            text = written.read().decode(errors="replace")
            sys.stderr.write(_without_noise(text))


def _without_noise(text: str) -> str:
    noise = [r"I\d{4} ", "WARNING: All log messages before absl::"]
    if not _NVIDIA_DRIVER.exists():
        noise.append(r"[EW]\d{4} .* cuda_\w+\.cc:")
        noise.append(r"E\d{4} .* oneDNN supports DT_")
    pattern = re.compile("|".join(noise))
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not pattern.match(line))
