import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import replica_run
from tests.conftest import tiny_alphabet_vhe
from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_style_vhe
from tests.conftest import tiny_vhe
from tests.processes import ROOT
from tests.processes import layouts
from tests.test_random import FAMILIES
from tests.tiny_run import weights_of
from vhe_tf import distribute
from vhe_tf import random
from vhe_tf.models import _checks

# Sums over replicas and over batches add up in other orders.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


# What a replica samples -------------------------------------------------------


def _rows(episode, rows):
    return tf.nest.map_structure(lambda value: value[rows], episode)


def by_parts(function, episode, num_replicas, num_microbatches):
    """Calls a function on each microbatch of each replica; concatenates."""
    values = []

    def gradients(rows):
        values.append(function(rows))
        return []

    here = len(episode["query"]) // num_replicas
    for index in range(num_replicas):
        rows = _rows(episode, slice(here * index, here * (index + 1)))
        distribute.accumulated(
            gradients, rows, count=num_microbatches, variables=[]
        )
    assert len(values) == num_replicas * num_microbatches
    assert len({len(value) for value in values}) == 1
    return np.concatenate(values)


LAYOUTS = [(3, 1), (1, 3), (2, 3), (3, 2)]  # replicas, microbatches of each


LOC = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_part_samples_its_rows_of_the_whole_batch(name, layout):
    def sample(rows):
        distribution = FAMILIES[name](rows["query"])
        return random.sample(distribution, seed=rows["seed"])

    episode = {"query": LOC, "seed": random.fold_in(0, tf.range(12))}
    np.testing.assert_allclose(
        by_parts(sample, episode, *layout),
        sample(episode),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("make", "groups", "channels", "layout"),
    [
        (tiny_pixel_cnn_vhe, ["character"], 1, (2, 2)),
        (tiny_alphabet_vhe, ["alphabet", "character"], 1, (2, 1)),
        (tiny_style_vhe, ["character", "style"], 3, (1, 4)),
    ],
)
def test_a_part_has_the_bounds_of_its_rows(make, groups, channels, layout):
    model = make("published")  # with dropout
    episode = tiny_episode(
        groups, batch_size=4, support_size=3, image_shape=(8, 8, channels)
    )

    def elbo(rows):
        return model(rows, training=True).elbo

    np.testing.assert_allclose(
        by_parts(elbo, episode, *layout), elbo(episode), rtol=1e-5
    )


def test_what_has_no_gradient_in_a_microbatch_has_a_zero_one():
    weights = [tf.Variable([1.0, 2.0]), tf.Variable(3.0)]
    sums = distribute.accumulated(
        lambda rows: [weights[0] * tf.reduce_sum(rows["query"]), None],
        {"query": tf.range(4.0)},
        count=2,
        variables=weights,
    )
    np.testing.assert_array_equal(sums[0], [6.0, 12.0])
    np.testing.assert_array_equal(sums[1], 0.0)


@pytest.mark.parametrize(("replica", "expected"), [(0, 6.0), (1, 0.0)])
def test_what_has_no_gradient_on_replicas_has_none(replica, expected):
    context = types.SimpleNamespace(
        replica_id_in_sync_group=tf.constant(replica)
    )
    with (
        mock.patch.object(distribute, "_shared_context", return_value=context),
        mock.patch.object(distribute, "mean", lambda values: values),
    ):
        first, none = distribute.summed_once([tf.constant([6.0]), None])
    np.testing.assert_array_equal(first, [expected])
    assert none is None


def test_one_microbatch_is_in_memory_at_a_time():
    model = tiny_vhe()
    seen = []
    call = model.likelihood.call

    def spy(**latents):
        seen.append({tuple(value.shape) for value in latents.values()})
        return call(**latents)

    model.compile(keras.optimizers.SGD(0.1), accumulation=4)
    with mock.patch.object(model.likelihood, "call", spy):
        step = tf.function(model.train_step).get_concrete_function(
            tiny_episode(batch_size=8)
        )
    assert seen == [{(2, 2), (2, 3)}]  # traced once, of two rows
    [loop] = [op for op in step.graph.get_operations() if op.type == "While"]
    assert loop.get_attr("parallel_iterations") == 1


