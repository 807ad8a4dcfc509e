import contextlib
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
from tests.conftest import tiny_vhe
from tests.tiny_run import EPOCHS
from tests.tiny_run import STEPS
from tests.tiny_run import assert_same_models
from tests.tiny_run import compiled_model
from tests.tiny_run import latest
from tests.tiny_run import resume
from tests.tiny_run import train
from vhe_tf import training
from vhe_tf._utils import atomic_io
from vhe_tf.checkpoint_folder import CheckpointFolder
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages


@pytest.fixture(scope="module")
def sampler():
    return tiny_run.sampler()


class _Die(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            raise KeyboardInterrupt


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
def whole_run(tmp_path_factory, sampler):
    return train(tmp_path_factory.mktemp("whole"), sampler)


@pytest.fixture(scope="module")
def whole_logs(tmp_path_factory, sampler):
    kept = _Logs()
    train(tmp_path_factory.mktemp("logs"), sampler, callbacks=[kept])
    return kept.logs


# Inside the first, the second and the last epoch, and at an epoch's last step,
# before its checkpoint.
@pytest.mark.parametrize("step", [2, 6, 8, 11])
def test_a_run_cut_short_ends_with_the_same_weights(
    step, tmp_path, sampler, whole_run
):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, sampler, callbacks=[_Die(step)])
    resume(tmp_path, sampler)
    assert_same_models(tmp_path, whole_run[0].folder)


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
    assert_same_models(tmp_path, whole_run[0].folder)
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
        ("step", 1),
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
    with pytest.raises(training.StoppedOnRequest) as stopped:
        # `first` comes first, that it sees the end at which SIGTERM comes.
        train(tmp_path, sampler, callbacks=[first, _Ask(moment)])
    assert not stopped.value.code
    assert signal.getsignal(signal.SIGTERM) is before
    step = moment[1]
    assert capsys.readouterr().out.endswith(
        f"Stopped on request at step {step} of {tmp_path}; the same command "
        "goes on.\n"
    )
    assert latest(tmp_path) == (f"ckpt-{step}" if step else None)
    assert not list(tmp_path.rglob("*.partial*"))
    second = _Logs()
    resume(tmp_path, sampler, callbacks=[second])
    assert_same_models(tmp_path, whole_run[0].folder)
    # Means are over whole epochs, and each epoch ends once; twice where its
    # end was cut short.
    assert {**first.logs, **second.logs} == whole_logs
    again = [step // STEPS - 1] if moment[0] == "end" else []
    assert sorted(first.ended + second.ended) == sorted([*again, 0, 1, 2])


class _Bounds(keras.callbacks.Callback):
    """Says that the first epoch was the best, and the last the second best."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_elbo"] = [3.0, 1.0, 2.0][epoch]


@pytest.mark.parametrize(
    "moment", [("end", STEPS), ("step", STEPS + 2), ("end", 2 * STEPS)]
)
def test_a_resumed_run_remembers_the_best_bound(
    moment, tmp_path, sampler, whole_run
):
    with pytest.raises(training.StoppedOnRequest):
        train(tmp_path, sampler, callbacks=[_Bounds(), _Ask(moment)])
    run = resume(tmp_path, sampler, callbacks=[_Bounds()])
    assert_same_models(tmp_path, whole_run[0].folder, ["last.keras"])
    first, _ = train(tmp_path / "first", sampler, epochs=1)
    assert_same_models(run.folder, first.folder, ["best.keras"])


def test_more_requests_while_it_saves_change_nothing(
    tmp_path, sampler, whole_run, monkeypatch
):
    write = CheckpointFolder.write

    def write_beset(self, checkpoint, step):
        os.kill(os.getpid(), signal.SIGTERM)
        write(self, checkpoint, step)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CheckpointFolder, "write", write_beset)
    with pytest.raises(training.StoppedOnRequest):
        train(tmp_path, sampler, callbacks=[_Ask(("step", 3))])
    monkeypatch.undo()
    assert latest(tmp_path) == "ckpt-3"
    resume(tmp_path, sampler)
    assert_same_models(tmp_path, whole_run[0].folder)


def test_a_request_while_the_last_model_is_saved_is_met_after_it(
    tmp_path, sampler, whole_run, monkeypatch
):
    save = training.save_model

    def save_beset(model, path):
        if path.name == "last.keras":
            os.kill(os.getpid(), signal.SIGTERM)
        save(model, path)

    monkeypatch.setattr(training, "save_model", save_beset)
    with pytest.raises(training.StoppedOnRequest):
        train(tmp_path, sampler)
    assert_same_models(tmp_path, whole_run[0].folder)


def test_spoiled_weights_are_not_saved_on_request_either(tmp_path, sampler):
    with pytest.raises(
        training.NonFiniteLossError,
        match=r"The model is not finite at step 6; .* is .*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(6), _Ask(("step", 6))])


def test_a_callback_that_ends_training_is_heard(tmp_path, sampler):
    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    run, _ = train(tmp_path, sampler, callbacks=[Enough()])
    assert latest(tmp_path) == f"ckpt-{2 * STEPS}"
    assert run.last.exists()


def test_progress_within_an_epoch_counts_the_steps_before(monkeypatch):
    shown = []
    seconds = iter([0.0, 3.0, 6.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(seconds))
    progress = training.Progress(steps_per_epoch=10, epochs=5)
    monkeypatch.setattr(
        training,
        "status_line",
        lambda: contextlib.nullcontext(shown.append),
    )
    progress.on_epoch_begin(2)
    for batch in (6, 7):  # three seconds each
        progress.on_train_batch_begin(batch)
        progress.on_train_batch_end(batch, {"elbo": -3.0})
    assert shown == [
        "epoch 3/5: starting",
        "epoch 3/5 [==============......] 7/10, 9 s left, bound -3.00",
        "epoch 3/5 [================....] 8/10, 6 s left, bound -3.00",
    ]


# Damage -----------------------------------------------------------------------


def _last_bytes_flipped(path):
    data = bytearray(path.read_bytes())
    data[-8:] = bytes(255 - byte for byte in data[-8:])
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def _emptied(path):
    path.write_bytes(b"")


def _left_within_an_epoch(folder, sampler):
    """Leaves the checkpoints of the first epoch and of a later step."""
    with pytest.raises(training.StoppedOnRequest):
        train(folder, sampler, callbacks=[_Ask(("step", STEPS + 2))])
    names = [path.name for path in (folder / "checkpoints").glob("*.index")]
    assert sorted(names) == [f"ckpt-{STEPS}.index", f"ckpt-{STEPS + 2}.index"]


@pytest.mark.parametrize(
    ("suffix", "spoil"),
    [
        (".index", pathlib.Path.unlink),
        (".index", _cut),
        (".data-00000-of-00001", pathlib.Path.unlink),
        (".data-00000-of-00001", _cut),
        (".data-00000-of-00001", _last_bytes_flipped),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(
    suffix, spoil, tmp_path, sampler, whole_run, capsys
):
    _left_within_an_epoch(tmp_path, sampler)
    damaged = tmp_path / "checkpoints" / f"ckpt-{STEPS + 2}"
    spoil(damaged.with_name(damaged.name + suffix))
    resume(tmp_path, sampler)
    text = capsys.readouterr().out
    assert f"{damaged} cannot be read (" in text
    assert f"Going on from step {STEPS} of" in text
    assert_same_models(tmp_path, whole_run[0].folder)
    assert not list(damaged.parent.glob(f"{damaged.name}.*"))


@pytest.mark.parametrize("spoil", [pathlib.Path.unlink, _emptied])
def test_without_their_list_checkpoints_are_found(
    spoil, tmp_path, sampler, whole_run, capsys
):
    _left_within_an_epoch(tmp_path, sampler)
    spoil(tmp_path / "checkpoints" / "checkpoint")
    resume(tmp_path, sampler)
    assert f"Going on from step {STEPS + 2} of" in capsys.readouterr().out
    assert_same_models(tmp_path, whole_run[0].folder)


def test_where_no_checkpoint_can_be_read_nothing_is_lost(tmp_path, sampler):
    _left_within_an_epoch(tmp_path, sampler)
    for path in (tmp_path / "checkpoints").glob("*.data*"):
        _cut(path)
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(
        training.RunError, match=r"ckpt-6 .*ckpt-4 .*copies.* or delete"
    ):
        train(tmp_path, sampler)
    after = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert after == before


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path, sampler):
    with (
        atomic_io.locked(tmp_path / ".lock"),
        pytest.raises(training.RunError, match="Another process trains"),
    ):
        train(tmp_path, sampler)
    train(tmp_path, sampler, epochs=1)


# What earlier versions left ---------------------------------------------------


def test_a_run_of_an_earlier_version_goes_on(tmp_path, sampler, whole_run):
    """It had the best bound in the checkpoint, and no epoch.json."""
    with pytest.raises(training.StoppedOnRequest):
        train(tmp_path, sampler, callbacks=[_Ask(("end", STEPS))])
    model = compiled_model()
    run = training.Run(tmp_path, {"seed": 0})
    # The end of the first epoch, too, was done before the checkpoint.
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, sampler, model=model, callbacks=[_Die(STEPS + 1)])
    model = compiled_model()
    now = training.Checkpoints(
        run, model, monitor="val_elbo", steps_per_epoch=STEPS
    )
    now.restore()
    assert (now.step, now.ended_step) == (STEPS, STEPS)
    earlier = tf.train.Checkpoint(
        model=model,
        optimizer=model.optimizer,
        best=tf.Variable(now.best, dtype=tf.float64),
        step=tf.Variable(STEPS, dtype=tf.int64),
    )
    shutil.rmtree(run.checkpoints)
    tf.train.CheckpointManager(earlier, run.checkpoints, 2).save(STEPS)
    resume(tmp_path, sampler)
    assert_same_models(tmp_path, whole_run[0].folder)


def test_checkpoints_without_their_epoch_are_refused(tmp_path, sampler):
    train(tmp_path, sampler, epochs=1)
    (tmp_path / "checkpoints" / "epoch.json").unlink()
    with pytest.raises(ValueError, match=r"epoch\.json belongs to .*missing"):
        train(tmp_path, sampler)


def test_a_folder_without_checkpoints_begins_anew(tmp_path, sampler, whole_run):
    """Whatever epoch.json says of checkpoints that somebody deleted."""
    train(tmp_path, sampler)
    for path in (tmp_path / "checkpoints").glob("c*"):
        path.unlink()
    train(tmp_path, sampler)
    assert_same_models(tmp_path, whole_run[0].folder)


def test_leftovers_of_a_kill_are_removed_at_the_next_start(tmp_path):
    left = [
        ".best.partial.keras",
        "pictures/.conditional.partial.png",
        "checkpoints/.partial/ckpt-4_temp/part-00000-of-00001.index",
        "checkpoints/ckpt-3.data-00000-of-00001",
        "checkpoints/ckpt-3_temp/part",
    ]
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    mine = tmp_path / "checkpoints" / "notes.txt"
    mine.write_text("not a leftover")
    training.Run(tmp_path, {"seed": 0}).begin()
    assert not any((tmp_path / name).exists() for name in left)
    assert not list(tmp_path.rglob("*partial*"))
    assert not list(tmp_path.rglob("*_temp"))
    assert mine.exists()


# The models -------------------------------------------------------------------


def test_a_finished_run_started_again_changes_nothing(
    tmp_path, sampler, whole_run
):
    _, model = train(tmp_path, sampler)
    again = compiled_model()
    train(tmp_path, sampler, model=again)
    for value, wanted in zip(
        again.get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, wanted)


def test_the_last_model_has_the_averaged_weights(whole_run):
    run, model = whole_run
    averages = model.optimizer._model_variables_moving_average
    saved = vhe_tf.load_model(run.last)
    for value, average in zip(saved.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(value, average)


def test_averaged_weights_are_lent_and_returned():
    model = compiled_model()
    raw = [v.numpy() for v in model.trainable_variables]
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(1)
    for average in model.optimizer._model_variables_moving_average:
        average.assign(tf.ones_like(average))
    lent = []

    def fail_while_lent():
        with training.averaged_weights(model):
            lent.extend(v.numpy() for v in model.trainable_variables)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_while_lent()
    for value in lent:
        np.testing.assert_array_equal(value, np.ones(value.shape))
    for variable, value in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_without_an_average_the_weights_stay(tmp_path, sampler):
    model = compiled_model(use_ema=False)
    run, _ = train(tmp_path, sampler, model=model, epochs=1)
    for value, wanted in zip(
        vhe_tf.load_model(run.last).get_weights(),
        model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(value, wanted)


def _begun(folder, config):
    training.Run(folder, config).begin()
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "ckpt-1.index").touch()


def test_a_run_refuses_the_folder_of_another(tmp_path):
    _begun(tmp_path, {"seed": 3, "size": "small"})
    with pytest.raises(
        ValueError, match=r"another run's checkpoints.*seed: 3 there, 4 here"
    ):
        training.Run(tmp_path, {"seed": 4, "size": "small"})
    training.Run(tmp_path, {"seed": 3, "size": "small"})


def test_a_run_refuses_checkpoints_without_settings(tmp_path):
    _begun(tmp_path, {"seed": 3})
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"without its config\.json"):
        training.Run(tmp_path, {"seed": 3})


def test_a_run_refuses_data_of_other_classes(tmp_path, capsys):
    model = tmp_path / "best.keras"
    run = training.Run(tmp_path, {"dataset": "folder"})
    run.check_groups("0123abcd")
    assert not run.latest  # nothing trained: nothing to lose
    run.check_groups("4567cdef")
    run.begin()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-1.index").touch()
    again = training.Run(tmp_path, {"dataset": "folder"})
    again.check_groups("4567cdef")
    training.tell_other_groups(model, "folder", "4567cdef")
    training.tell_other_groups(model, "records", "0123abcd")
    assert not capsys.readouterr().out
    with pytest.raises(training.RunError, match="began with other classes"):
        again.check_groups("0123abcd")
    training.tell_other_groups(model, "folder", "0123abcd")
    assert "cannot be told" in capsys.readouterr().out
    # A run of before there was a checksum.
    _begun(tmp_path, {"dataset": "folder"})
    training.Run(tmp_path, {"dataset": "folder"}).check_groups("0123abcd")


def test_a_run_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert training.Run("~/run", {}).folder == tmp_path / "run"


def test_settings_that_never_began_a_run_do_not_bind(tmp_path):
    training.Run(tmp_path, {"seed": 3})
    training.Run(tmp_path, {"seed": 4}).begin()
    training.Run(tmp_path, {"seed": 5})  # no checkpoint: nothing to lose


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
        training.NonFiniteLossError,
        match=r"loss is not finite at step 6; .*loss=nan.* is .*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(5)])
    vhe_tf.load_model(tmp_path / "best.keras")  # still there, still good


def test_weights_spoiled_by_the_last_step_are_not_saved(tmp_path, sampler):
    with pytest.raises(
        training.NonFiniteLossError,
        match=r"The model is not finite at step 8; .* is .*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(8)])


class _NoBound(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_elbo"] = np.nan


def test_a_validation_bound_that_is_none_stops_the_run(tmp_path, sampler):
    with pytest.raises(
        training.NonFiniteLossError, match="validation bound is not finite"
    ):
        train(tmp_path, sampler, callbacks=[_NoBound()])


def test_progress_is_shown(tmp_path, sampler, capsys):
    train(tmp_path, sampler, epochs=1)
    shown = capsys.readouterr()
    assert "epoch 1/1: starting" in shown.err
    assert "epoch 1/1," in shown.out
    for name in ("elbo", "val_elbo", "kl_character", "kl_character_scaled"):
        assert f" {name} -" in shown.out or f" {name} " in shown.out


# Groupings --------------------------------------------------------------------


def grouped(**labels):
    images = np.zeros((len(next(iter(labels.values()))), 8, 8, 1), np.float32)
    return GroupedImages(images, {k: np.array(v) for k, v in labels.items()})


@pytest.mark.parametrize(
    ("structure", "labels"),
    [
        ("flat", {"character": [0, 0, 7]}),
        ("hierarchical", {"character": [0, 5, 7], "alphabet": [2, 2, 9]}),
        ("factorial", {"character": [0, 0, 7], "style": [1, 2, 2]}),
    ],
)
def test_data_that_are_grouped_as_the_latents_pass(structure, labels):
    training.check_groupings(tiny_vhe(structure), grouped(**labels))


def test_a_latent_without_its_grouping_is_named():
    data = grouped(character=[0, 0, 7], drawer=[1, 2, 3])
    with pytest.raises(
        ValueError,
        match=r"'alphabet' needs a grouping.*\['character', 'drawer'\]",
    ):
        training.check_groupings(tiny_vhe("hierarchical"), data)


def test_a_character_in_two_alphabets_is_named():
    data = grouped(character=[5, 5, 7, 7], alphabet=[2, 2, 2, 9])
    with pytest.raises(
        ValueError, match=r"character 7 with images in alphabet 2 and in 9 "
    ):
        training.check_groupings(tiny_vhe("hierarchical"), data)


@pytest.mark.parametrize("wrong", ["train", "validation"])
def test_a_run_on_data_grouped_otherwise_does_not_begin(wrong, tmp_path):
    alphabets = {"train": [2] * 4, "validation": [2] * 4, wrong: [2, 2, 2, 9]}
    samplers = {
        name: Episodes(
            grouped(character=[5] * 4, alphabet=ids),
            batch_size=2,
            support_size=1,
            resamples=True,
        )
        for name, ids in alphabets.items()
    }
    model = tiny_vhe("hierarchical")
    model.compile()
    with pytest.raises(ValueError, match="character 5 with images in"):
        training.fit(
            model,
            training.Run(tmp_path, {}),
            **samplers,
            epochs=1,
            steps_per_epoch=1,
        )
    assert not list(tmp_path.iterdir())


# Files ------------------------------------------------------------------------


def test_saving_a_model_is_whole_or_nothing(tmp_path, monkeypatch):
    model = compiled_model()
    path = tmp_path / "best.keras"
    training.save_model(model, path)
    before = path.read_bytes()

    def fail(self, filepath, **kwargs):
        filepath.write_bytes(b"half a model")
        raise OSError("disk full")

    monkeypatch.setattr(vhe_tf.VHE, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        training.save_model(model, path)
    assert path.read_bytes() == before


def test_a_saved_model_has_no_optimizer(tmp_path):
    model = compiled_model()
    training.save_model(model, tmp_path / "best.keras")
    assert not vhe_tf.load_model(tmp_path / "best.keras").compiled


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    training.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        training.write_json(path, {"a": object()})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}


_STYLED = {
    "dataset": "glyphs",
    "split": "vinyals",
    "num_styles": 7,
    "copies": 2,
}
_PLAIN = {"dataset": "glyphs", "split": "vinyals", "images": "grey"}
_PHOTOS = {"dataset": "folder", "skip_unreadable": False}
_DEFAULT = {"dataset": "omniglot", "split": "lake", "images": "binary"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({**_PLAIN, "seed": 3}, {**_PLAIN, "seed": 3}),
        ({**_STYLED, "seed": 3}, {**_STYLED, "seed": 3}),
        (
            {
                **_PHOTOS,
                "group": "video",
                "num_levels": 8,
                "seed": 3,
                "split": "lake",
                "image_size": "48x32",
            },
            {
                **_PHOTOS,
                "group": "video",
                "num_levels": 8,
                "seed": 3,
                "image_size": (48, 32),
            },
        ),
        (
            {**_PHOTOS, "seed": 3},
            {**_PHOTOS, "group": "person", "num_levels": 256, "seed": 3},
        ),
        (
            {**_PLAIN, "seed": 3, "image_size": "12x10"},
            {**_PLAIN, "seed": 3, "image_size": (12, 10)},
        ),
        ({**_PLAIN, "seed": 3, "image_size": None}, {**_PLAIN, "seed": 3}),
        (None, {**_DEFAULT, "seed": 0}),
    ],
)
def test_the_data_of_a_model_are_those_of_its_run(config, expected, tmp_path):
    if config is not None:
        training.Run(tmp_path, {**config, "epochs": 4}).begin()
    assert training.data_settings(tmp_path / "best.keras") == expected


def test_a_model_that_has_seen_the_test_classes_is_refused(tmp_path, capsys):
    split = {"dataset": "omniglot", "split": "random1200", "images": "grey"}
    training.Run(tmp_path, {**split, "seed": 1}).begin()
    path = tmp_path / "best.keras"
    known = training.check_unseen(path, {**split, "seed": 1, "batch_size": 3})
    assert known == {**split, "seed": 1}
    with pytest.raises(ValueError, match=r"'seed': 1}; here: {.*'seed': 0}"):
        training.check_unseen(path, {**split, "seed": 0})
    assert not capsys.readouterr().out


@pytest.mark.parametrize("config", [None, {"table": "labels.csv"}])
def test_that_it_cannot_be_told_what_a_model_has_seen_is_said(
    config, tmp_path, capsys
):
    path = tmp_path / "alone.keras"
    if config:
        training.Run(tmp_path, config).begin()
    assert training.check_unseen(path, {**_DEFAULT, "seed": 0}) is None
    assert f"{path} has no config.json beside it" in capsys.readouterr().out


def test_photographs_have_no_split_of_drawings(tmp_path):
    training.Run(tmp_path, {**_PHOTOS, "seed": 1}).begin()
    settings = {**_PHOTOS, "seed": 0}
    with pytest.raises(ValueError, match="'split': None, 'seed': 1}; here:"):
        training.check_unseen(tmp_path / "best.keras", settings)


def test_mistakes_end_with_their_message():
    mistakes = training.mistakes_end_quietly()
    with pytest.raises(SystemExit, match="error: no such thing"), mistakes:
        raise ValueError("no such thing")
