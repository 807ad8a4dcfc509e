"""Trains tiny experiments in this process."""

import contextlib
import io
import json
import pathlib
import signal
import sys
from unittest import mock

import keras
import numpy as np
import pytest
from PIL import Image

import vhe_tf
from tests.conftest import tiny_sizes
from tests.processes import made_once
from vhe_tf.evaluation import Report
from vhe_tf.experiments import building
from vhe_tf.experiments import cli
from vhe_tf.experiments import pictures
from vhe_tf.experiments import train
from vhe_tf.models import loading


def commanded(*arguments, sizes=tiny_sizes):
    """Runs a command of `vhe-tf` in this process; returns what it prints.

    Settings of Keras and handlers of signals are put back.
    """
    out = io.StringIO()
    policy = keras.config.dtype_policy()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.redirect_stdout(out), sizes():
            cli.main(["vhe-tf", *map(str, arguments)])
    finally:
        keras.config.set_dtype_policy(policy)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return out.getvalue()


def failure_of(*arguments):
    """Returns the message with which a command of `vhe-tf` fails."""
    with pytest.raises(SystemExit) as stop:
        commanded(*arguments)
    assert isinstance(stop.value.code, str), stop.value.code
    assert stop.value.code.startswith("error: ")
    return stop.value.code


def json_of(path):
    return json.loads(pathlib.Path(path).read_text("utf-8"))


def keys_of(path):
    """Returns the keys of the measurements of a report."""
    return list(Report.from_json(json_of(path)).by_key())


def drawings(root, *, num_classes=15, shape=(28, 28)):
    """Writes classes of fourteen noisy drawings each."""
    generator = np.random.default_rng(0)
    for index in range(num_classes):
        prototype = generator.random(shape) < 0.1
        (root / f"class{index:02d}").mkdir(parents=True)
        for drawing in range(14):
            noise = generator.random(shape) < 0.02
            pixels = np.where(prototype ^ noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(
                root / f"class{index:02d}" / f"{drawing}.png"
            )
    return root


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    return made_once("drawings", drawings, tmp_path_factory)


# As little of the evaluation as there can be.
SHORT = (
    "--num_test_tasks=1",
    "--num_test_groups=1",
    "--num_test_samples=2",
    "--seed=3",
)
FOLDER = (
    "--architecture=deconvolutional",
    "--init=none",
    "--symmetries=8",
    "--support_size=1-3",
    "--affine_copies=2",
    "--batch_size=4",
    "--epochs=2",
    "--steps_per_epoch=2",
    "--warmup_steps=1",
    *SHORT,
)


def train_folder(image_folder, run_dir, *options, sizes=tiny_sizes):
    return commanded(
        "train",
        "own_images",
        f"--data_dir={image_folder}",
        f"--run_dir={run_dir}",
        *FOLDER,
        *options,
        sizes=sizes,
    )


@pytest.fixture(scope="session")
def whole_run(image_folder, tmp_path_factory):
    """Returns the folder of a run on drawings, and what it printed."""

    def make(folder):
        text = train_folder(image_folder, folder)
        folder.with_suffix(".txt").write_text(text)

    folder = made_once("whole_run", make, tmp_path_factory)
    return folder, folder.with_suffix(".txt").read_text()


@pytest.fixture(scope="session")
def begun_run(image_folder, tmp_path_factory):
    """The folder of the same run, stopped before its first step.

    It has an untrained best model, and takes a twentieth of the time.
    """
    folder = tmp_path_factory.mktemp("runs") / "begun"

    def stop(model, *_, **__):
        loading.save_model(model, folder / "best.keras")
        (folder / "checkpoints" / "ckpt-1.index").touch()
        raise SystemExit

    with (
        mock.patch.object(vhe_tf.VHE, "fit", stop),
        pytest.raises(SystemExit),
    ):
        train_folder(image_folder, folder)
    return folder


@contextlib.contextmanager
def unmeasured():
    """Makes a context of tiny models that are not measured nor pictured.

    That takes longer than to train them.
    """
    grids = {"blank": np.zeros([1, 1, 1], np.float32)}
    with (
        tiny_sizes(),
        mock.patch.object(building, "_measuring", return_value=[]),
        mock.patch.object(train, "measure", return_value=Report(())),
        mock.patch.object(pictures, "painter", return_value=lambda _: grids),
    ):
        yield


def process(*arguments, sizes=tiny_sizes, num_devices=1):
    """Returns the command line of `vhe-tf` in a process with tiny models."""
    launch = (
        f"import sys; from {sizes.__module__} import {sizes.__name__}; "
        "from vhe_tf.experiments import cli; import tensorflow as tf; "
        "tf.config.set_logical_device_configuration("
        "tf.config.list_physical_devices('CPU')[0], "
        f"[tf.config.LogicalDeviceConfiguration()] * {num_devices})\n"
        f"with {sizes.__name__}(): cli.main(['vhe-tf', *sys.argv[1:]])"
    )
    return [sys.executable, "-c", launch, *map(str, arguments)]
