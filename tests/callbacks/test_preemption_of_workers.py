"""SIGTERM to one of several machines, and to a run on several devices."""

import re
import signal

import pytest
import tensorflow as tf

from tests import replica_run
from tests.processes import layouts
from tests.test_distribute import assert_same_run
from tests.test_distribute import end
from tests.test_distribute import signal_after_a_checkpoint
from tests.test_distribute import start
from tests.test_distribute import start_two_workers
from vhe_tf import distribute


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_device")
    replica_run.train(distribute.make_strategy("none"), folder)
    return folder


def ask_after_a_checkpoint(processes, asked, folder):
    """Sends SIGTERM to a process; returns the step at which all stopped."""
    signal_after_a_checkpoint(processes, asked, signal.SIGTERM, folder)
    texts = end(processes)
    [step] = {
        int(re.search(r"request at step (\d+) of", text)[1]) for text in texts
    }
    assert not (folder / "last.keras").exists(), "was not asked in time"
    latest = tf.train.latest_checkpoint(folder / "checkpoints")
    assert latest == str(folder / "checkpoints" / f"ckpt-{step}")
    return step


@pytest.mark.slow
def test_two_devices_stop_and_go_on(one_device, tmp_path):
    process = start("mirrored", {"folder": tmp_path, "pace": 0.3})
    step = ask_after_a_checkpoint([process], process, tmp_path)
    [text] = end([start("mirrored", {"folder": tmp_path})])
    assert f"Resuming from step {step} " in text
    assert_same_run(tmp_path, one_device)


@pytest.mark.slow
def test_a_request_at_the_end_of_the_last_epoch_is_met(
    one_device, tmp_path, monkeypatch
):
    layouts_of_two = layouts(2)
    run = {"folder": tmp_path}
    first = start("multi_worker", run, layout=layouts_of_two[0])
    monkeypatch.setenv("ASKED_AT_THE_END", "1")
    asked = start("multi_worker", run, layout=layouts_of_two[1])
    step = replica_run.EPOCHS * replica_run.STEPS
    for text in end([first, asked]):
        assert f"request at step {step} of" in text
    assert not (tmp_path / "last.keras").exists()
    monkeypatch.delenv("ASKED_AT_THE_END")
    end(start_two_workers([run] * 2))
    assert_same_run(tmp_path, one_device)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_two_workers_stop_together_and_go_on(asked, one_device, tmp_path):
    workers = start_two_workers([{"folder": tmp_path, "pace": 0.3}] * 2)
    step = ask_after_a_checkpoint(workers, workers[asked], tmp_path)
    for text in end(start_two_workers([{"folder": tmp_path}] * 2)):
        assert f"Resuming from step {step} " in text
    assert_same_run(tmp_path, one_device)
