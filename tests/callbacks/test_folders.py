"""Folders that are deleted, or must not be written to, while a model trains."""

import pathlib
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

import vhe_tf
from tests import tiny_run
from vhe_tf import callbacks
from vhe_tf import layers
from vhe_tf._utils.atomic_io import NotWrittenError
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run

GRID = np.zeros((4, 4, 1), np.float32)


def _fit(*chosen, epochs=1):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(
        np.zeros((4, 2)),
        np.zeros(4),
        epochs=epochs,
        verbose=0,
        callbacks=list(chosen),
    )


def _steps(folder, tag):
    found = event_accumulator.EventAccumulator(str(folder)).Reload()
    return [event.step for event in found.Tensors(tag)]


def test_deleted_event_files_are_made_again(tmp_path, capsys):
    class Delete(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                shutil.rmtree(tmp_path / "tensorboard")

    folder = tmp_path / "tensorboard"
    _fit(
        Delete(),
        callbacks.Scalars(folder, {"seed": 0}),
        callbacks.ImageGrids(folder / "pictures", lambda model: {"zero": GRID}),
        epochs=3,
    )
    assert _steps(folder / "train", "episodes/loss") == [2, 3]
    settings = event_accumulator.EventAccumulator(str(folder)).Reload()
    assert settings.SummaryMetadata("_hparams_/session_start_info")
    assert _steps(folder / "pictures", "zero") == [2, 3]
    text = capsys.readouterr().out
    for part in ("train", "pictures"):
        assert f"files in {folder / part} were deleted" in text


@pytest.fixture(scope="module")
def model():
    model = tiny_run.compiled_model()
    model.run_eagerly = True
    return model


@pytest.fixture
def read_only(tmp_path):
    """A folder on a disk that is mounted to be read; root may write to others.

    In it is what a run has: `checkpoints`, `pictures` and `tensorboard`.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        try:
            subprocess.run(
                ["mount", *options, folder], capture_output=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to mount a disk (root)")

    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    for name in ("checkpoints", "pictures", "tensorboard"):
        (folder / name).mkdir()
    mount("-o", "remount,ro")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    "make",
    [
        callbacks.ExactResume,
        lambda folder: callbacks.BestModel(folder / "best.keras"),
        lambda folder: callbacks.BestModel(folder / "new" / "best.keras"),
        lambda folder: callbacks.Scalars(folder / "tensorboard"),
        lambda folder: callbacks.ImageGrids(
            folder / "new", lambda model: {"zero": GRID}
        ),
    ],
)
def test_a_read_only_folder_is_told_before_the_first_step(
    make, read_only, model
):
    steps = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    with pytest.raises(NotWrittenError, match=r"disk.*: Read-only file system"):
        model.fit(
            tiny_run.sampler(),
            steps_per_epoch=1,
            validation_data=tiny_run.sampler(),
            validation_steps=1,
            verbose=0,
            callbacks=[make(read_only), count],
        )
    assert not steps


def test_a_read_only_folder_of_a_run_is_told(read_only):
    for folder in (read_only, read_only / "new"):
        with pytest.raises(NotWrittenError, match="Read-only file system"):
            Run(folder, Experiment(dataset="glyphs")).begin()


# Layers of one's own ----------------------------------------------------------


class _NoConfig(keras.layers.Layer):
    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, inputs):
        return self.dense(inputs)


class _NotRegistered(keras.layers.Layer):
    def call(self, inputs):
        return inputs


@keras.saving.register_keras_serializable()
class _Incomplete(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = units

    def call(self, inputs):
        return inputs

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable()
class _Registered(keras.layers.Layer):
    def call(self, inputs):
        return tf.identity(inputs)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: _NoConfig(keras.layers.Dense(64)),
        _NotRegistered,
        lambda: _Incomplete(3),
        _Registered,
    ],
)
def test_layers_that_cannot_be_saved_are_named_before_training(
    layer, depth, tmp_path
):
    layer = layer()
    for _ in range(depth):
        layer = keras.Sequential([layer])
    model = vhe_tf.VHE(
        [vhe_tf.Latent.vector("character", 3, encoder=layer, units=8)],
        layers.DenseLikelihood((6,), "normal", units=(8,)),
        event_shape=(6,),
    )
    best = callbacks.BestModel(pathlib.Path(tmp_path, "best.keras"))
    best.set_model(model)
    layer = layer.layers[0] if depth else layer
    if isinstance(layer, _Registered):
        best.on_train_begin()
        return
    with pytest.raises(
        ValueError, match=rf"{type(layer).__name__} cannot be saved .*register"
    ):
        best.on_train_begin()
