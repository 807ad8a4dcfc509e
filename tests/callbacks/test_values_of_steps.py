"""Values of training steps, which wait on their device until they are read."""

import json
import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_run
from vhe_tf import errors
from vhe_tf.callbacks import ExactResume
from vhe_tf.callbacks import Preemption


@pytest.fixture(scope="module")
def sampler():
    return tiny_run.sampler()


class _Keep(keras.callbacks.Callback):
    """Keeps the values of each step, without reading one."""

    reads_lazily = True

    def __init__(self, poisoned=None):
        super().__init__()
        self.values = []
        self.poisoned = poisoned

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs)
        if batch + 1 == self.poisoned:
            variable = self.model.trainable_variables[-1]
            variable.assign(tf.fill(variable.shape, np.nan))


def _fit(folder, sampler, *called, gpu):
    found = [types.SimpleNamespace(device_type="GPU")] if gpu else []
    model = tiny_run.compiled_model()
    with mock.patch.object(
        tf.config, "list_physical_devices", return_value=found
    ):
        model.fit(
            sampler,
            epochs=1,
            steps_per_epoch=24,
            callbacks=[*called, ExactResume(folder), Preemption()],
            verbose=0,
        )


@pytest.mark.parametrize(
    ("gpu", "read"), [(True, [10, 20, 24]), (False, list(range(1, 25)))]
)
def test_with_a_gpu_few_steps_wait_for_their_values(
    gpu, read, tmp_path, sampler
):
    kept = _Keep()
    _fit(tmp_path, sampler, kept, gpu=gpu)
    assert read == [
        step
        for step, values in enumerate(kept.values, 1)
        if isinstance(values.data["loss"], float)
    ]
    assert isinstance(dict(kept.values[0])["elbo"], float)


def test_with_a_gpu_a_bad_loss_is_found_all_the_same(tmp_path, sampler):
    with pytest.raises(errors.NonFiniteLossError, match=r"loss .* step 10\."):
        _fit(tmp_path, sampler, _Keep(poisoned=4), gpu=True)


def test_a_bad_loss_between_two_checks_is_not_saved(tmp_path, sampler):
    class Heal(_Keep):
        def on_train_batch_end(self, batch, logs=None):
            weights = self.model.get_weights()
            super().on_train_batch_end(batch, logs)
            if batch == 5:  # the mean over the epoch stays NaN
                self.model.set_weights([np.zeros_like(w) for w in weights])
                self.model._preempts.requested = True

    with pytest.raises(errors.NonFiniteLossError, match=r"loss .* step 6\."):
        _fit(tmp_path, sampler, Heal(poisoned=4), gpu=True)
    assert not list(tmp_path.glob("ckpt*"))


def test_other_callbacks_get_a_dictionary_of_floats(tmp_path, sampler):
    written = []

    class Batch(keras.callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            written.append(json.loads(json.dumps(logs)))

    plain = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: written.append(dict(logs))
    )
    _fit(tmp_path, sampler, Batch(), plain, gpu=True)
    assert len(written) == 48
    assert all(isinstance(each, float) for each in written[0].values())
    assert written[0] == written[1]


def test_tensorboard_of_keras_writes_each_step(tmp_path, sampler):
    board = keras.callbacks.TensorBoard(tmp_path / "board", update_freq=1)
    _fit(tmp_path / "run", sampler, board, gpu=False)
    [path] = (tmp_path / "board" / "train").glob("events*")
    tags = [
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert tags.count("batch_loss") == 24
