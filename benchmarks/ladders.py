"""Growth of costs: one size is doubled at a time, the others are fixed.

    python benchmarks/ladders.py

Measures the small models: a training step by image size, support size and
batch size; classification by classes and samples. Each figure is compared with
the one before it: a ratio of 2 is linear growth, 4 is that of an area.
"""

import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import measure
import numpy as np
import small_models
from absl import app
from absl import flags
from measure import Figure

from vhe_tf import VHE
from vhe_tf.evaluation import ClassScorer

_ARCHITECTURES = flags.DEFINE_list(
    "architectures", list(small_models.MAKE), "Which architectures to time."
)

_IMAGE_SIZES = (14, 28, 56)
_SUPPORT_SIZES = (1, 2, 4, 8, 16)
_BATCH_SIZES = (8, 16, 32, 64)
_NUM_WAYS = (5, 10, 20, 40)
_NUM_SAMPLES = (5, 10, 20)


def main(argv: Sequence[str]) -> None:
    """Measures each ladder of each architecture."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    for architecture in _ARCHITECTURES.value:
        keras.utils.set_random_seed(0)
        make = functools.partial(small_models.MAKE[architecture], "small")
        for what, calls in (
            ("image size", _by_image_size(make)),
            ("support size", _by_support_size(make)),
            ("batch size", _by_batch_size(make)),
            ("classes", _by_num_ways(make())),
            ("samples", _by_num_samples(make())),
        ):
            _report(f"{architecture}, by {what}", calls)


def _report(title: str, calls: dict[str, Callable[[], Any]]) -> None:
    figures: list[Figure] = []
    for name, seconds in measure.best_seconds(calls).items():
        milliseconds = 1000 * seconds
        if not figures:
            figures.append(Figure(name, milliseconds, "ms"))
            continue
        before = figures[-1]
        figures.append(
            Figure(
                name,
                milliseconds,
                "ms",
                "the one before",
                milliseconds / before.value,
            )
        )
    measure.report(title, figures)


def _by_image_size(make: Callable[..., VHE]) -> dict[str, Callable[[], Any]]:
    return {
        f"training step, {size}x{size}": small_models.training_step(
            make(image_shape=(size, size, 1)), 16, 5
        )
        for size in _IMAGE_SIZES
    }


def _by_support_size(make: Callable[..., VHE]) -> dict[str, Callable[[], Any]]:
    return {
        f"training step, |D| = {size}": small_models.training_step(
            make(), 16, size
        )
        for size in _SUPPORT_SIZES
    }


def _by_batch_size(make: Callable[..., VHE]) -> dict[str, Callable[[], Any]]:
    return {
        f"training step, batch of {size}": small_models.training_step(
            make(), size, 5
        )
        for size in _BATCH_SIZES
    }


def _by_num_ways(model: VHE) -> dict[str, Callable[[], Any]]:
    return {
        f"classifying a query, {ways}-way 5-shot, 5 samples": _classification(
            model, ways, 5
        )
        for ways in _NUM_WAYS
    }


def _by_num_samples(model: VHE) -> dict[str, Callable[[], Any]]:
    return {
        f"classifying a query, 5-way 5-shot, {count} samples": _classification(
            model, 5, count
        )
        for count in _NUM_SAMPLES
    }


def _classification(
    model: VHE, num_ways: int, num_samples: int
) -> Callable[[], np.ndarray]:
    scorer = ClassScorer(
        model, group=small_models.GROUP, num_samples=num_samples
    )
    support = small_models.images(5 * num_ways, model).numpy()
    support = support.reshape(num_ways, 5, *model.image_shape)
    return functools.partial(
        scorer, support, small_models.images(1, model).numpy(), seed=(0, 0)
    )


if __name__ == "__main__":
    app.run(main)
