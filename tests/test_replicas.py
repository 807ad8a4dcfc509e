import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import vhe_tf
from tests import replica_run
from tests.conftest import tiny_alphabet_vhe
from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_style_vhe
from tests.trainers.conftest import ROOT
from vhe_tf import replicas
from vhe_tf import training
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN

# Sums over replicas and over batches add up in other orders.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


@contextlib.contextmanager
def place(index, count):
    """Makes believe that this is one replica of several."""
    context = types.SimpleNamespace(
        num_replicas_in_sync=count, replica_id_in_sync_group=index
    )
    with mock.patch.object(
        replicas.tf.distribute, "get_replica_context", return_value=context
    ):
        yield


# What a replica draws ---------------------------------------------------------


class _Constant:
    """A network that draws each pixel by its own noise."""

    def generate(self, noise, conditioning, pixels, temperature):
        return pixels.draw(conditioning, noise, temperature)


LOC = np.random.default_rng(0).normal(size=(6, 2, 3, 1)).astype(np.float32)


@pytest.mark.parametrize(
    "make",
    [
        lambda loc: tfd.Independent(tfd.Normal(loc, 2.0), 3),
        lambda loc: tfd.Independent(tfd.Bernoulli(loc, dtype=tf.float32), 3),
        lambda loc: tfd.MultivariateNormalDiag(
            tf.reshape(loc, [-1, 6]), tf.exp(tf.reshape(loc, [-1, 6]))
        ),
        lambda loc: PixelCNN(_Constant(), BernoulliPixels(), (2, 3, 1), loc),
        lambda loc: tfd.MultivariateNormalDiag(tf.zeros([3]), tf.ones([3])),
        lambda loc: tfd.Independent(tfd.Normal(tf.zeros([2, 3]), 1.0), 2),
    ],
)
def test_a_replica_draws_its_rows_of_the_whole_batch(make):
    whole = replicas.sample(make(LOC), 6, seed=(1, 2))
    for index in range(3):
        rows = slice(2 * index, 2 * index + 2)
        with place(index, 3):
            drawn = replicas.sample(make(LOC[rows]), 2, seed=(1, 2))
        np.testing.assert_allclose(drawn, whole[rows], rtol=1e-6)


def _rows(episode, rows):
    return {
        key: value
        if key == "seed"
        else tf.nest.map_structure(lambda v: v[rows], value)
        for key, value in episode.items()
    }


@pytest.mark.parametrize(
    ("make", "groups", "channels"),
    [
        (tiny_pixel_cnn_vhe, ["character"], 1),
        (tiny_alphabet_vhe, ["alphabet", "character"], 1),
        (tiny_style_vhe, ["character", "style"], 3),
    ],
)
def test_a_replica_has_the_bounds_of_its_rows(make, groups, channels):
    model = make("published")  # with dropout
    episode = tiny_episode(
        groups, batch_size=4, support_size=3, image_shape=(8, 8, channels)
    )
    whole = model(episode, training=True).elbo
    for index in range(2):
        rows = slice(2 * index, 2 * index + 2)
        with place(index, 2):
            elbo = model(_rows(episode, rows), training=True).elbo
        np.testing.assert_allclose(elbo, whole[rows], rtol=1e-5)


# Runs -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_device")
    replica_run.train("none", folder)
    return folder


def start(distribution, folder, *, workers=(), pace=0.0):
    """Starts a process of a tiny run; `workers` are (ports, index)."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    if workers:
        ports, index = workers
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"type": "worker", "index": index}
        environment["TF_CONFIG"] = json.dumps(
            {"cluster": cluster, "task": task}
        )
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.replica_run"),
            *(distribution, str(folder), str(pace)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def start_two_workers(*folders, pace=0.0):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in folders]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    return [
        start("multi_worker", folder, workers=(ports, index), pace=pace)
        for index, folder in enumerate(folders)
    ]


def end(processes, *, returncode=0):
    """Waits for processes, and returns what they wrote."""
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=300)[0])
            assert process.returncode == returncode, outputs[-1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return outputs


def assert_same_run(folder, expected):
    """Checks the metrics of steps and epochs, and the weights."""
    rows, wanted = (
        json.loads((f / "history.json").read_text()) for f in (folder, expected)
    )
    # A run that went on has no rows of what was before.
    for row, want in zip(rows, wanted[-len(rows) :], strict=True):
        assert row.keys() == want.keys()
        for name, value in row.items():
            np.testing.assert_allclose(value, want[name], **ROUNDING)
    for name in ("best.keras", "last.keras"):
        for value, want in zip(
            vhe_tf.load_model(folder / name).get_weights(),
            vhe_tf.load_model(expected / name).get_weights(),
            strict=True,
        ):
            np.testing.assert_allclose(value, want, **ROUNDING)


def test_two_devices_come_to_the_same_as_one(one_device, tmp_path):
    end([start("mirrored", tmp_path)])
    assert_same_run(tmp_path, one_device)


def test_two_workers_come_to_the_same_as_one(one_device, tmp_path):
    chief, other = tmp_path / "chief", tmp_path / "other"
    end(start_two_workers(chief, other))
    assert_same_run(chief, one_device)
    assert not list(other.iterdir()), "the chief alone writes"
    # The other sees none of the chief's checkpoints: they must not part ways.
    for text in end(start_two_workers(chief, other), returncode=1):
        assert "must all see its folder" in text


def test_a_worker_that_was_killed_goes_on(one_device, tmp_path):
    workers = start_two_workers(tmp_path, tmp_path, pace=0.3)
    deadline = time.monotonic() + 300
    try:
        while not (tmp_path / "checkpoints" / "checkpoint").exists():
            assert all(process.poll() is None for process in workers)
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        workers[1].send_signal(signal.SIGKILL)
    [text] = end(workers[:1], returncode=1)
    end(workers[1:], returncode=-signal.SIGKILL)
    assert "error: Another machine of this run stopped" in text
    assert f"goes on from {tmp_path / 'checkpoints' / 'ckpt-'}" in text
    assert not (tmp_path / "last.keras").exists(), "was not killed in time"
    for text in end(start_two_workers(tmp_path, tmp_path)):
        assert "Going on from step" in text
    assert_same_run(tmp_path, one_device)


# What cannot be ---------------------------------------------------------------


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match=r"or 'multi_worker'.*'tpu'"):
        replicas.make_strategy("tpu")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "worker0:9000",
        '{"cluster": {"worker": ["host0:9000"]}}',
        '{"cluster": {"worker": ["host0:9000"]}, '
        '"task": {"type": "worker", "index": 3}}',
    ],
)
def test_machines_that_are_not_told_apart_are_refused(text, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG, such as") as error:
        replicas.make_strategy("multi_worker")
    assert f"Received: TF_CONFIG={text!r}" in str(error.value)


@pytest.mark.parametrize(
    ("batch_size", "jit_compile", "message"),
    [
        (8, False, r"a multiple of their number, 3.*batch_size=8"),
        (9, True, r"XLA cannot .*jit_compile=True with 3 replicas"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(batch_size, jit_compile, message):
    model = replica_run.compiled_model()
    model.jit_compile = jit_compile
    training.check_layout(model, batch_size)  # on one device, anything goes
    strategy = types.SimpleNamespace(num_replicas_in_sync=3)
    with (
        mock.patch.object(keras.Model, "distribute_strategy", strategy),
        pytest.raises(ValueError, match=message),
    ):
        training.check_layout(model, batch_size)
