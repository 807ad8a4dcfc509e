"""Runs and exports on a disk with too little room, and then with more."""

import os
import signal
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

import vhe_tf
from tests import tiny_run
from tests.conftest import tiny_vhe
from tests.processes import output_of
from tests.tiny_run import STEPS
from tests.tiny_run import assert_same_models
from tests.tiny_run import compiled_model
from tests.tiny_run import latest
from tests.tiny_run import resume
from tests.tiny_run import train
from vhe_tf import callbacks
from vhe_tf._utils.atomic_io import NotWrittenError
from vhe_tf.models import loading
from vhe_tf.serving import export

FULL = r"the disk is full \(No space left on device\)\. "


@pytest.fixture(scope="module")
def sampler():
    return tiny_run.sampler()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, sampler):
    folder = tmp_path_factory.mktemp("whole")
    train(folder, sampler)
    return folder


class _Fill(keras.callbacks.Callback):
    """Fills a disk once at a step, or at the end of its epoch."""

    def __init__(self, disk, step, *, leave, at_end=False):
        super().__init__()
        self._disk = disk
        self._step = step
        self._leave = leave
        self._at_end = at_end
        self._steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        self._fill(at_end=False)

    def on_epoch_end(self, epoch, logs=None):
        self._fill(at_end=True)

    def _fill(self, *, at_end):
        if (self._steps, at_end) == (self._step, self._at_end):
            self._disk.fill(leave=self._leave)


def going_on(step):
    return (
        r"(No partial file remains. )?"
        rf"The last checkpoint, \S*ckpt-{step}, is intact. Correct the cause.*"
    )


