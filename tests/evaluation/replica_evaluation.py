"""All measurements of a small model, on some devices of one process.

Run as `python -m tests.evaluation.replica_evaluation NUM_DEVICES MODEL OUT`.
"""

import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import vhe_tf
from tests.conftest import IMAGE_SHAPE
from tests.conftest import tiny_episode
from vhe_tf import callbacks
from vhe_tf import distribute
from vhe_tf.data import GroupedImages
from vhe_tf.evaluation import ClassScorer
from vhe_tf.evaluation import EvaluationSettings
from vhe_tf.evaluation import JointScorer
from vhe_tf.evaluation import TaskDesign
from vhe_tf.evaluation import evaluate
from vhe_tf.evaluation import few_shot_tasks
from vhe_tf.evaluation import joint_nll

# Of no size is there an even number of groups.
SIZES = (7, 8, 7, 9, 7, 7, 7)
MAX_DECODED = 12


def data():
    generator = np.random.default_rng(0)
    ink = generator.random((len(SIZES), *IMAGE_SHAPE)) < 0.3
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    flipped = generator.random((len(labels), *IMAGE_SHAPE)) < 0.1
    return GroupedImages(
        np.float32(ink[labels] ^ flipped), {"character": labels}
    )


def counted(model):
    """Lists which replica decodes how many images whenever it does."""
    decoded = []
    call = model.likelihood.call

    def spy(**latents):
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context else 0
        leading = tf.shape(latents["character"])[:-1]
        tf.py_function(
            lambda *values: decoded.append([int(v) for v in values]),
            [replica, tf.reduce_prod(leading)],
            [],
        )
        return call(**latents)

    model.likelihood.call = spy
    return decoded


def measure(strategy, path):
    """Returns all that is measured, JSON values."""
    with strategy.scope():
        model = vhe_tf.load_model(path)
    decoded = counted(model)
    images = data()
    lines = []
    measured = evaluate(
        model,
        images,
        group="character",
        settings=EvaluationSettings(
            ways=[3],
            shots=[1],
            num_tasks=5,
            num_samples=4,
            num_element_samples=2,
            joint_num_samples=7,
            refinement_steps=2,
            max_decoded=MAX_DECODED,
            seed=3,
        ),
        progress=lines.append,
    )
    decoded.clear()  # the ELBO's batches are larger
    scorer = ClassScorer(
        model, group="character", num_samples=20, max_decoded=MAX_DECODED
    )
    design = TaskDesign(num_ways=3, num_shots=2)
    tasks = few_shot_tasks(images, design, group="character", num_tasks=5)
    scored = [
        [task.labels.tolist(), scores.tolist(), task.queries.sum()]
        for task, scores in scorer.each(tasks, seed=1)
    ]
    joint_nll(
        JointScorer(model, group="character", max_decoded=MAX_DECODED),
        images,
        num_samples=5,
    )
    shares = tally(decoded)
    [task] = few_shot_tasks(images, design, group="character", num_tasks=1)
    alone = scorer(task.support, task.queries, seed=(1, 0))
    return {
        "report": measured.to_json(),
        "tasks": json.loads(json.dumps(scored, default=float)),
        "alone": alone.tolist(),
        "last_line": lines[-1],
        "shares": shares,
        "logs": monitored(strategy, path),
    }


def tally(decoded):
    """Returns the most at once and the sum, for each replica that decoded."""
    ids = sorted({replica for replica, _ in decoded})
    counts = [[n for r, n in decoded if r == replica] for replica in ids]
    return [[max(of_one), sum(of_one)] for of_one in counts]


def monitored(strategy, path):
    """Returns what monitors add to the logs of an epoch of training."""
    with strategy.scope():
        model = vhe_tf.load_model(path)
        model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    images = data()
    kept = keras.callbacks.History()
    model.fit(
        distribute.split(
            strategy,
            lambda **_: tf.data.Dataset.from_tensors(
                tiny_episode(batch_size=6)
            ).repeat(2),
        ),
        steps_per_epoch=1,
        shuffle=False,
        verbose=0,
        callbacks=[
            callbacks.FewShotAccuracy(
                images, group="character", num_ways=3, shots=(1,), num_tasks=5
            ),
            callbacks.Likelihoods(
                images, group="character", shots=(1,), num_queries=5
            ),
            kept,
        ],
    )
    return {name: values[0] for name, values in kept.history.items()}


def main(num_devices, path, out):
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * int(num_devices)
    )
    strategy = distribute.make_strategy("mirrored")
    assert strategy.num_replicas_in_sync == int(num_devices)
    result = measure(strategy, pathlib.Path(path))
    pathlib.Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
