import json
import os
import pathlib
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests import tiny_run
from tests.tiny_run import EPOCHS
from tests.tiny_run import STEPS
from tests.tiny_run import assert_same_models
from tests.tiny_run import compiled_model
from tests.tiny_run import latest
from tests.tiny_run import resume
from tests.tiny_run import train
from vhe_tf import errors
from vhe_tf._utils import atomic_io
from vhe_tf.callbacks._checkpoint_folder import CheckpointFolder


@pytest.fixture(scope="module")
def sampler():
    return tiny_run.sampler()


class _Logs(keras.callbacks.Callback):
    """Keeps the logs of each epoch, and counts how often it ended."""

    def __init__(self):
        super().__init__()
        self.logs = {}
        self.ended = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs[epoch] = dict(logs)
        self.ended.append(epoch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, sampler):
    folder, kept = tmp_path_factory.mktemp("whole"), _Logs()
    train(folder, sampler, callbacks=[kept])
    return folder, kept.logs


@pytest.fixture
def whole_run(whole):
    return whole[0]


@pytest.fixture
def whole_logs(whole):
    return whole[1]


# Inside the first and the second epoch, and at an epoch's last step, before its
# checkpoint.
@pytest.mark.parametrize("step", [2, 6, 8])
def test_a_run_cut_short_ends_with_the_same_weights(
    step, tmp_path, sampler, whole_run
):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, sampler, callbacks=[tiny_run.Die(step)])
    resume(tmp_path, sampler, model=compiled_model())
    assert_same_models(tmp_path, whole_run)


class _DieAtEnd(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_run_cut_short_at_the_end_of_an_epoch_loses_no_step(
    tmp_path, sampler, whole_run, whole_logs
):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, sampler, callbacks=[_DieAtEnd()])
    assert latest(tmp_path) == f"ckpt-{2 * STEPS}"
    logs = _Logs()
    resume(tmp_path, sampler, callbacks=[logs])
    assert_same_models(tmp_path, whole_run)
    assert logs.ended == [1, 2]
    assert logs.logs == {epoch: whole_logs[epoch] for epoch in (1, 2)}


# Stopping on request ----------------------------------------------------------


class _Ask(keras.callbacks.Callback):
    """Sends this process a SIGTERM at some moment of a run."""

    def __init__(self, moment):
        super().__init__()
        self._moment = moment
        self._step = 0

    def _ask_at(self, moment):
        if (moment, self._step) == self._moment:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_begin(self, logs=None):
        self._ask_at("begin")

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        self._ask_at("step")

    def on_epoch_end(self, epoch, logs=None):
        self._ask_at("end")


