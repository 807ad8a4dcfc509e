"""Runs of `vhe-tf train` in processes: killed, stopped, on full disks."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import tiny_sizes
from tests.experiments.conftest import FOLDER
from tests.experiments.conftest import json_of
from tests.experiments.conftest import process
from tests.experiments.conftest import train_folder
from tests.experiments.conftest import unmeasured
from tests.processes import ROOT
from tests.processes import layouts
from tests.processes import meanwhile
from tests.processes import output_of
from tests.processes import signalled
from tests.tiny_run import assert_same_models
from tests.tiny_run import weights_of

pytestmark = pytest.mark.integration

STEPS = 4
# Long enough to be interrupted twice after a checkpoint.
LONG = (*FOLDER, "--epochs=6", f"--steps_per_epoch={STEPS}")


def command(
    image_folder, run_dir, *options, arguments=LONG, sizes=unmeasured, **layout
):
    return process(
        "train",
        "own_images",
        f"--data_dir={image_folder}",
        f"--run_dir={run_dir}",
        *arguments,
        *options,
        sizes=sizes,
        **layout,
    )


@pytest.fixture(scope="module")
def long_run(image_folder, tmp_path_factory):
    """The folder of the same run, not interrupted, in this process."""
    folder = tmp_path_factory.mktemp("long")
    train_folder(image_folder, folder, *LONG, sizes=unmeasured)
    return folder


def test_an_interrupted_run_ends_with_the_same_weights(
    image_folder, long_run, tmp_path
):
    run, checkpoints = command(image_folder, tmp_path), tmp_path / "checkpoints"
    asked = signalled(run, checkpoints / "checkpoint", signal.SIGTERM)
    last = asked.splitlines()[-1]
    step = int(re.match(r"Stopped on request at .*?step (\d+)", last)[1])
    assert not (tmp_path / "metrics.json").exists()
    end = (step // STEPS + 1) * STEPS  # of the next whole epoch
    killed = signalled(run, checkpoints / f"ckpt-{end}.index", signal.SIGKILL)
    assert f"Resuming from step {step} " in killed
    assert not (tmp_path / "last.keras").exists(), "was not killed in time"
    # The final evaluation is left out.
    resumed = signalled(run, tmp_path / "last.keras")
    assert "Resuming from step" in resumed
    assert_same_models(tmp_path, long_run)


@pytest.mark.slow
def test_a_full_disk_is_told_and_with_more_room_the_run_resumes(
    image_folder, long_run, small_disk
):
    folder = small_disk.folder / "run"
    for path, words in [
        ("checkpoints/checkpoint", r"error: .*ritten.*"),
        ("pictures/unconditional.png", r"error: .*metrics\.json.*"),
    ]:
        status, text = meanwhile(
            command(image_folder, folder, sizes=tiny_sizes),
            folder / path,
            lambda _: small_disk.fill(),
        )
        assert status == 1, text
        [error] = [v for v in text.splitlines() if v.startswith("error: ")]
        assert re.match(words, error)
        assert "Traceback" not in text
        assert not list(folder.rglob("*partial*"))
        small_disk.resize("64m")
        small_disk.empty()
    done = output_of(command(image_folder, folder))
    assert done.returncode == 0, done.stdout
    assert json_of(folder / "metrics.json")
    assert_same_models(folder, long_run)


def assert_close_models(folder, expected):
    found, wanted = (weights_of(f / "last.keras") for f in (folder, expected))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


# tests/test_distribute.py tests the same of `fit`, without the command.
@pytest.mark.slow
def test_two_devices_train_as_one_does(image_folder, whole_run, tmp_path):
    done = output_of(
        command(
            image_folder,
            tmp_path,
            "--distribution=mirrored",
            "--accumulation=2",
            arguments=FOLDER,
            num_devices=2,
        )
    )
    assert done.returncode == 0, done.stdout
    assert_close_models(tmp_path, whole_run[0])


@pytest.mark.slow
def test_two_machines_train_as_one_does(image_folder, whole_run, tmp_path):
    folder = tmp_path / "two"
    one = command(
        image_folder, folder, "--distribution=multi_worker", arguments=FOLDER
    )
    with contextlib.ExitStack() as stack:
        processes = []
        for layout in layouts(2):
            started = stack.enter_context(
                subprocess.Popen(
                    one,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, "TF_CONFIG": layout},
                    cwd=ROOT,
                )
            )
            stack.callback(started.kill)
            processes.append(started)
        texts = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], texts
    # Only the chief measures.
    assert [f"Made in {folder}:" in text for text in texts] == [True, False]
    assert (folder / "metrics.json").exists()
    assert_close_models(folder, whole_run[0])


@pytest.mark.parametrize(
    "arguments",
    [
        ("trainers/omniglot.py",),
        ("-m", "vhe_tf.experiments.cli", "evaluate"),
        ("-m", "tools.jax_offload.export_run"),
    ],
)
def test_help_explains_itself_without_loading_tensorflow(arguments):
    done = output_of([sys.executable, "-X", "importtime", *arguments, "--help"])
    assert done.returncode == 0, done.stdout
    assert "--data_dir" in done.stdout
    assert "tensorflow" not in {
        line.rpartition("|")[2].strip()
        for line in done.stdout.splitlines()
        if line.startswith("import time:")
    }


@pytest.mark.parametrize(
    "script", sorted(p.name for p in (ROOT / "trainers").glob("*.py"))
)
def test_every_trainer_explains_itself(script):
    done = output_of([sys.executable, f"trainers/{script}", "--help"])
    assert done.returncode == 0, done.stdout
    assert "vhe-tf" in done.stdout or f"trainers/{script}" in done.stdout


def test_without_data_or_internet_both_ways_are_named(tmp_path):
    # The host of the data set, unreachable from anywhere through this proxy.
    nowhere = "http://127.0.0.1:9"
    done = output_of(
        process("train", "omniglot", f"--run_dir={tmp_path / 'run'}"),
        TFDS_DATA_DIR=str(tmp_path / "empty"),
        https_proxy=nowhere,
        HTTPS_PROXY=nowhere,
    )
    assert done.returncode != 0
    for words in ("data_dir", "TFDS_DATA_DIR", "internet", "glyphs"):
        assert words in done.stdout
    assert "Traceback" not in done.stdout
