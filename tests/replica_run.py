"""Tiny runs on one device, on two of one process, or on two processes.

Executed as

    python -m tests.replica_run none|mirrored|multi_worker RUN...

where each run is a JSON object of the arguments of `train`, or of
`fit_as_keras_does`. The seed is a setting alone; "labels" in its place leaves
settings equal, and the labels of one image not.
"""

import json
import os
import pathlib
import signal
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import vhe_tf
from tests.conftest import perturb
from vhe_tf import callbacks
from vhe_tf import distribute
from vhe_tf import errors
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.layers import dropout
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.models import loading

EPOCHS, STEPS = 3, 4


def sampler(seed=0, missing=0):
    """Makes episodes of which some have no character."""
    generator = np.random.default_rng(0)
    labels = np.arange(40) // 10
    labels[::7] = MISSING
    labels[:missing] = MISSING
    data = GroupedImages(
        (generator.random((40, 8, 8, 1)) < 0.3).astype(np.float32),
        {"character": labels},
    )
    return Episodes(
        data,
        batch_size=8,
        support_size=(1, 3),
        resamples=True,
        augmentation=Augmentation(affine_copies=2),
        seed=seed,
    )


def compiled_model(*, accumulation=1, jit_compile=False):
    """Makes a model of all that could tell one layout from another.

    Dropout, both kinds of latents, and an optimizer that clips,
    averages, and unlike Adam does not forgive a gradient of the wrong size.
    """
    keras.utils.set_random_seed(0)
    decoder = [
        keras.layers.Dense(16, "tanh"),
        dropout.SeededDropout(0.5),
        keras.layers.Dense(64),
        keras.layers.Reshape((8, 8, 1)),
    ]
    model = vhe_tf.VHE(
        [
            vhe_tf.Latent(
                "character",
                prior=heads.StandardNormal(2),
                posterior=inference.SupportPosterior(
                    keras.layers.Flatten(), latent_size=2, units=3
                ),
            ),
            vhe_tf.Latent(
                "element",
                prior=inference.ConditionalNormal(2, 3),
                posterior=inference.QueryPosterior(
                    keras.layers.Flatten(), 2, 3
                ),
                parents=["character"],
                per_element=True,
            ),
        ],
        inference.ImageLikelihood(
            keras.Sequential(decoder), heads.BernoulliImageHead()
        ),
        event_shape=(8, 8, 1),
    )
    perturb(model)
    model.compile(
        keras.optimizers.SGD(
            0.05, global_clipnorm=CLIP_NORM, use_ema=True, ema_momentum=0.5
        ),
        kl_warmup_steps={"element": 6},
        accumulation=accumulation,
        jit_compile=jit_compile,
    )
    return model


END = "The run has ended."  # a line after each

# Between the norms of some steps and those of others.
CLIP_NORM = 6.0


class History(keras.callbacks.Callback):
    """Writes the logs of every step and epoch, and keeps a pace."""

    def __init__(self, path, pace):
        super().__init__()
        self._path = path
        self._pace = pace
        self._rows = []

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(self._pace)
        self._rows.append({k: float(v) for k, v in logs.items()})

    def on_epoch_end(self, epoch, logs=None):
        self._rows.append({k: float(v) for k, v in logs.items()})
        if os.environ.get("ASKED_AT_THE_END") and epoch == EPOCHS - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        self._path.write_text(json.dumps(self._rows))


def train(strategy, folder, pace=0.0, seed=0, **options):
    with strategy.scope():
        model = compiled_model(**options)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.fit(
        sampler(
            missing=2 if seed == "labels" else 0,
            seed=0 if seed == "labels" else seed,
        ),
        validation_data=sampler(seed=1),
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        callbacks=[
            History(folder / "history.json", pace),
            callbacks.BestModel(folder / "best.keras"),
            callbacks.ProgressLine(),
            callbacks.ExactResume(folder / "checkpoints"),
            callbacks.Preemption(),
        ],
        validation_steps=2,
        verbose=0,
    )
    if distribute.is_chief(strategy):
        loading.save_model(model, folder / "last.keras")
    return model


def fit_as_keras_does(strategy, path, **options):
    """Trains by `keras.Model.fit`, and saves the metrics and the weights."""
    with strategy.scope():
        model = compiled_model(**options)
    history = model.fit(
        sampler().dataset(),
        epochs=2,
        steps_per_epoch=STEPS,
        shuffle=False,
        verbose=0,
    ).history
    with open(path, "wb") as file:
        np.savez(file, *model.get_weights(), **history)


def two_devices():
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )


def main(distribution, *runs):
    if distribution == "mirrored":
        two_devices()
    strategy = distribute.make_strategy(distribution)
    if distribution != "none":
        assert strategy.num_replicas_in_sync == 2
    for run in map(json.loads, runs):
        try:
            (fit_as_keras_does if "path" in run else train)(strategy, **run)
        except errors.WorkerLostError as error:
            raise SystemExit(f"error: {error}") from error
        except ValueError as error:  # one that all workers have
            print(f"error: {error}")
        print(END, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
