"""How a command ends if something is wrong: with a message, not a traceback."""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Iterator

from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.settings import flag_name

__all__ = [
    "failures_end_quietly",
    "interrupts_end_quietly",
    "mistakes_end_quietly",
    "quiet",
]

# What a shell expects of a program that Ctrl-C ended.
_INTERRUPTED = 130

_FLAGS = {
    field.name: flag_name(field) for field in dataclasses.fields(Experiment)
} | {"data_dir": "data_dir", "skip_corrupt": "skip_corrupt"}
_QUOTED = re.compile(rf"`({'|'.join(_FLAGS)})`")


@contextlib.contextmanager
def mistakes_end_quietly() -> Iterator[None]:
    """Ends the program with the message alone if a setting is wrong.

    For the setup of a command: settings, files and data. A setting that a
    message names becomes its flag. Errors from deeper down keep their
    traceback.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        text = _QUOTED.sub(lambda m: f"--{_FLAGS[m[1]]}", str(error))
        raise SystemExit(f"error: {text}") from error


@contextlib.contextmanager
def failures_end_quietly() -> Iterator[None]:
    """Ends the program with the message alone if a run cannot continue.

    For the work of a command. Any other error keeps its traceback.
    """
    from vhe_tf import errors
    from vhe_tf._utils import atomic_io
    from vhe_tf.data.datasets.records import recorded_images as records

    try:
        with records.damage_is_told():
            yield
    except (
        records.DamagedRecordsError,
        errors.NonFiniteLossError,
        errors.RunError,
        errors.WorkerLostError,
        atomic_io.NotWrittenError,
    ) as error:
        raise SystemExit(f"error: {error}") from error


@contextlib.contextmanager
def interrupts_end_quietly() -> Iterator[None]:
    """Ends the program with one line at Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt as error:
        print("\nInterrupted. No file is left half written.", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from error


def quiet() -> None:
    """Silences what TensorFlow logs; call it before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
