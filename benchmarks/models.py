"""Speed of the two architectures: training, scoring, drawing, evaluation.

    python benchmarks/models.py --architecture=deconvolutional
    python benchmarks/models.py --architecture=pixel_cnn

The small models on binary 28x28 images. Training and scoring stand beside the
rate of a large matrix product, the most arithmetic that the machine can do;
classification and the joint NLL beside the plain scoring of as many images.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import measure
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from measure import Figure
from small_models import GROUP
from small_models import MAKE
from small_models import images
from small_models import scoring
from small_models import training_step

from vhe_tf.evaluation import ClassScorer
from vhe_tf.evaluation.likelihood import JointScorer

_ARCHITECTURE = flags.DEFINE_enum(
    "architecture",
    "pixel_cnn",
    ["deconvolutional", "pixel_cnn"],
    "Which architecture to time.",
)

_BATCH_SIZE, _SUPPORT_SIZE = 16, 5
_NUM_WAYS, _NUM_SHOTS, _NUM_QUERIES, _NUM_SAMPLES = 20, 5, 5, 20
_GROUP_SIZE = 20
_SCORED_AT_ONCE = 400


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    keras.utils.set_random_seed(0)
    model = MAKE[_ARCHITECTURE.value]("small")
    train = training_step(model, _BATCH_SIZE, _SUPPORT_SIZE)
    score = scoring(model, _SCORED_AT_ONCE)
    product, product_operations = measure.matmul()
    seed = tf.constant([0, 0])
    support = images(_NUM_WAYS * _NUM_SHOTS, model).numpy()
    support = support.reshape(_NUM_WAYS, _NUM_SHOTS, *model.image_shape)
    scorer = ClassScorer(model, group=GROUP, num_samples=_NUM_SAMPLES)
    joint = JointScorer(model, group=GROUP)
    sample = tf.function(model.sample)
    supports = {GROUP: tf.constant(np.repeat(support[:1], 64, axis=0))}
    seconds = measure.best_seconds(
        {
            "product": product,
            "train": train,
            "score": score,
            "classify": functools.partial(
                scorer,
                support,
                images(_NUM_QUERIES, model).numpy(),
                seed=(0, 0),
            ),
            "joint": functools.partial(
                joint,
                images(_GROUP_SIZE, model).numpy(),
                _NUM_SAMPLES,
                seed=(0, 0),
            ),
            "sample": functools.partial(sample, supports, seed=seed),
        }
    )
    product_rate = product_operations / seconds["product"]
    score_rate = _SCORED_AT_ONCE / seconds["score"]

    def of_arithmetic(name: str, function: Any) -> dict[str, Any]:
        rate = measure.operations(function) / seconds[name]
        return {
            "yardstick": "the rate of arithmetic of a large matrix product",
            "ratio": rate / product_rate,
        }

    def of_scoring(name: str, num_decoded: int) -> dict[str, Any]:
        return {
            "yardstick": "the plain scoring of as many images",
            "ratio": num_decoded / seconds[name] / score_rate,
        }

    measure.report(
        f"The small {_ARCHITECTURE.value} model, "
        f"{model.count_params():,} parameters",
        [
            Figure(
                "a large matrix product",
                product_rate / 1e9,
                "billion operations per second",
            ),
            Figure(
                f"training, batches of {_BATCH_SIZE}, |D| = {_SUPPORT_SIZE}",
                _BATCH_SIZE / seconds["train"],
                "episodes per second",
                **of_arithmetic("train", train),
            ),
            Figure(
                "the arithmetic of a training step",
                measure.operations(train) / _BATCH_SIZE / 1e6,
                "million operations per episode",
            ),
            Figure(
                "scoring, p(x | c)",
                score_rate,
                "images per second",
                **of_arithmetic("score", score),
            ),
            Figure(
                "the arithmetic of scoring",
                measure.operations(score) / _SCORED_AT_ONCE / 1e6,
                "million operations per image",
            ),
            Figure(
                f"classification, {_NUM_WAYS}-way {_NUM_SHOTS}-shot, "
                f"{_NUM_SAMPLES} samples",
                _NUM_QUERIES / seconds["classify"],
                "queries per second",
                **of_scoring(
                    "classify", _NUM_QUERIES * _NUM_WAYS * _NUM_SAMPLES
                ),
            ),
            Figure(
                f"joint NLL of {_GROUP_SIZE} images, k = {_NUM_SAMPLES}",
                1 / seconds["joint"],
                "groups per second",
                **of_scoring("joint", _GROUP_SIZE * _NUM_SAMPLES),
            ),
            Figure(
                "conditional sampling, 64 at once",
                64 / seconds["sample"],
                "images per second",
            ),
        ],
    )


if __name__ == "__main__":
    app.run(main)
