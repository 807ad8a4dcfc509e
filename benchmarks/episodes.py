"""Episodes a second from the input pipeline, at the recipe of Section 4.1.

    python benchmarks/episodes.py

28x28 grey images, support 5, 8 symmetries, 20 affine copies and dynamic
binarisation; no model. Prints episodes and images a second.
"""

import time

import numpy as np

from vhe_tf.data import Augmentation
from vhe_tf.data import EpisodeSampler
from vhe_tf.data import GroupedImages

_BATCH_SIZE = 32
_SUPPORT_SIZE = 5
_NUM_STEPS = 500


def main() -> None:
    """Times the pipeline on synthetic images of the size of Omniglot."""
    generator = np.random.default_rng(0)
    data = GroupedImages(
        generator.integers(0, 256, (19_280, 28, 28, 1), np.uint8),
        {"character": np.arange(19_280) // 20},
    )
    sampler = EpisodeSampler(
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
    print(
        f"{rate:,.0f} episodes a second, "
        f"{rate * (_SUPPORT_SIZE + 1):,.0f} images a second"
    )


if __name__ == "__main__":
    main()
