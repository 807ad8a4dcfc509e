"""Shared parts of the benchmarks: timing, arithmetic, a table of figures.

A figure is compared with a baseline that is timed in turn with it in one run:
ratios hold on a noisy machine, seconds do not. With `--json` the figures
are written to a file as well; bench.py collects these files.
"""

import json
import pathlib
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import flags

_JSON = flags.DEFINE_string(
    "json", None, "Write the figures to this file too, for bench.py."
)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds, of which the best counts.")

_MATMUL_SIZE = 1024


class Figure(NamedTuple):
    """A measurement.

    Attributes:
        what: String. Name of the measurement.
        value: Float.
        unit: String. Unit of `value`.
        yardstick: String. Name of the baseline. Defaults to none.
        ratio: Float or None. Speed or size relative to the baseline.
    """

    what: str
    value: float
    unit: str
    yardstick: str = ""
    ratio: float | None = None


def best_seconds(
    calls: Mapping[str, Callable[[], Any]], *, repeats: int = 1
) -> dict[str, float]:
    """Times calls in turn.

    Args:
        calls: What to call, by name; each once before it is timed, to trace
            and compile.
        repeats: How many times in a row.

    Returns:
        For each name the seconds of one call, the best of all rounds.
    """
    best = {name: float("inf") for name in calls}
    for call in calls.values():
        _wait_for(call())
    for _ in range(ROUNDS.value):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats):
                output = call()
            _wait_for(output)
            seconds = (time.perf_counter() - start) / repeats
            best[name] = min(best[name], seconds)
    return best


def operations(function: Any) -> float:
    """Returns the floating point operations of a call of a function.

    As TensorFlow counts them in its graph: those of convolutions, matrix
    products and elementwise operations, of their gradients too. Operations in
    a loop are counted once.

    Args:
        function: A `tf.function` traced with static shapes, as
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
        title: What they have in common.
        figures: The figures.
    """
    width = max(len(figure.what) for figure in figures)
    print(f"\n{title}")
    for figure in figures:
        line = f"  {figure.what:{width}}  {shown(figure.value):>9}"
        line += f" {figure.unit}"
        if figure.ratio is not None:
            line += f"; {figure.ratio:.2f} times {figure.yardstick}"
        print(line, flush=True)
    if _JSON.value is None:
        return
    path = pathlib.Path(_JSON.value)
    tables = json.loads(path.read_text("utf-8")) if path.exists() else []
    tables.append({"title": title, "figures": [f._asdict() for f in figures]})
    path.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")


def shown(value: float) -> str:
    """Returns a number in three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _wait_for(output: Any) -> None:
    tf.nest.map_structure(np.asarray, output)
