"""A run of a tiny model, quick to trace, to be stopped, killed and resumed."""

import functools
import io
import pathlib
import zipfile

import h5py
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


@functools.cache
def _traced():
    """Returns a model and the values of all its variables at its start."""
    model = compiled_model()
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    return model, [(variable, variable.numpy()) for variable in variables]


def traced_model():
    """Returns what `compiled_model` does, without tracing its steps again.

    It is one model for all runs of a process, put back to its start.
    """
    model, values = _traced()
    for variable, value in values:
        variable.assign(value)
    model._eval_epoch_iterator = None  # of a run that was interrupted
    model.stop_training = False
    return model


def train(folder, sampler, *, model=None, callbacks=(), epochs=EPOCHS):
    folder.mkdir(parents=True, exist_ok=True)
    model = model or traced_model()
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


def resume(folder, sampler, *, model=None, callbacks=(), epochs=EPOCHS):
    """Resumes a run in a model that has other weights."""
    model = model or traced_model()
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


def weights_of(path):
    """Returns the arrays of a `.keras` file by their names in it."""
    with zipfile.ZipFile(path) as archive:
        file = io.BytesIO(archive.read("model.weights.h5"))
    arrays = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(file) as weights:
        weights.visititems(add)
    assert arrays
    return arrays


def assert_same_models(folder, expected, names=("last.keras", "best.keras")):
    """Checks that the models of two runs are equal, bit for bit."""
    for name in names:
        found, wanted = (weights_of(f / name) for f in (folder, expected))
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
