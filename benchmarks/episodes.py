"""Episodes per second from the input pipeline, at the recipe of Section 4.1.

    python benchmarks/episodes.py

28x28 grey images, support 5, 8 symmetries, 20 affine copies and dynamic
binarisation; no model.
"""

import time
from collections.abc import Sequence

import measure
import numpy as np
from absl import app
from measure import Figure

from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages

_BATCH_SIZE = 32
_SUPPORT_SIZE = 5
_NUM_STEPS = 500


def main(argv: Sequence[str]) -> None:
    """Times the pipeline on synthetic images of the size of Omniglot."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    generator = np.random.default_rng(0)
    data = GroupedImages(
        generator.integers(0, 256, (19_280, 28, 28, 1), np.uint8),
        {"character": np.arange(19_280) // 20},
    )
    sampler = Episodes(
        data,
        batch_size=_BATCH_SIZE,
        support_size=_SUPPORT_SIZE,
        resamples=True,
        augmentation=Augmentation(symmetries=8, affine_copies=20),
    )
    episodes = iter(sampler.dataset())
    for _ in range(20):
        next(episodes)
    start = time.perf_counter()
    for _ in range(_NUM_STEPS):
        next(episodes)
    seconds = time.perf_counter() - start
    rate = _NUM_STEPS * _BATCH_SIZE / seconds
    measure.report(
        "Episodes from memory: 28x28 grey, |D| = 5, 8 symmetries, 20 affine "
        "copies, dynamic binarisation",
        [
            Figure("episodes", rate, "per second"),
            Figure("images", rate * (_SUPPORT_SIZE + 1), "per second"),
        ],
    )


if __name__ == "__main__":
    app.run(main)