@pytest.mark.parametrize(
    "moment",
    [
        ("begin", 0),
        ("step", 6),
        ("step", 2 * STEPS),  # the last of an epoch
        ("end", 2 * STEPS),
        ("step", EPOCHS * STEPS),  # the last of all
        ("end", EPOCHS * STEPS),
    ],
)
def test_a_run_that_is_asked_to_stop_loses_nothing(
    moment, tmp_path, sampler, whole_run, whole_logs, capsys
):
    before = signal.getsignal(signal.SIGTERM)
    first = _Logs()
    with pytest.raises(errors.StoppedOnRequest) as stopped:
        # `first` comes first, that it sees the end at which SIGTERM comes.
        train(tmp_path, sampler, callbacks=[first, _Ask(moment)])
    assert not stopped.value.code
    assert signal.getsignal(signal.SIGTERM) is before
    step = moment[1]
    last = capsys.readouterr().out.splitlines()[-1]
    assert f" step {step} of {tmp_path / 'checkpoints'}. " in last
    assert latest(tmp_path) == (f"ckpt-{step}" if step else None)
    assert not list(tmp_path.rglob("*.partial*"))
    second = _Logs()
    resume(tmp_path, sampler, callbacks=[second])
    assert_same_models(tmp_path, whole_run)
    # Means are over whole epochs, and each epoch ends once; twice where its
    # end was cut short.
    assert {**first.logs, **second.logs} == whole_logs
    again = [step // STEPS - 1] if moment[0] == "end" else []
    assert sorted(first.ended + second.ended) == sorted([*again, 0, 1, 2])


class _Bounds(keras.callbacks.Callback):
    """Says that the first epoch was the best, and the last the second best."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_elbo"] = [3.0, 1.0, 2.0][epoch]


@pytest.fixture(scope="module")
def first_epoch(tmp_path_factory, sampler):
    folder = tmp_path_factory.mktemp("first")
    train(folder, sampler, epochs=1)
    return folder


@pytest.mark.parametrize("moment", [("end", STEPS), ("end", 2 * STEPS)])
def test_a_resumed_run_remembers_the_best_bound(
    moment, tmp_path, sampler, whole_run, first_epoch
):
    with pytest.raises(errors.StoppedOnRequest):
        train(tmp_path, sampler, callbacks=[_Bounds(), _Ask(moment)])
    resume(tmp_path, sampler, callbacks=[_Bounds()])
    assert_same_models(tmp_path, whole_run, ["last.keras"])
    assert_same_models(tmp_path, first_epoch, ["best.keras"])


def test_more_requests_while_it_saves_change_nothing(
    tmp_path, sampler, whole_run, monkeypatch
):
    write = CheckpointFolder.write

    def write_beset(self, checkpoint, step):
        os.kill(os.getpid(), signal.SIGTERM)
        write(self, checkpoint, step)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CheckpointFolder, "write", write_beset)
    with pytest.raises(errors.StoppedOnRequest):
        train(tmp_path, sampler, callbacks=[_Ask(("step", 3))])
    monkeypatch.undo()
    assert latest(tmp_path) == "ckpt-3"
    resume(tmp_path, sampler)
    assert_same_models(tmp_path, whole_run)


def test_a_request_after_the_last_step_is_met(tmp_path, sampler, whole_run):
    class AskAtTheEnd(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(errors.StoppedOnRequest):
        train(tmp_path, sampler, callbacks=[AskAtTheEnd()])
    assert latest(tmp_path) == f"ckpt-{EPOCHS * STEPS}"
    resume(tmp_path, sampler)
    assert_same_models(tmp_path, whole_run)


def test_spoiled_weights_are_not_saved_on_request_either(tmp_path, sampler):
    with pytest.raises(
        errors.NonFiniteLossError,
        match=r"model .* step 6\. .*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(6), _Ask(("step", 6))])


def test_a_callback_that_ends_training_is_heard(tmp_path, sampler):
    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    train(tmp_path, sampler, callbacks=[Enough()])
    assert latest(tmp_path) == f"ckpt-{2 * STEPS}"
    assert (tmp_path / "last.keras").exists()


# Corruption -------------------------------------------------------------------


def _last_bytes_flipped(path):
    data = bytearray(path.read_bytes())
    data[-8:] = bytes(255 - byte for byte in data[-8:])
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def _emptied(path):
    path.write_bytes(b"")


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory, sampler):
    """A run with checkpoints of the first epoch and of a later step."""
    folder = tmp_path_factory.mktemp("left")
    with pytest.raises(errors.StoppedOnRequest):
        train(folder, sampler, callbacks=[_Bounds(), _Ask(("step", STEPS + 2))])
    names = [path.name for path in (folder / "checkpoints").glob("*.index")]
    assert sorted(names) == [f"ckpt-{STEPS}.index", f"ckpt-{STEPS + 2}.index"]
    return folder


@pytest.fixture
def left(left_behind, tmp_path):
    """A copy of it."""
    return shutil.copytree(left_behind, tmp_path / "run")


@pytest.mark.parametrize(
    ("suffix", "spoil"),
    [
        (".index", _cut),
        (".data-00000-of-00001", pathlib.Path.unlink),
        (".data-00000-of-00001", _last_bytes_flipped),
    ],
)
def test_a_corrupt_checkpoint_is_named_and_the_one_before_is_restored(
    suffix, spoil, left, sampler, whole_run, first_epoch, capsys
):
    corrupt = left / "checkpoints" / f"ckpt-{STEPS + 2}"
    spoil(corrupt.with_name(corrupt.name + suffix))
    resume(left, sampler)
    text = capsys.readouterr().out
    assert f"{corrupt} cannot be read (" in text
    assert f"Resuming from step {STEPS} of" in text
    assert_same_models(left, whole_run, ["last.keras"])
    assert_same_models(left, first_epoch, ["best.keras"])
    assert not list(corrupt.parent.glob(f"{corrupt.name}.*"))


def _latest_renamed(path):
    path.write_text(path.read_text().replace(f"ckpt-{STEPS + 2}", "ckpt-t"))


def _all_later(path):
    text = path.read_text().replace(f"ckpt-{STEPS + 2}", "ckpt-9")
    path.write_text(text.replace(f"ckpt-{STEPS}", "ckpt-5"))


@pytest.mark.parametrize(
    "spoil", [pathlib.Path.unlink, _latest_renamed, _all_later]
)
def test_without_their_list_checkpoints_are_found(
    spoil, left, sampler, whole_run, capsys
):
    spoil(left / "checkpoints" / "checkpoint")
    resume(left, sampler)
    assert f"Resuming from step {STEPS + 2} of" in capsys.readouterr().out
    assert_same_models(left, whole_run, ["last.keras"])


def test_where_no_checkpoint_can_be_read_nothing_is_lost(left, sampler):
    for path in (left / "checkpoints").glob("*.data*"):
        _cut(path)
    before = sorted(path.name for path in (left / "checkpoints").iterdir())
    with pytest.raises(
        errors.RunError, match=r"ckpt-6 .*ckpt-4 .*copy, or delete"
    ):
        train(left, sampler)
    after = sorted(path.name for path in (left / "checkpoints").iterdir())
    assert after == before


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path, sampler):
    (tmp_path / "checkpoints").mkdir()
    with (
        atomic_io.locked(tmp_path / "checkpoints" / ".lock"),
        pytest.raises(errors.RunError, match="Another process trains"),
    ):
        train(tmp_path, sampler)
    train(tmp_path, sampler, epochs=1)


def _without_its_end(path):
    path.write_text('{"step": 4}')


def _with_words(path):
    path.write_text('{"step": 4, "callbacks": {}, "learning_rate": "fast"}')


@pytest.mark.parametrize(
    ("spoil", "within"),
    [
        (pathlib.Path.unlink, True),
        (_emptied, False),
        (_without_its_end, True),
        (_with_words, True),
    ],
)
def test_a_run_resumes_without_what_epochs_left(
    spoil, within, left, sampler, whole_run, first_epoch, capsys
):
    step = STEPS + 2 * within
    if not within:
        for path in (left / "checkpoints").glob(f"ckpt-{STEPS + 2}.*"):
            path.unlink()
        (left / "checkpoints" / "checkpoint").unlink()
    path = left / "checkpoints" / "epoch.json"
    spoil(path)
    resume(left, sampler, callbacks=[_Bounds()])
    text = capsys.readouterr().out
    assert f"{path} is " in text
    assert " once more" in text
    assert f"Resuming from step {step} " in text
    assert_same_models(left, whole_run, ["last.keras"])
    assert_same_models(left, first_epoch, ["best.keras"])


def test_a_state_that_a_callback_cannot_have_is_named(left, sampler):
    path = left / "checkpoints" / "epoch.json"
    values = json.loads(path.read_text())
    del values["checksum"]
    values["callbacks"] = dict.fromkeys(values["callbacks"], "x")
    path.write_text(json.dumps(values))
    with pytest.raises(
        errors.RunError, match=r"BestModel.*epoch\.json .* Received: 'x'"
    ):
        resume(left, sampler)


def test_a_folder_without_checkpoints_begins_anew(tmp_path, sampler, whole_run):
    """Whatever epoch.json says of checkpoints that somebody deleted."""
    folder = shutil.copytree(whole_run, tmp_path / "run")
    for path in (folder / "checkpoints").glob("c*"):
        path.unlink()
    train(folder, sampler)
    assert_same_models(folder, whole_run)


def test_leftovers_of_a_kill_are_removed_at_the_next_start(tmp_path, sampler):
    left = [
        "checkpoints/.partial/ckpt-4_temp/part-00000-of-00001.index",
        "checkpoints/ckpt-3.data-00000-of-00001",
        "checkpoints/ckpt-3_temp/part",
    ]
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    mine = tmp_path / "checkpoints" / "notes.txt"
    mine.write_text("not a leftover")
    train(tmp_path, sampler, epochs=1)
    assert not any((tmp_path / name).exists() for name in left)
    assert not list(tmp_path.rglob("*partial*"))
    assert not list(tmp_path.rglob("*_temp"))
    assert mine.exists()


# The models -------------------------------------------------------------------


def test_a_finished_run_started_again_changes_nothing(
    tmp_path, sampler, whole_run
):
    folder = shutil.copytree(whole_run, tmp_path / "run")
    train(folder, sampler)
    assert_same_models(folder, whole_run)


def test_the_last_model_has_the_ema_weights(tmp_path, sampler):
    model = train(tmp_path, sampler, epochs=1)
    averages = model.optimizer._model_variables_moving_average
    saved = vhe_tf.load_model(tmp_path / "last.keras")
    for value, average in zip(saved.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(value, average)


def test_without_an_average_the_weights_stay(tmp_path, sampler):
    model = compiled_model(use_ema=False)
    train(tmp_path, sampler, model=model, epochs=1)
    for value, wanted in zip(
        vhe_tf.load_model(tmp_path / "last.keras").get_weights(),
        model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(value, wanted)


class _Poison(keras.callbacks.Callback):
    """Spoils a weight after a given step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            variable = self.model.trainable_variables[-1]
            variable.assign(tf.fill(variable.shape, np.nan))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, sampler):
    with pytest.raises(
        errors.NonFiniteLossError,
        match=r"loss .* step 6\. .*loss=nan.*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(5)])
    vhe_tf.load_model(tmp_path / "best.keras")  # still there, still good


def test_weights_spoiled_by_the_last_step_are_not_saved(tmp_path, sampler):
    with pytest.raises(
        errors.NonFiniteLossError,
        match=r"model .* step 8\. .*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(8)])


class _NoBound(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_elbo"] = np.nan


def test_a_validation_bound_that_is_none_stops_the_run(tmp_path, sampler):
    with pytest.raises(
        errors.NonFiniteLossError, match="val_elbo is NaN after epoch 1"
    ):
        train(tmp_path, sampler, callbacks=[_NoBound()])


def test_progress_is_shown(tmp_path, sampler, capsys):
    train(tmp_path, sampler, epochs=1)
    shown = capsys.readouterr()
    assert "epoch 1/1," in shown.out
    for name in ("elbo", "val_elbo", "kl_character", "kl_character_scaled"):
        assert f" {name} -" in shown.out or f" {name} " in shown.out
