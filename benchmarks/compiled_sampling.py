"""Processor seconds of samples by XLA, its compilation included.

    python benchmarks/compiled_sampling.py --model=omniglot_pixel_cnn_small

Each number of images is sampled by the method as it is and by the method in a
`tf.function` of XLA, for the same seeds. The last column says how many further
calls pay for the compilation.
"""

import functools
import time
from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf
from absl import app
from absl import flags

import vhe_tf
from vhe_tf import random

_MODEL = flags.DEFINE_string(
    "model", "omniglot_pixel_cnn_small", "The name of a model."
)
_ROWS = flags.DEFINE_list("rows", ["1", "4", "16", "64"], "Numbers of images.")
_CALLS = 5


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    model = vhe_tf.load_model(_MODEL.value)
    images = vhe_tf.data.generate_glyphs().images[: max(map(int, _ROWS.value))]
    images = tf.cast(images > 127, tf.float32)
    print("guidance images  as it is: first, later  XLA: first, later  pays")
    for guidance in (0.0, None):
        for rows in map(int, _ROWS.value):
            support = images[:rows, tf.newaxis]
            seeds = random.fold_in(0, tf.range(rows))

            sample = functools.partial(
                model.sample, support, seed=seeds, guidance=guidance
            )
            compiled = tf.function(sample, jit_compile=True, autograph=False)
            first, later = _seconds(sample)
            xla_first, xla_later = _seconds(compiled)
            saved = later - xla_later
            calls = (xla_first - first) / saved if saved > 0 else float("inf")
            print(
                f"{'0' if guidance == 0 else 'default':>8s} {rows:6d} "
                f"{first:16.2f} {later:6.3f} {xla_first:11.2f} "
                f"{xla_later:6.3f} {calls:5.0f}",
                flush=True,
            )


def _seconds(sample: Callable[[], tf.Tensor]) -> tuple[float, float]:
    """Returns those of the first call, and the least of later ones."""
    seconds = []
    for _ in range(1 + _CALLS):
        start = time.process_time()
        sample()
        seconds.append(time.process_time() - start)
    return seconds[0], min(seconds[1:])


if __name__ == "__main__":
    app.run(main)