# What a worker makes ----------------------------------------------------------


def shares(num_workers, num_replicas):
    """By worker, the episodes of its replicas, and which parts it made."""
    made = []

    def episodes(*, part, num_parts):
        made.append((part, num_parts))
        return replica_run.sampler().dataset(part=part, num_parts=num_parts)

    def of_workers(of_worker):
        return [
            of_worker(tf.distribute.InputContext(num_workers, index))
            for index in range(num_workers)
        ]

    strategy = types.SimpleNamespace(
        num_replicas_in_sync=num_replicas,
        distribute_datasets_from_function=of_workers,
    )
    return distribute.split(strategy, episodes), made


@pytest.mark.parametrize(("num_workers", "num_replicas"), [(1, 2), (2, 4)])
def test_replicas_have_their_rows_of_the_whole_batch(num_workers, num_replicas):
    workers, made = shares(num_workers, num_replicas)
    assert made == [(index, num_workers) for index in range(num_workers)]
    here = num_replicas // num_workers
    # Two steps: the replicas of a worker take turns.
    each = [list(worker.take(2 * here)) for worker in workers]
    for step in range(2):
        whole = replica_run.sampler().episode(step)
        count = len(whole["query"]) // num_replicas
        for replica in range(num_replicas):
            worker, place_there = divmod(replica, here)
            rows = slice(count * replica, count * (replica + 1))
            tf.nest.map_structure(
                np.testing.assert_array_equal,
                each[worker][step * here + place_there],
                _rows(whole, rows),
            )


def test_one_replica_has_the_whole_batch():
    strategy = types.SimpleNamespace(num_replicas_in_sync=1)
    whole = replica_run.sampler().dataset()
    assert distribute.split(strategy, lambda: whole) is whole


# Runs -------------------------------------------------------------------------


COMPILED = {"jit_compile": True}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_device")
    replica_run.train(distribute.make_strategy("none"), folder)
    return folder


def start(distribution, *runs, layout=None):
    """Starts a process of tiny runs; `layout` is its TF_CONFIG, if any."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    if layout:
        environment["TF_CONFIG"] = layout
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.replica_run", distribution),
            *(json.dumps(run, default=str) for run in runs),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def start_two_workers(*runs):
    """Starts two processes of runs, of each what the two of them are given."""
    return [
        start("multi_worker", *own, layout=layout)
        for own, layout in zip(zip(*runs, strict=True), layouts(2), strict=True)
    ]


def signal_after_a_checkpoint(processes, process, number, folder):
    """Sends a signal to one of processes that train in the folder."""
    deadline = time.monotonic() + 300
    try:
        while not (folder / "checkpoints" / "checkpoint").exists():
            assert all(each.poll() is None for each in processes)
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(number)


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
    # A run that was resumed has no rows of earlier steps.
    for row, want in zip(rows, wanted[-len(rows) :], strict=True):
        assert row.keys() == want.keys()
        for name, value in row.items():
            np.testing.assert_allclose(value, want[name], **ROUNDING)
    for name in ("best.keras", "last.keras"):
        found, want = (weights_of(f / name) for f in (folder, expected))
        assert found.keys() == want.keys()
        for key, value in want.items():
            np.testing.assert_allclose(found[key], value, **ROUNDING)


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    """A folder of a run of two devices, and what Keras' own `fit` leaves."""
    folder = tmp_path_factory.mktemp("two_devices")
    path, xla = folder / "keras.npz", folder / "xla.npz"
    runs = {"folder": folder}, {"path": path}, {"path": xla} | COMPILED
    end([start("mirrored", *runs)])
    return folder, path, xla


@pytest.mark.integration
def test_two_devices_come_to_the_same_as_one(one_device, two_devices):
    assert_same_run(two_devices[0], one_device)


