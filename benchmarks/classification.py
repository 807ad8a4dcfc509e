"""Cost of classification by all samples of each class, and by fewer.

    python benchmarks/classification.py

The shipped small PixelCNN classifies embedded drawings, 20-way 1-shot. Both
ways take turns in one run, one query at a time; ratios are of CPU seconds.
"""

import time
from collections.abc import Sequence

import measure
import numpy as np
from absl import app
from absl import flags
from measure import Figure

import vhe_tf
from vhe_tf.data import GroupedImages
from vhe_tf.data import generate_glyphs
from vhe_tf.evaluation import ClassScorer
from vhe_tf.evaluation import TaskDesign
from vhe_tf.evaluation import few_shot_tasks

_NUM_QUERIES = flags.DEFINE_integer("num_queries", 40, "Number of queries.")
_NUM_WAYS = 20


def main(argv: Sequence[str]) -> None:
    """Measures both ways on the same queries."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    model = vhe_tf.load_model("omniglot_pixel_cnn_small")
    data = generate_glyphs()
    images = (data.images >= 128).astype(np.float32)
    data = GroupedImages(images, data.labels)
    scorers = {
        max_error: ClassScorer(model, group="character", max_error=max_error)
        for max_error in (0.0, 0.001)
    }
    seconds = dict.fromkeys(scorers, 0.0)
    labels: dict[float, list[int]] = {max_error: [] for max_error in scorers}
    tasks = few_shot_tasks(
        data,
        TaskDesign(_NUM_WAYS, 1),
        group="character",
        num_tasks=_NUM_QUERIES.value + 1,
        seed=0,
    )
    for index, task in enumerate(tasks):
        for max_error, scorer in scorers.items():
            start = time.process_time()
            scores = scorer(task.support, task.queries[:1], seed=(0, index))
            if index:  # the first one is traced
                seconds[max_error] += time.process_time() - start
                labels[max_error].append(int(scores.argmax()))
    equal = np.equal(labels[0.0], labels[0.001])
    count = _NUM_QUERIES.value
    measure.report(
        f"{_NUM_WAYS}-way 1-shot classification, 20 samples, {count} queries",
        [
            Figure("every class by 20 samples", seconds[0.0] / count, "CPU s"),
            Figure(
                "by 4 samples, and contenders by 20",
                seconds[0.001] / count,
                "CPU s",
                "the speed of the former",
                seconds[0.0] / seconds[0.001],
            ),
            Figure("equal labels", float(equal.sum()), f"of {count}"),
        ],
    )


if __name__ == "__main__":
    app.run(main)