def assert_whole(folder):
    """Checks that all that is there is whole."""
    assert not list(folder.rglob("*partial*"))
    for path in folder.rglob("*.keras"):
        vhe_tf.load_model(path)
    for path in folder.rglob("*.index"):
        reader = tf.train.load_checkpoint(str(path.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


@pytest.mark.parametrize("leave", [0, 2])
def test_a_checkpoint_that_does_not_fit(
    leave, small_disk, sampler, whole_run, capsys
):
    folder = small_disk.folder / "run"
    fill = _Fill(small_disk, 2 * STEPS - 1, leave=leave)
    with pytest.raises(
        NotWrittenError, match="ckpt-8: " + FULL + going_on(STEPS)
    ):
        train(folder, sampler, callbacks=[fill])
    assert latest(folder) == f"ckpt-{STEPS}"
    assert_whole(folder)
    small_disk.resize("16m")
    resume(folder, sampler)
    assert f"Resuming from step {STEPS} " in capsys.readouterr().out
    assert_same_models(folder, whole_run)


def test_a_checkpoint_on_request_that_does_not_fit(small_disk, sampler):
    """The message does not promise that the run resumes there."""

    class Ask(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(NotWrittenError, match=r"ckpt-3: .* no checkpoint yet"):
        train(
            small_disk.folder / "run",
            sampler,
            callbacks=[Ask(), _Fill(small_disk, 3, leave=1)],
        )


def test_a_best_model_that_does_not_fit(small_disk, sampler, whole_run):
    folder = small_disk.folder / "run"
    fill = _Fill(small_disk, 2 * STEPS, leave=2, at_end=True)
    with pytest.raises(
        NotWrittenError, match="best.keras: " + FULL + going_on(2 * STEPS)
    ):
        train(folder, sampler, callbacks=[fill])
    assert (folder / "best.keras").exists()  # that of the first epoch
    assert_whole(folder)
    small_disk.resize("16m")
    resume(folder, sampler)
    assert_same_models(folder, whole_run)


def test_events_that_do_not_fit(small_disk, sampler, whole_run):
    folder = small_disk.folder / "run"
    noise = np.random.default_rng(0).random((100, 100, 1), np.float32)

    def monitors():
        return [
            callbacks.Scalars(folder / "tensorboard", {"seed": 0}),
            callbacks.ImageGrids(
                folder / "tensorboard" / "pictures",
                lambda model: {"noise": noise},
            ),
        ]

    fill = _Fill(small_disk, 2 * STEPS, leave=1, at_end=True)
    with pytest.raises(
        NotWrittenError,
        match=r"Failed to write to \S*tensorboard: "
        + FULL
        + going_on(2 * STEPS),
    ):
        train(folder, sampler, callbacks=[fill, *monitors()])
    assert_whole(folder)
    small_disk.resize("16m")
    resume(folder, sampler, callbacks=monitors())
    assert_same_models(folder, whole_run)
    for part, tag in (
        ("train", "episodes/elbo"),
        ("validation", "episodes/elbo"),
        ("pictures", "noise"),
    ):
        events = event_accumulator.EventAccumulator(
            str(folder / "tensorboard" / part), size_guidance={"tensors": 0}
        ).Reload()
        steps = {event.step for event in events.Tensors(tag)}
        assert steps >= {STEPS, 2 * STEPS, 3 * STEPS}, part


def test_what_others_write_and_does_not_fit(small_disk, sampler):
    path = small_disk.folder / "mine"

    class Mine(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            small_disk.fill()
            tf.io.write_file(str(path), "much")

    with pytest.raises(
        NotWrittenError,
        match=f"Failed to write {path}: " + FULL + going_on(STEPS),
    ):
        train(small_disk.folder / "run", sampler, callbacks=[Mine()])


def test_a_run_that_finds_no_room_to_begin(small_disk, sampler, whole_run):
    folder = small_disk.folder / "run"
    (folder / "checkpoints").mkdir(parents=True)
    small_disk.fill()
    with pytest.raises(
        NotWrittenError,
        match=r"write to \S*checkpoints: " + FULL + "There is no checkpoint",
    ):
        train(folder, sampler)
    assert [path.name for path in folder.rglob("*")] == ["checkpoints"]
    small_disk.empty()
    train(folder, sampler)
    assert_same_models(folder, whole_run)


# Without a run ----------------------------------------------------------------


@pytest.mark.parametrize("leave", [0, 5])
def test_a_model_that_does_not_fit(leave, small_disk):
    model = compiled_model()
    path = small_disk.folder / "best.keras"
    loading.save_model(model, path)
    before = path.read_bytes()
    assert len(before) > 6 * 4096
    small_disk.fill(leave=leave)
    with pytest.raises(NotWrittenError, match=r"best\.keras: .* disk is full"):
        loading.save_model(model, path)
    assert path.read_bytes() == before
    assert_whole(small_disk.folder)


def test_an_export_that_does_not_fit(small_disk):
    small_disk.resize("16m")
    model = tiny_vhe()
    folder = small_disk.folder / "exports" / "model"
    first = export(model, folder, num_samples=2)
    pages = {
        path.name: -(-path.stat().st_size // 4096)
        for path in first.rglob("*")
        if path.is_file()
    }
    warmup = pages.pop("tf_serving_warmup_requests")
    # Half of the graph, and all but the requests.
    for leave in (pages["saved_model.pb"] // 2, sum(pages.values())):
        small_disk.fill(leave=leave)
        with pytest.raises(NotWrittenError, match=r"model/2: the disk is full"):
            export(model, folder, num_samples=2)
        assert [path.name for path in folder.iterdir()] == ["1"]
        small_disk.empty()
    # The command says what to do next.
    loading.save_model(model, folder.parent / "best.keras")
    small_disk.fill(leave=1)
    done = output_of(
        [
            *(sys.executable, "-m", "vhe_tf.experiments.cli", "export"),
            str(folder.parent / "best.keras"),
            f"--out={folder}",
        ]
    )
    assert done.returncode == 1
    assert "error: " in done.stdout
    assert "/model/2: the disk is full (" in done.stdout.splitlines()[-1]
    small_disk.empty()
    # TensorFlow writes a larger graph, which is shrunk afterwards.
    small_disk.fill(leave=3 * sum(pages.values()) + warmup)
    assert export(model, folder, num_samples=2).name == "2"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
