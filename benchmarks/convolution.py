"""The convolutions of the architectures, one row per shape.

    python benchmarks/convolution.py
    TF_ENABLE_ONEDNN_OPTS=0 python benchmarks/convolution.py

Forward and both gradients of `vhe_tf.layers.shift_convolution.convolve`, beside
TensorFlow's convolution. They differ in 1x1 kernels, which are matrix products
here, and in the gradients of kernels of up to nine taps and eight or more
channels. CPU seconds, the best of all rounds, timed in turn.
"""

import functools
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import measure
import tensorflow as tf
from absl import app
from measure import Figure

from vhe_tf.layers.shift_convolution import convolve

_BATCH_SIZE, _SIZE = 16, 28
_REPEATS = 10

# Kernel (kh, kw), channels in and out.
_SHAPES = (
    ((3, 7), 1, 32),
    ((1, 3), 1, 32),
    ((1, 1), 8, 24),
    ((1, 1), 24, 64),
    ((1, 1), 32, 32),
    ((1, 1), 32, 64),
    ((1, 2), 32, 64),
    ((2, 3), 32, 64),
    ((3, 3), 16, 32),
    ((3, 3), 32, 48),
    ((3, 5), 40, 80),
    ((5, 5), 10, 80),
    ((2, 3), 64, 128),
)


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    figures = []
    for size, channels, filters in _SHAPES:
        (kh, kw) = size
        padding = ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2)
        ours, theirs = _cpu_seconds(
            [
                _gradients(
                    functools.partial(function, padding=padding),
                    size,
                    channels=channels,
                    filters=filters,
                )
                for function in (convolve, _tensorflow)
            ]
        )
        kernel = "x".join(map(str, size))
        figures.append(
            Figure(
                f"{kernel}, {channels} to {filters} channels",
                1000 * ours,
                "CPU ms",
                "TensorFlow's",
                theirs / ours,
            )
        )
    measure.report(
        f"Forward and both gradients of {_BATCH_SIZE} images of "
        f"{_SIZE}x{_SIZE}",
        figures,
    )


def _tensorflow(
    images: tf.Tensor, kernel: tf.Tensor, *, padding: Any
) -> tf.Tensor:
    return tf.nn.conv2d(images, kernel, 1, [(0, 0), *padding, (0, 0)])


def _gradients(
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    size: tuple[int, int],
    *,
    channels: int,
    filters: int,
) -> Callable[[], Any]:
    seed = [0, channels]
    shape = [_BATCH_SIZE, _SIZE, _SIZE, channels]
    images = tf.Variable(tf.random.stateless_normal(shape, seed))
    kernel = tf.Variable(
        tf.random.stateless_normal([*size, channels, filters], seed)
    )

    @tf.function
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(images.value(), kernel.value()))
        return tape.gradient(loss, [images, kernel])

    return gradients.get_concrete_function()


def _cpu_seconds(calls: Sequence[Callable[[], Any]]) -> list[float]:
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    for _ in range(measure.ROUNDS.value):
        for index, call in enumerate(calls):
            start = time.process_time()
            for _ in range(_REPEATS):
                call()
            seconds = (time.process_time() - start) / _REPEATS
            best[index] = min(best[index], seconds)
    return best


if __name__ == "__main__":
    app.run(main)
