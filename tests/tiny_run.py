"""A run of a tiny model, quick to trace, to be stopped, killed and resumed."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

import vhe_tf
from vhe_tf import optimizers
from vhe_tf.callbacks import BestModel
from vhe_tf.callbacks import ExactResume
from vhe_tf.callbacks import Preemption
from vhe_tf.callbacks import ProgressLine
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.models import loading

EPOCHS, STEPS = 3, 4


class Die(keras.callbacks.Callback):
    """Interrupts training after a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            raise KeyboardInterrupt


def sampler():
    generator = np.random.default_rng(0)
    data = GroupedImages(
        (generator.random((40, 8, 8, 1)) < 0.3).astype(np.float32),
        {"character": np.arange(40) // 10},
    )
    return Episodes(
        data,
        batch_size=4,
        support_size=(1, 3),
        resamples=True,
        augmentation=Augmentation(affine_copies=2, symmetries=8),
    )


def tiny_model():
    """Makes a model of a class latent of two numbers."""
    keras.utils.set_random_seed(0)
    return vhe_tf.VHE(
        [
            vhe_tf.Latent(
                "character",
                prior=heads.StandardNormal(2),
                posterior=inference.SupportPosterior(
                    keras.layers.Flatten(), latent_size=2, units=3
                ),
            )
        ],
        inference.ImageLikelihood(
            keras.Sequential(
                [keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))]
            ),
            heads.BernoulliImageHead(),
        ),
        event_shape=(8, 8, 1),
    )


def compiled_model(*, use_ema=True):
    model = tiny_model()
    model.compile(
        optimizers.AveragingAdam(1e-2, use_ema=use_ema, ema_momentum=0.5)
    )
    return model


def train(folder, sampler, *, model=None, callbacks=(), epochs=EPOCHS):
    folder.mkdir(parents=True, exist_ok=True)
    model = model or compiled_model()
    model.fit(
        sampler,
        validation_data=sampler,
        epochs=epochs,
        steps_per_epoch=STEPS,
        callbacks=[
            *callbacks,
            BestModel(folder / "best.keras"),
            ProgressLine(),
            ExactResume(folder / "checkpoints"),
            Preemption(),
        ],
        validation_steps=1,
        verbose=0,
    )
    loading.save_model(model, folder / "last.keras")
    return model


def resume(folder, sampler, *, callbacks=(), epochs=EPOCHS):
    """Resumes a run in a model that has other weights."""
    model = compiled_model()
    keras.utils.set_random_seed(99)  # nothing may depend on the global seed
    if list((folder / "checkpoints").glob("*.index")):
        model.set_weights([w + 1 for w in model.get_weights()])
    return train(
        folder, sampler, model=model, callbacks=callbacks, epochs=epochs
    )


def latest(folder):
    """Returns the name of the checkpoint to resume from, if any."""
    path = tf.train.latest_checkpoint(folder / "checkpoints")
    return path and pathlib.Path(path).name


def assert_same_models(folder, expected, names=("last.keras", "best.keras")):
    """Checks that the models of two runs are equal, bit for bit."""
    for name in names:
        for value, wanted in zip(
            vhe_tf.load_model(folder / name).get_weights(),
            vhe_tf.load_model(expected / name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(value, wanted)
