"""A training step of one batch on one device and on two.

    python benchmarks/distribute.py

Two logical devices of one CPU share its cores, so that the best that per second
replica can do here is to cost nothing: what is measured is the price of the
distribution itself, its copies, reductions and the noise of the whole batch.
"""

import time
from collections.abc import Sequence

import keras
import measure
import numpy as np
import small_models
import tensorflow as tf
from absl import app
from measure import Figure

from vhe_tf import distribute
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages

_BATCH_SIZE, _NUM_STEPS = 32, 10


def main(argv: Sequence[str]) -> None:
    """Times `fit` on both and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    # One of each: reductions of per second one would meet those of the first.
    strategies = {
        name: distribute.make_strategy(name) for name in ("none", "mirrored")
    }
    for architecture in small_models.MAKE:
        seconds = {
            name: _seconds_a_step(architecture, strategy)
            for name, strategy in strategies.items()
        }
        measure.report(
            f"The small {architecture} model, batches of {_BATCH_SIZE}",
            [
                Figure("one replica", 1 / seconds["none"], "steps per second"),
                Figure(
                    "two replicas on the same cores",
                    1 / seconds["mirrored"],
                    "steps per second",
                    "one replica",
                    seconds["none"] / seconds["mirrored"],
                ),
            ],
        )


def _seconds_a_step(
    architecture: str, strategy: tf.distribute.Strategy
) -> float:
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = small_models.MAKE[architecture]("small")
        model.compile(small_models.optimizer(), jit_compile=False)
    pixels = np.random.default_rng(0).random((400, 28, 28, 1)) < 0.1
    sampler = Episodes(
        GroupedImages(
            pixels.astype(np.float32),
            {small_models.GROUP: np.arange(400) // 20},
        ),
        batch_size=_BATCH_SIZE,
        support_size=5,
        resamples=True,
    )
    best = float("inf")
    episodes = distribute.split(strategy, sampler.dataset)
    for _ in range(1 + measure.ROUNDS.value):
        start = time.perf_counter()
        model.fit(
            episodes, steps_per_epoch=_NUM_STEPS, shuffle=False, verbose=0
        )
        # The first round traces, and is never the best.
        best = min(best, (time.perf_counter() - start) / _NUM_STEPS)
    return best


if __name__ == "__main__":
    app.run(main)
