"""Kills runs and exports again and again, as `kill -9` does.

Run as `python -m tests.killed_run run|export FOLDER`. TensorFlow is imported
once; each process is a fork of the one that did so, and did nothing more.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time
import traceback

import tensorflow as tf

import vhe_tf
from tests import tiny_run
from tests.conftest import tiny_vhe
from vhe_tf import callbacks
from vhe_tf import errors
from vhe_tf.serving import export

EPOCHS = 140  # more than there is time for before the last kill
STOPPED = 3  # the status of a process that was asked to stop

# What a process has said before its last seconds begin, how many seconds these
# are at most, for how many processes, and whether they are asked to stop
# before they are killed.
KILLS = [
    ("", 4.0, 4, False),
    (": starting", 2.5, 6, False),
    ("val_elbo", 0.6, 10, False),
    ("val_elbo", 0.3, 3, True),
]


def forked(function, *arguments, log):
    """Starts a process that calls a function, and returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        function(*arguments)
        status = 0
    except errors.StoppedOnRequest:
        status = STOPPED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def status_of(child):
    """Waits for a process; returns its status, negative if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Runs -------------------------------------------------------------------------


def train(folder):
    tiny_run.train(
        folder,
        tiny_run.sampler(),
        callbacks=[callbacks.Scalars(folder / "tensorboard", {"seed": 0})],
        epochs=EPOCHS,
    )


def check_run(folder):
    """Checks that whatever has its final name is whole."""
    for path in folder.rglob("[!.]*.keras"):
        vhe_tf.load_model(path)
    for path in folder.rglob("[!.]*.json"):
        json.loads(path.read_text("utf-8"))
    for path in (folder / "checkpoints").glob("*.index"):
        reader = tf.train.load_checkpoint(str(path.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    named = tiny_run.latest(folder)
    if named:
        resume = callbacks.ExactResume(folder / "checkpoints")
        resume.resume(
            tiny_run.compiled_model(),
            steps_per_epoch=tiny_run.STEPS,
            callbacks=[],
        )
        resume.close()
        assert named == f"ckpt-{resume.step}"


def wait(child, is_time):
    """Waits until it is time to kill a process."""
    deadline = time.monotonic() + 120
    while not is_time():
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert ended is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_run(folder, log, *, after, seconds, ask):
    """Starts a process of the run, and kills it."""
    child = forked(train, folder, log=log)
    wait(child, lambda: log.exists() and after in log.read_text())
    if ask:
        os.kill(child, signal.SIGTERM)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = status_of(child)
    expected = {-signal.SIGKILL, STOPPED if ask else -signal.SIGKILL}
    assert status in expected, (status, log.read_text())
    return status == -signal.SIGKILL


def kill_runs(folder):
    log = folder / "log"
    chance = random.Random(0)
    kills = [
        {"after": after, "seconds": chance.uniform(0, most), "ask": ask}
        for after, most, count, ask in KILLS
        for _ in range(count)
    ]
    chance.shuffle(kills)
    whole, killed = folder / "whole", folder / "killed"
    assert status_of(forked(train, whole, log=log)) == 0, log.read_text()
    count = 0
    for number, moment in enumerate(kills):
        own_log = folder / f"log{number}"
        count += kill_run(killed, own_log, **moment)
        if killed.exists():
            status = status_of(forked(check_run, killed, log=log))
            assert status == 0, (moment, log.read_text())
        epochs = own_log.read_text().count("val_elbo")
        print(f"{number}: {moment}, {epochs} epochs", flush=True)
    assert status_of(forked(train, killed, log=log)) == 0, log.read_text()
    assert "Resuming from step" in log.read_text()
    assert not list(killed.rglob("*partial*"))
    child = forked(tiny_run.assert_same_models, killed, whole, log=log)
    assert status_of(child) == 0, log.read_text()
    assert count >= 20
    print(f"{count} kills", flush=True)


# Exports ----------------------------------------------------------------------

SIGNATURES = {
    "classify",
    "classify_encoded",
    "encode",
    "log_likelihood",
    "sample",
    "sample_encoded",
    "sample_prior",
    "serving_default",
}
WARMUP_REQUESTS = len(SIGNATURES) - 1  # the default is one of the others

# What an export has begun to write before its last seconds, how many these are
# at most, and for how many exports.
EXPORT_KILLS = [(".*.partial", 1.0, 2), (".*.partial/*", 0.1, 6)]


def export_model(folder):
    export(tiny_vhe(), folder, num_samples=2)


def check_exports(folder):
    """Checks that every version can be served."""
    for version in folder.glob("[!.]*"):
        signatures = tf.saved_model.load(str(version)).signatures
        assert set(signatures) == SIGNATURES
        requests = version / "assets.extra" / "tf_serving_warmup_requests"
        records = tf.data.TFRecordDataset(str(requests))
        assert len(list(records)) == WARMUP_REQUESTS


def kill_export(folder, log, *, pattern, seconds):
    """Starts an export, and kills it."""
    before = set(folder.glob(pattern))
    child = forked(export_model, folder, log=log)
    wait(child, lambda: set(folder.glob(pattern)) - before)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert status_of(child) in (-signal.SIGKILL, 0), log.read_text()


def kill_exports(folder):
    log, folder = folder / "log", folder / "exports"
    folder.mkdir()
    chance = random.Random(0)
    kills = [
        {"pattern": pattern, "seconds": chance.uniform(0, most)}
        for pattern, most, count in EXPORT_KILLS
        for _ in range(count)
    ]
    for number, moment in enumerate(kills):
        kill_export(folder, log, **moment)
        left = list(folder.glob(".*"))
        assert len(left) <= 1, "what the one before left was not removed"
        parts = [path for partial in left for path in partial.rglob("*")]
        print(f"{number}: {moment}, {len(parts)} parts", flush=True)
        status = status_of(forked(check_exports, folder, log=log))
        assert status == 0, log.read_text()
    count = len(list(folder.glob("[!.]*")))  # done before they were killed
    for function in (export_model, check_exports):
        status = status_of(forked(function, folder, log=log))
        assert status == 0, log.read_text()
    assert {path.name for path in folder.iterdir()} == {
        str(version) for version in range(1, count + 2)
    }
    assert count < len(kills) / 2, "most kills came too late"
    print(f"{len(kills)} kills, {count} of them too late", flush=True)


def main(what, folder):
    {"run": kill_runs, "export": kill_exports}[what](pathlib.Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
