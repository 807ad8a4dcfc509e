"""Several devices measure what one does."""

import json
import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from tests.conftest import tiny_vhe
from tests.evaluation import replica_evaluation
from tests.evaluation.conftest import assert_alike
from tests.processes import ROOT
from vhe_tf.data import Episodes

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = tiny_vhe()
    model.compile(keras.optimizers.Adam(0.01))
    episodes = Episodes(
        replica_evaluation.data(), batch_size=16, support_size=3, resamples=True
    ).dataset()
    model.fit(episodes, steps_per_epoch=40, shuffle=False, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def one_device(path):
    return replica_evaluation.measure(tf.distribute.get_strategy(), path)


@pytest.fixture(scope="module")
def two_devices(path, tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "measured.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.evaluation.replica_evaluation"),
            *("2", str(path), str(out)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return json.loads(out.read_text())


def test_reports_are_alike(two_devices, one_device):
    assert_alike(two_devices["report"], one_device["report"])


def test_tasks_come_in_their_order(two_devices, one_device):
    assert_alike(two_devices["tasks"], one_device["tasks"])


def test_a_task_alone_is_scored_as_among_others(two_devices, one_device):
    assert_alike(two_devices["alone"], one_device["alone"])
    assert_alike(one_device["alone"], one_device["tasks"][0][1])


def test_monitors_of_a_training_are_alike(two_devices, one_device):
    assert {"accuracy_3way_1shot", "joint_nll"} <= set(two_devices["logs"])
    assert_alike(two_devices["logs"], one_device["logs"])


def test_progress_is_told_to_the_end(two_devices, one_device):
    assert two_devices["last_line"] == one_device["last_line"]
    assert "7 of 7" in two_devices["last_line"]


def test_each_device_takes_its_share_and_no_more_at_once(
    two_devices, one_device
):
    [[most, total]] = one_device["shares"]
    assert most <= replica_evaluation.MAX_DECODED
    assert len(two_devices["shares"]) == 2
    for most_here, total_here in two_devices["shares"]:
        assert most_here == most
        # The last tasks, and groups of a size, are scored twice.
        assert total / 2 <= total_here < 0.75 * total