@pytest.mark.integration
@pytest.mark.parametrize(("which", "options"), [(1, {}), (2, COMPILED)])
def test_keras_own_fit_comes_to_the_same_on_two_devices(
    which, options, two_devices, tmp_path
):
    path = tmp_path / "one.npz"
    replica_run.fit_as_keras_does(
        distribute.make_strategy("none"), path, **options
    )
    one, two = np.load(path), np.load(two_devices[which])
    assert one.files == two.files
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], **ROUNDING)


@pytest.mark.parametrize(
    ("jit_compile", "num_gpus", "compiles"),
    [(True, 0, True), (False, 1, False), (None, 1, True), ("auto", 0, False)],
)
def test_xla_compiles_the_gradients_of_each_replica(
    jit_compile, num_gpus, compiles
):
    model = tiny_vhe()
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    gpus = [object()] * num_gpus
    with (
        mock.patch.object(keras.Model, "distribute_strategy", strategy),
        mock.patch.object(
            tf.config, "list_physical_devices", return_value=gpus
        ),
    ):
        model.compile("sgd", jit_compile=jit_compile)
    assert not model.jit_compile  # the whole step
    assert model.get_compile_config()["jit_compile"] == compiles
    if compiles:
        program = model._differentiate.experimental_get_compiler_ir(
            tiny_episode()
        )
        assert "HloModule" in program(stage="hlo")
    else:
        assert not hasattr(model._differentiate, "experimental_get_compiler_ir")


