"""Shared parts of the benchmarks: timing, arithmetic, a table of figures.

A figure is compared with a baseline that is timed in turn with it in one run:
ratios hold on a noisy machine, seconds do not. With `--json` the figures
are written to a file as well; bench.py collects these files.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import flags

from vhe_tf.experiments import provenance

_JSON = flags.DEFINE_string(
    "json", None, "Write the figures to this file too, for bench.py."
)
ROUNDS = flags.DEFINE_integer(
    "rounds", 3, "Rounds, of which the best or the median counts."
)

_MATMUL_SIZE = 1024

_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy")
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
}


class Figure(NamedTuple):
    """A measurement.

    Attributes:
        what: String. Name of the measurement.
        value: Float.
        unit: String. Unit of `value`.
        yardstick: String. Name of the baseline. Defaults to none.
        ratio: Float or None. Speed or size relative to the baseline.
        quartiles: Two floats or None. Lower and upper quartile of the ratio
            over the rounds.
    """

    what: str
    value: float
    unit: str
    yardstick: str = ""
    ratio: float | None = None
    quartiles: tuple[float, float] | None = None

    def of_ratio(self) -> str:
        """Returns the ratio and its quartiles as they are shown."""
        if self.ratio is None:
            return ""
        if self.quartiles is None:
            return f"{self.ratio:.2f}"
        low, high = map(shown, self.quartiles)
        return f"{shown(self.ratio)} ({low} to {high})"


def best_seconds(
    calls: Mapping[str, Callable[[], Any]], *, repeats: int = 1
) -> dict[str, float]:
    """Times calls in turn, as `all_seconds` does.

    Returns:
        For each name the wall seconds of one call, the best of all rounds.
    """
    seconds = all_seconds(calls, repeats=repeats)
    return {name: float(values[:, 0].min()) for name, values in seconds.items()}


def all_seconds(
    calls: Mapping[str, Callable[[], Any]], *, repeats: int = 1
) -> dict[str, np.ndarray]:
    """Times calls in turn.

    Args:
        calls: Mapping of strings to callables. What to call, by name; each once
            before it is timed, to trace and compile.
        repeats: Integer. How many times in a row.

    Returns:
        For each name the wall seconds and the CPU seconds of one call,
        `[rounds, 2]`.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        _wait_for(call())
    for _ in range(ROUNDS.value):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                output = call()
            _wait_for(output)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            seconds[name].append((wall / repeats, cpu / repeats))
    return {name: np.array(values) for name, values in seconds.items()}


def operations(function: Any) -> float:
    """Returns the floating point operations of a call of a function.

    As TensorFlow counts them in its graph: those of convolutions, matrix
    products and elementwise operations, of their gradients too. Operations in
    a loop are counted once.

    Args:
        function: `tf.function`. A function traced with static shapes, as
            `get_concrete_function` returns.
    """
    profiler = tf.compat.v1.profiler
    options = (
        profiler.ProfileOptionBuilder(
            profiler.ProfileOptionBuilder.float_operation()
        )
        .with_empty_output()
        .build()
    )
    profile = profiler.profile(function.graph, options=options)
    return float(profile.total_float_ops)


def matmul() -> tuple[Callable[[], Any], float]:
    """Returns a product of large matrices, and its operations.

    The yardstick of arithmetic: about the most that the machine can do.
    """
    a = tf.random.stateless_normal([_MATMUL_SIZE, _MATMUL_SIZE], [0, 0])
    function = tf.function(lambda: tf.linalg.matmul(a, a))
    return function, 2.0 * _MATMUL_SIZE**3


def report(title: str, figures: list[Figure]) -> None:
    """Prints figures, and keeps them where `--json` says.

    Args:
        title: String. What they have in common.
        figures: List of `Figure`s. The figures.
    """
    width = max(len(figure.what) for figure in figures)
    print(f"\n{title}")
    for figure in figures:
        line = f"  {figure.what:{width}}  {shown(figure.value):>9}"
        line += f" {figure.unit}"
        if figure.ratio is not None:
            line += f"; {figure.of_ratio()} times {figure.yardstick}"
        print(line, flush=True)
    if _JSON.value is None:
        return
    path = pathlib.Path(_JSON.value)
    tables = json.loads(path.read_text("utf-8")) if path.exists() else []
    tables.append(
        {
            "title": title,
            "machine": machine(),
            "figures": [figure._asdict() for figure in figures],
        }
    )
    path.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")


def machine(packages: Sequence[str] = _PACKAGES) -> str:
    """Returns what figures depend on beside the code, for a reader.

    Args:
        packages: Strings. Names of the packages whose versions to include.

    Returns:
        The number of cores that this process may use, which is that of the
        threads of a pool; the processor and its vector instructions; whether
        TensorFlow uses oneDNN, and those that it may use at most; versions.
    """
    count = len(os.sched_getaffinity(0))
    most = os.environ.get("ONEDNN_MAX_CPU_ISA")
    limit = f" (at most {most})" if most else ""
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{p} {importlib.metadata.version(p)}" for p in packages]
    return "; ".join(
        [
            f"{count} thread{'s' * (count != 1)}",
            f"{provenance.processor()} ({', '.join(_instructions())})",
            f"oneDNN {'on' if provenance.has_onednn() else 'off'}{limit}",
            ", ".join(versions),
        ]
    )


def _instructions() -> list[str]:
    path = pathlib.Path("/proc/cpuinfo")
    text = path.read_text("utf-8") if path.exists() else ""
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    found = next(lines, "").split()
    return [name for flag, name in _INSTRUCTIONS.items() if flag in found] or [
        "no AVX2"
    ]


def shown(value: float) -> str:
    """Returns a number in three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _wait_for(output: Any) -> None:
    tf.nest.map_structure(np.asarray, output)
