"""Several steps of an execution, and values that wait on their device."""

import contextlib
import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests import tiny_run
from vhe_tf import errors
from vhe_tf.callbacks import ExactResume

_STEPS = tiny_run.STEPS


@pytest.fixture(scope="module")
def sampler():
    return tiny_run.sampler()


def _model(steps_per_execution):
    model = tiny_run.compiled_model()
    model.compile(model.optimizer, steps_per_execution=steps_per_execution)
    return model


def _weights(folder):
    return vhe_tf.load_model(folder / "last.keras").get_weights()


class _Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        assert batch % 2 == 1  # the last of its execution
        if self.model.optimizer.iterations == _STEPS + 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("cut", [False, True])
def test_two_steps_of_an_execution_are_two_steps(cut, tmp_path, sampler):
    tiny_run.train(tmp_path / "one", sampler)
    ends = pytest.raises(KeyboardInterrupt) if cut else contextlib.nullcontext()
    with ends:
        tiny_run.train(
            tmp_path / "two",
            sampler,
            model=_model(2),
            callbacks=[_Die()] if cut else [],
        )
    if cut:
        tiny_run.resume(tmp_path / "two", sampler, model=_model(2))
    for two, one in zip(
        _weights(tmp_path / "two"), _weights(tmp_path / "one"), strict=True
    ):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


def test_executions_end_where_epochs_do(tmp_path, sampler):
    with pytest.raises(ValueError, match=r"divide the steps of .*execution=3"):
        tiny_run.train(tmp_path, sampler, model=_model(3))


def test_a_run_resumes_where_an_execution_ends(tmp_path, sampler):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model._preempts.requested = True

    with pytest.raises(errors.StoppedOnRequest):
        tiny_run.train(tmp_path, sampler, callbacks=[Stop()])
    with pytest.raises(ValueError, match="divide the steps that are taken"):
        tiny_run.resume(tmp_path, sampler, model=_model(_STEPS))


class _Keep(keras.callbacks.Callback):
    """Keeps the values of each step, without reading one."""

    def __init__(self, poisoned=None):
        super().__init__()
        self.values = []
        self.poisoned = poisoned

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs)
        if batch + 1 == self.poisoned:
            variable = self.model.trainable_variables[-1]
            variable.assign(tf.fill(variable.shape, np.nan))


def _fit(folder, sampler, kept, *, gpu):
    found = [types.SimpleNamespace(device_type="GPU")] if gpu else []
    model = tiny_run.compiled_model()
    with mock.patch.object(
        tf.config, "list_physical_devices", return_value=found
    ):
        model.fit(
            sampler,
            epochs=1,
            steps_per_epoch=24,
            callbacks=[kept, ExactResume(folder)],
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