def test_microbatches_come_to_the_same_as_one(one_device, tmp_path):
    replica_run.train(
        distribute.make_strategy("none"), tmp_path, accumulation=4
    )
    assert_same_run(tmp_path, one_device)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of two workers of which one was killed, and the other's text.

    It is killed after the first checkpoint.
    """
    folder = tmp_path_factory.mktemp("killed")
    workers = start_two_workers([{"folder": folder, "pace": 0.3}] * 2)
    signal_after_a_checkpoint(workers, workers[1], signal.SIGKILL, folder)
    [text] = end(workers[:1], returncode=1)
    end(workers[1:], returncode=-signal.SIGKILL)
    assert not (folder / "last.keras").exists(), "was not killed in time"
    return folder, text


@pytest.fixture(scope="module")
def two_workers(killed, tmp_path_factory):
    """The output of each of two workers, by the name of the run.

    One process of each takes part in all of them: it takes longest to start.
    """
    root = tmp_path_factory.mktemp("two_workers")
    refused = root / "refused"
    apart = [{"folder": root / name} for name in ("chief", "other")]
    runs = {
        "resumed": [{"folder": killed[0]}] * 2,
        1: [{"folder": refused, "seed": seed} for seed in (0, 1)],
        "labels": [{"folder": refused, "seed": seed} for seed in (0, "labels")],
        "apart": apart,
        "parted": apart,
        "compiled": [{"folder": root / "compiled"} | COMPILED] * 2,
    }
    texts = end(start_two_workers(*runs.values()))
    said = zip(
        *(text.split(replica_run.END)[:-1] for text in texts), strict=True
    )
    return root, dict(zip(runs, said, strict=True))


@pytest.mark.integration
def test_two_workers_compile_by_xla_what_one_device_trains(
    one_device, two_workers
):
    assert_same_run(two_workers[0] / "compiled", one_device)


@pytest.mark.integration
def test_two_workers_come_to_the_same_as_one(one_device, two_workers):
    root, said = two_workers
    assert not any("error: " in text for text in said["apart"]), said["apart"]
    assert_same_run(root / "chief", one_device)
    assert not list((root / "other").iterdir()), "the chief alone writes"
    # The other sees none of the chief's checkpoints: they must not part ways.
    for text in said["parted"]:
        assert re.search(r"error: .*Received: step \d+ on this", text)


@pytest.mark.integration
@pytest.mark.parametrize("other", [1, "labels"])
def test_workers_of_another_run_do_not_train_together(other, two_workers):
    root, said = two_workers
    for seed, text in zip((0, other), said[other], strict=True):
        assert "the same settings" in text
        shown = 0 if seed == "labels" else seed
        assert f'"seed": {shown}}}' in text
    assert not list(root.glob("refused/checkpoints/ckpt*"))


@pytest.mark.integration
def test_a_worker_that_was_killed_goes_on(killed, two_workers, one_device):
    folder, text = killed
    assert "error: Another worker " in text
    assert f"checkpoint, {folder / 'checkpoints' / 'ckpt-'}" in text
    for text in two_workers[1]["resumed"]:
        assert "Resuming from step" in text
    assert_same_run(folder, one_device)


# Each for itself --------------------------------------------------------------


def test_of_several_machines_each_calls_a_function_by_itself():
    strategy = types.SimpleNamespace(num_replicas_in_sync=4)
    with mock.patch.object(
        distribute, "has_several_machines", lambda value: value is strategy
    ):
        each = distribute.EachReplica(strategy, lambda a, b: a["x"] + b)
    assert each.count == 1
    [result] = each([({"x": tf.constant([1.0])}, tf.constant(2.0))])
    np.testing.assert_array_equal(result, [3.0])


# What cannot be ---------------------------------------------------------------


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match=r"or 'multi_worker'.*'tpu'"):
        distribute.make_strategy("tpu")


def _tf_config(workers=("host0:9000", "host1:9000"), **task):
    task = {"type": "worker", "index": 0, **task}
    return json.dumps({"cluster": {"worker": workers}, "task": task})


def _cluster(**cluster):
    task = {"type": "worker", "index": 0}
    workers = {"worker": ["host0:9000", "host1:9000"]}
    return json.dumps({"cluster": workers | cluster, "task": task})


@pytest.mark.parametrize(
    "text",
    [
        _tf_config(),
        _tf_config(index="1"),
        _tf_config(["[::1]:1", "10.0.0.7:65535", "a-b.c_d.net:80"]),
        _cluster(chief=["host2:9000"]),
    ],
)
def test_machines_that_are_told_apart_are_known(text):
    distribute._check_tf_config(text)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "worker0:9000",
        '{"cluster": {"worker": ["host0:9000"]}}',
        _tf_config(index=3),
        _tf_config(index=2),
        _tf_config(index=-1),
        _tf_config(index=0.5),
        _tf_config(index=True),
        _tf_config(index=None),
        _tf_config(index="first"),
        _tf_config(type="chief"),
        _tf_config(type=None),
        _tf_config("host0:9000"),
        _tf_config(["host0", "host1"]),
        _tf_config(["host0:9000", "host0:9000"]),
        _tf_config([9000, 9001]),
        *(
            _tf_config(["host1:9000", place])
            for place in (
                "host0:0",
                "host0:65536",
                "host0:99999",
                "host0:900000",
                "http://host0:9000",
                " host0:9000",
                "host0:9000 ",
                "host0 :9000",
                ":9000",
            )
        ),
        _cluster(chief=["host2:9000", "host3:9000"]),
        *(
            _cluster(**{name: ["host2:9000"]})
            for name in ("ps", "evaluator", "master", "trainer", "Worker")
        ),
        json.dumps(
            {
                "cluster": {"trainer": ["host0:9000"]},
                "task": {"type": "trainer", "index": 0},
            }
        ),
        _tf_config({"0": "host0:9000"}),
        '{"cluster": [], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["host0:9000"]}, "task": []}',
        "[]",
    ],
)
def test_machines_that_are_not_told_apart_are_refused(text, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG, such as") as error:
        distribute.make_strategy("multi_worker")
    assert f"Received: TF_CONFIG={text!r}" in str(error.value)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (8, r"a multiple of the 3 replicas.*batch_size=8"),
        (
            18,
            r"6 must be a multiple.*accumulation=4 with batch_size=18 on 3 rep",
        ),
    ],
)
def test_a_layout_that_cannot_be_is_refused(batch_size, message):
    model = replica_run.compiled_model()
    _checks._check_layout(model, batch_size)  # on one device, anything goes
    model.accumulation = 4 if batch_size == 18 else 1
    strategy = types.SimpleNamespace(num_replicas_in_sync=3)
    with (
        mock.patch.object(keras.Model, "distribute_strategy", strategy),
        pytest.raises(ValueError, match=message),
    ):
        _checks._check_layout(model, batch_size)
