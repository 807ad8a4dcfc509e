"""The state of other callbacks in a run that is resumed."""

import gc
import logging

import keras
import numpy as np
import pytest

from tests import tiny_run
from tests.tiny_run import STEPS
from tests.tiny_run import compiled_model
from tests.tiny_run import latest
from vhe_tf import callbacks
from vhe_tf import errors

EPOCHS = 8


@pytest.fixture(scope="module")
def sampler():
    return tiny_run.sampler()


class _Bounds(keras.callbacks.Callback):
    """Says that the second epoch was the best; counts the epochs."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(epoch)
        logs["val_elbo"] = 5.0 if epoch == 1 else float(-epoch)
        logs["elbo"] = float(epoch)


class _Run:
    """A training in a folder with callbacks of Keras and two best models."""

    def __init__(self, folder):
        self.folder = folder
        self.bounds = _Bounds()
        highest = {"monitor": "val_elbo", "mode": "max"}
        self.kept = {
            "stop": keras.callbacks.EarlyStopping(
                patience=5, min_delta=0.5, **highest
            ),
            "rate": keras.callbacks.ReduceLROnPlateau(
                patience=1, factor=0.5, **highest
            ),
            "saved": keras.callbacks.ModelCheckpoint(
                folder / "saved.weights.h5",
                save_best_only=True,
                save_weights_only=True,
                **highest,
            ),
            "best": callbacks.BestModel(folder / "best.keras"),
            "last": callbacks.BestModel(folder / "last.keras", monitor="elbo"),
        }

    def fit(self, sampler, *more, epochs=EPOCHS, backwards=False):
        self.folder.mkdir(exist_ok=True)
        self.model = compiled_model()
        kept = list(self.kept.values())
        self.model.fit(
            sampler,
            epochs=epochs,
            steps_per_epoch=STEPS,
            verbose=0,
            callbacks=[
                self.bounds,
                *more,
                *(kept[::-1] if backwards else kept),
                callbacks.ExactResume(self.folder / "checkpoints"),
            ],
        )
        return self

    def left(self):
        """Returns the state of the callbacks and of the optimizer."""
        names = ("best", "wait", "stopped_epoch", "cooldown_counter")
        return {
            **{
                (key, name): getattr(callback, name)
                for key, callback in self.kept.items()
                for name in names
                if hasattr(callback, name)
            },
            "rate": float(self.model.optimizer.learning_rate),
        }


def _assert_same_weights(one, other):
    for value, wanted in zip(
        one.model.get_weights(), other.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, wanted)


def test_callbacks_are_as_in_a_run_that_was_not_interrupted(
    tmp_path, sampler, capsys
):
    whole = _Run(tmp_path / "whole").fit(sampler)
    assert whole.kept["stop"].stopped_epoch == 6  # the last
    assert whole.left()["rate"] < 1e-3
    run = _Run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        # After an end at which the learning rate was lowered.
        run.fit(sampler, tiny_run.Die(4 * STEPS + 1))
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    resumed = _Run(moved).fit(sampler, backwards=True)
    assert resumed.bounds.epochs == [4, 5, 6]
    assert resumed.left() == whole.left()
    _assert_same_weights(resumed, whole)
    # An ended run stays ended, unless more epochs are asked for.
    capsys.readouterr()
    again = _Run(moved).fit(sampler)
    assert not again.bounds.epochs
    assert "more than 8 epochs" in capsys.readouterr().out
    _assert_same_weights(again, whole)
    more = _Run(moved).fit(sampler, epochs=EPOCHS + 1)
    assert more.bounds.epochs == [7]


class _Enough(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True


def test_a_run_that_ended_within_an_epoch_stays_ended(tmp_path, sampler):
    ended = _Run(tmp_path).fit(sampler, _Enough())
    assert latest(tmp_path) == "ckpt-2"
    again = _Run(tmp_path).fit(sampler)
    assert not again.bounds.epochs
    _assert_same_weights(again, ended)


def _fit(sampler, *chosen, folder, epochs=1):
    compiled_model().fit(
        sampler,
        epochs=epochs,
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[*chosen, callbacks.ExactResume(folder)],
    )


def test_what_cannot_be_kept_is_rejected(tmp_path, sampler):
    early = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    with pytest.raises(ValueError, match="Received: restore_best_weights=True"):
        _fit(sampler, early, folder=tmp_path)
    alike = [callbacks.BestModel(tmp_path / "best.keras") for _ in range(2)]
    with pytest.raises(ValueError, match=r"Received: several BestModel\("):
        _fit(sampler, *alike, folder=tmp_path)
    for number in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"Received: max_to_keep={number}"):
            callbacks.ExactResume(tmp_path, max_to_keep=number)


def test_any_folder_is_resumed_without_warnings(tmp_path, sampler, capsys):
    """`epochs` must not be fewer than those that it has begun."""
    folder = tmp_path / r"a[1]\b]*?{c,d}"
    with pytest.raises(KeyboardInterrupt):
        _fit(sampler, tiny_run.Die(STEPS + 2), folder=folder, epochs=2)
    warned = logging.Handler(logging.WARNING)
    records = []
    warned.emit = records.append
    logging.getLogger("tensorflow").addHandler(warned)
    try:
        _fit(sampler, folder=folder, epochs=2)
        gc.collect()
    finally:
        logging.getLogger("tensorflow").removeHandler(warned)
    assert f"Resuming from step {STEPS} of {folder}." in capsys.readouterr().out
    assert not [record.getMessage() for record in records]
    with pytest.raises(errors.RunError, match="Received: epochs=1"):
        _fit(sampler, folder=folder)
