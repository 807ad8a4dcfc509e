"""Memory and time of a training step, in one batch and in microbatches.

    python benchmarks/accumulation.py

The small models, batches of 128 episodes with supports of 5. Each figure is of
a process of its own: the largest resident memory of a few steps, beyond what
it was before the first.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import keras
import measure
import numpy as np
import small_models
import tensorflow as tf
from absl import app
from absl import flags
from measure import Figure

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Episodes per step.")
_ACCUMULATION = flags.DEFINE_list(
    "accumulation", ["1", "4", "16"], "Microbatches per step, each to measure."
)
_HERE = flags.DEFINE_string(
    "here", None, "Measure only this architecture, in this process."
)

_SUPPORT_SIZE = 5


def main(argv: Sequence[str]) -> None:
    """Measures each number of microbatches and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    if _HERE.value:
        [accumulation] = _ACCUMULATION.value
        print(json.dumps(_measured(_HERE.value, int(accumulation))))
        return
    for architecture in small_models.MAKE:
        counts = _ACCUMULATION.value
        measured = [_in_a_process(architecture, count) for count in counts]
        figures: list[Figure] = []
        for count, (mebibytes, seconds) in zip(counts, measured, strict=True):
            memory = Figure(f"memory, accumulation {count}", mebibytes, "MiB")
            rate = Figure(
                f"speed, accumulation {count}", 1 / seconds, "steps per second"
            )
            if figures:
                yardstick = f"accumulation {counts[0]}"
                memory = memory._replace(
                    yardstick=yardstick, ratio=mebibytes / measured[0][0]
                )
                rate = rate._replace(
                    yardstick=yardstick, ratio=measured[0][1] / seconds
                )
            figures += [memory, rate]
        measure.report(
            f"The small {architecture} model, steps of {_BATCH_SIZE.value} "
            "episodes",
            figures,
        )


def _in_a_process(architecture: str, count: str) -> tuple[float, float]:
    output = subprocess.run(
        [
            sys.executable,
            __file__,
            f"--here={architecture}",
            f"--accumulation={count}",
            f"--batch_size={_BATCH_SIZE.value}",
            f"--rounds={measure.ROUNDS.value}",
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=True,
        text=True,
    ).stdout
    mebibytes, seconds = json.loads(output.splitlines()[-1])
    return mebibytes, seconds


def _measured(architecture: str, accumulation: int) -> tuple[float, float]:
    """Returns the MiB and the seconds of a step."""
    keras.utils.set_random_seed(0)
    model = small_models.MAKE[architecture]("small")
    step = small_models.training_step(
        model, _BATCH_SIZE.value, _SUPPORT_SIZE, accumulation=accumulation
    )
    before = _resident()
    best = float("inf")
    for _ in range(1 + measure.ROUNDS.value):
        start = time.perf_counter()
        tf.nest.map_structure(np.asarray, step())
        best = min(best, time.perf_counter() - start)
    return _resident() - before, best


def _resident() -> float:
    """Returns the largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    app.run(main)
