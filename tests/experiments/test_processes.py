"""Runs of `vhe-tf train` in processes: killed, stopped, on full disks."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import vhe_tf
from tests.conftest import tiny_sizes
from tests.experiments.conftest import FOLDER
from tests.experiments.conftest import json_of
from tests.experiments.conftest import process
from tests.experiments.conftest import unmeasured
from tests.processes import ROOT
from tests.processes import interrupted
from tests.processes import layouts
from tests.processes import meanwhile
from tests.processes import output_of
from tests.processes import signalled
from tests.tiny_run import assert_same_models

pytestmark = pytest.mark.integration

# Long enough to be interrupted after the first checkpoint.
LONG = (*FOLDER, "--epochs=6", "--steps_per_epoch=4")


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
    folder = tmp_path_factory.mktemp("long")
    signalled(command(image_folder, folder), folder / "last.keras")
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_ends_with_the_same_weights(
    number, image_folder, long_run, tmp_path
):
    first = interrupted(command(image_folder, tmp_path), tmp_path, number)
    if number == signal.SIGTERM:
        last = first.splitlines()[-1]
        assert last.startswith("Stopped on request at ")
        assert not (tmp_path / "metrics.json").exists()
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
    for value, wanted in zip(
        vhe_tf.load_model(folder / "last.keras").get_weights(),
        vhe_tf.load_model(expected / "last.keras").get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def test_two_devices_train_as_one_does(image_folder, whole_run, tmp_path):
    def two(name, *options):
        return command(
            image_folder,
            tmp_path / name,
            "--distribution=mirrored",
            *options,
            arguments=FOLDER,
            num_devices=2,
        )

    rejected = output_of(two("no", "--batch_size=3"))
    assert rejected.returncode == 1
    assert "a multiple of the 2 replicas" in rejected.stdout
    done = output_of(two("two", "--accumulation=2"))
    assert done.returncode == 0, done.stdout
    assert_close_models(tmp_path / "two", whole_run[0])


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
