import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import vhe_tf
from tests.evaluation.conftest import assert_alike
from tests.tiny_run import assert_same_models
from tests.tiny_run import tiny_model
from tests.trainers.conftest import ROOT
from tests.trainers.conftest import endings
from tests.trainers.conftest import interrupted
from tests.trainers.conftest import layouts
from tests.trainers.conftest import meanwhile
from tests.trainers.conftest import output_of
from tests.trainers.conftest import printed_by
from tests.trainers.conftest import signalled
from tests.trainers.conftest import tiny_trainer
from tests.trainers.conftest import trainer
from vhe_tf import training

EPOCHS, STEPS = 6, 4


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """Fifteen classes of fourteen noisy drawings each."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for index in range(15):
        prototype = generator.random((28, 28)) < 0.1
        (root / f"class{index:02d}").mkdir()
        for drawing in range(14):
            noise = generator.random((28, 28)) < 0.02
            pixels = np.where(prototype ^ noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(
                root / f"class{index:02d}" / f"{drawing}.png"
            )
    return root


def arguments(image_folder, run_dir):
    return [
        "--dataset=folder",
        f"--data_dir={image_folder}",
        f"--run_dir={run_dir}",
        "--support_size=1-3",
        "--affine_copies=2",
        "--batch_size=4",
        f"--epochs={EPOCHS}",
        f"--steps_per_epoch={STEPS}",
        "--warmup_steps=2",
        "--num_test_trials=2",
        "--num_test_groups=2",
        "--num_test_samples=3",
        "--seed=3",
    ]


@pytest.fixture(scope="module")
def whole_run(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = output_of(trainer(*arguments(image_folder, folder)))
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def test_the_average_forgets_where_the_weights_began():
    taken = printed_by(
        "import common, json\n"
        "import tensorflow as tf\n"
        "from absl import flags\n"
        "from tests.tiny_run import tiny_model\n"
        "flags.FLAGS(['', '--run_dir=none', '--ema=0.999'])\n"
        "model, taken = tiny_model(), []\n"
        "common.compile_model(model, character='character')\n"
        "optimizer, variables = model.optimizer, model.trainable_variables\n"
        "optimizer.build(variables)\n"
        "for _ in range(4):\n"
        "    optimizer.apply([tf.ones_like(v) for v in variables])\n"
        "    averages = optimizer._model_variables_moving_average\n"
        "    pair = variables[0], averages[0]\n"
        "    taken.append([v.numpy().ravel().tolist() for v in pair])\n"
        "print(json.dumps(taken))"
    )
    weights, averages = np.swapaxes(taken, 0, 1)
    expected = weights[0]
    for t in range(1, 4):
        momentum = (1 + t) / (10 + t)
        expected = momentum * expected + (1 - momentum) * weights[t]
    np.testing.assert_allclose(averages[-1], expected, rtol=1e-6)
    assert not np.allclose(weights[0], weights[-1], rtol=1e-4)


def test_a_run_leaves_what_it_promises(whole_run):
    folder, text = whole_run
    for name in (
        "best.keras",
        "last.keras",
        "config.json",
        "metrics.json",
        "pictures/conditional.png",
        "pictures/reconstruction.png",
        "pictures/unconditional.png",
    ):
        assert (folder / name).is_file(), name
    for part in ("", "pictures"):
        assert list((folder / "tensorboard" / part).glob("events.out.*"))
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert 0 <= metrics["accuracy"]["3way_1shot"]["mean"] <= 1
    assert np.isfinite(metrics["joint_nll"]["mean"])
    assert f"epoch {EPOCHS}/{EPOCHS}" in text
    assert "3-way 1-shot accuracy on unseen classes" in text
    assert "Next:" in text
    assert not list(folder.rglob("*.partial*"))


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_ends_with_the_same_weights(
    number, image_folder, whole_run, tmp_path
):
    command = trainer(*arguments(image_folder, tmp_path))
    first = interrupted(command, tmp_path, number)
    if number == signal.SIGTERM:
        last = first.splitlines()[-1]
        assert last.startswith("Stopped on request at step ")
        assert last.endswith(f" of {tmp_path}; the same command goes on.")
        assert not (tmp_path / "metrics.json").exists()
    assert_same_models(tmp_path, whole_run[0])


@pytest.mark.slow
def test_a_full_disk_is_told_and_with_more_room_it_goes_on(
    image_folder, tmp_path, small_disk
):
    whole, folder = tmp_path / "whole", small_disk.folder / "run"
    signalled(
        tiny_trainer(*arguments(image_folder, whole)), whole / "last.keras"
    )
    command = tiny_trainer(*arguments(image_folder, folder))
    for path, words in [
        ("checkpoints/checkpoint", r"error: .*ritten.*"),
        ("pictures/unconditional.png", r"error: \S*metrics\.json could not .*"),
    ]:
        status, text = meanwhile(
            command, folder / path, lambda _: small_disk.fill()
        )
        assert status == 1, text
        [error] = [v for v in text.splitlines() if v.startswith("error: ")]
        assert re.fullmatch(
            words
            + r"the disk is full .* The last good checkpoint, \S*ckpt-\d+, "
            "is whole: make room .* and the same command goes on from there.",
            error,
        )
        assert "Traceback" not in text
        assert not list(folder.rglob("*partial*"))
        small_disk.resize("64m")
        small_disk.empty()
    done = output_of(command)
    assert done.returncode == 0, done.stdout
    assert json.loads((folder / "metrics.json").read_text("utf-8"))
    assert_same_models(folder, whole)


_TELL_REPLICAS = """
from vhe_tf.evaluation import report
def told(model, *args, evaluate=report.evaluate, **kwargs):
    print("replicas:", model.distribute_strategy.num_replicas_in_sync)
    return evaluate(model, *args, **kwargs)
report.evaluate = told
"""


def telling_replicas(command):
    """Has a tiny trainer say on how many replicas it evaluates."""
    return [
        *command[:2],
        command[2].replace("\nwith", f"\n{_TELL_REPLICAS}\nwith"),
        *command[3:],
    ]


def one_epoch(image_folder, folder, *options, num_devices=1):
    return tiny_trainer(
        *arguments(image_folder, folder),
        "--epochs=1",
        *options,
        num_devices=num_devices,
    )


@pytest.fixture(scope="module")
def one_device(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_device")
    signalled(one_epoch(image_folder, folder), folder / "last.keras")
    return folder


def assert_close_models(folder, expected):
    for value, wanted in zip(
        vhe_tf.load_model(folder / "last.keras").get_weights(),
        vhe_tf.load_model(expected / "last.keras").get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_devices_train_as_one_does(image_folder, one_device, tmp_path):
    def command(name, *options):
        return one_epoch(image_folder, tmp_path / name, *options, num_devices=2)

    refused = output_of(
        command("no", "--distribution=mirrored", "--batch_size=3")
    )
    assert "a multiple of their number, 2." in refused.stdout
    done = output_of(
        telling_replicas(
            command("two", "--distribution=mirrored", "--accumulation=2")
        )
    )
    assert done.returncode == 0, done.stdout
    assert "replicas: 2" in done.stdout
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text("utf-8"))
    for num_replicas, distribution in enumerate(("none", "mirrored"), 1):
        out = tmp_path / f"{distribution}.json"
        done = output_of(
            telling_replicas(
                tiny_trainer(
                    f"--model={tmp_path / 'two' / 'best.keras'}",
                    f"--data_dir={image_folder}",
                    f"--out={out}",
                    f"--distribution={distribution}",
                    *("--num_trials=2", "--num_groups=2", "--num_samples=3"),
                    *("--joint_num_samples=3", "--seed=3"),
                    script="evaluate.py",
                    num_devices=2,
                )
            )
        )
        assert done.returncode == 0, done.stdout
        assert f"replicas: {num_replicas}" in done.stdout
        report = json.loads(out.read_text("utf-8"))
        for name in ("accuracy", "elbo", "joint_nll", "conditional_nll"):
            assert_alike(report[name], metrics[name], rtol=1e-4)
    assert_close_models(tmp_path / "two", one_device)


def test_two_machines_train_as_one_does(image_folder, one_device, tmp_path):
    folder = tmp_path / "two"
    command = one_epoch(image_folder, folder, "--distribution=multi_worker")
    with contextlib.ExitStack() as stack:
        processes = []
        for layout in layouts(2):
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, "TF_CONFIG": layout},
                    cwd=ROOT,
                )
            )
            stack.callback(process.kill)
            processes.append(process)
        texts = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], texts
    # The chief alone measures and tells.
    assert [f"Made in {folder}:" in text for text in texts] == [True, False]
    assert (folder / "metrics.json").exists()
    assert (folder / "pictures" / "conditional.png").exists()
    assert_close_models(folder, one_device)


def test_evaluate_measures_the_model_on_the_data_of_its_run(
    image_folder, whole_run, tmp_path
):
    out = tmp_path / "new" / "report.json"
    done = output_of(
        trainer(
            f"--model={whole_run[0] / 'best.keras'}",
            f"--data_dir={image_folder}",
            f"--out={out}",
            "--num_trials=2",
            "--joint_num_samples=3",
            script="evaluate.py",
        )
    )
    assert done.returncode == 0, done.stdout
    report = json.loads(out.read_text("utf-8"))
    assert set(report["accuracy"]) == {"3way_1shot", "3way_5shot"}
    assert report["joint_nll"]["num_samples"] == 3
    metrics = json.loads((whole_run[0] / "metrics.json").read_text("utf-8"))
    assert report["groups"] == metrics["groups"]  # the classes held out


@pytest.mark.parametrize(
    ("options", "image_size"),
    [
        (
            "--objective=rescale --kl_warmup_steps=3 "
            "--precision=mixed_bfloat16",
            (28, 28),
        ),
        (
            "--objective=resample --ema=0 --images=grey "
            "--symmetries=2 --support_size=2 --image_size=20x16 "
            "--distribution=mirrored --accumulation=2",
            (20, 16),
        ),
        pytest.param(
            "--objective=rescale --kl_warmup_steps=3 "
            "--precision=mixed_bfloat16 --jit_compile",
            (28, 28),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_option_trains(options, image_size, image_folder, tmp_path):
    done = output_of(
        tiny_trainer(
            *arguments(image_folder, tmp_path),
            *options.split(),
            "--epochs=1",
            "--steps_per_epoch=2",
            "--warmup_steps=1",
        )
    )
    assert done.returncode == 0, done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert metrics["joint_nll"]["unit"] == "nats an image"
    assert "bits_per_dimension" not in metrics["joint_nll"]
    model = vhe_tf.load_model(tmp_path / "best.keras")
    assert model.image_shape == (*image_size, 1)


def test_a_pixel_cnn_trains_and_is_evaluated(image_folder, tmp_path):
    done = output_of(
        tiny_trainer(
            "--dataset=folder",
            f"--data_dir={image_folder}",
            "--architecture=pixel_cnn",
            "--objective=rescale",
            f"--run_dir={tmp_path}",
            "--support_size=1-2",
            "--symmetries=1",
            "--affine_copies=1",
            "--batch_size=2",
            "--epochs=1",
            "--steps_per_epoch=2",
            "--num_validation_groups=4",
            "--num_test_trials=1",
            "--num_test_groups=1",
            "--num_test_samples=2",
        )
    )
    assert done.returncode == 0, done.stdout
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config["architecture"] == "pixel_cnn"
    model = vhe_tf.load_model(tmp_path / "best.keras")
    assert [latent.name for latent in model.latents] == ["character", "pose"]
    assert model.objective == "rescale"
    assert model.image_shape == (28, 28, 1)
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert 0 <= metrics["accuracy"]["3way_1shot"]["mean"] <= 1
    assert np.isfinite(metrics["joint_nll"]["mean"])
    for name in ("conditional", "reconstruction", "unconditional"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as image:
            # Ink, paper and gaps: draws, no shades.
            assert len(np.unique(np.asarray(image))) == 3


def test_weights_that_have_seen_the_test_classes_are_refused(
    image_folder, whole_run, tmp_path
):
    init = whole_run[0] / "best.keras"
    refused = output_of(
        trainer(
            *arguments(image_folder, tmp_path / "run"),
            f"--init={init}",
            "--seed=7",
        )
    )
    assert refused.returncode == 1
    assert "trained on classes that are tested on here" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert not list((tmp_path / "run").rglob("*.*"))


def test_weights_that_may_have_seen_the_validation_set_are_told_of(tmp_path):
    runs = [
        ({"dataset": "glyphs", "split": "lake", "seed": 0}, False),
        ({"dataset": "glyphs", "split": "lake", "seed": 1}, True),
        ({"dataset": "glyphs", "split": "vinyals", "seed": 0}, True),
        ({"dataset": "folder", "split": "lake", "seed": 1}, False),
        (None, False),
    ]
    paths = []
    for number, (run, _) in enumerate(runs):
        folder = tmp_path / str(number)
        folder.mkdir()
        if run:
            training.Run(folder, run).begin()
        paths.append(str(folder / "best.keras"))
        training.save_model(tiny_model(), folder / "best.keras")
    texts = printed_by(
        "import contextlib, io, json\n"
        "import common, omniglot\n"
        "from absl import flags\n"
        "from tests.tiny_run import tiny_model\n"
        "flags.FLAGS(['', '--run_dir=none', '--dataset=glyphs'])\n"
        "texts = []\n"
        f"for path in {paths}:\n"
        "    flags.FLAGS.init = path\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n"
        "        common.compile_model(tiny_model(), character='character')\n"
        "    texts.append(out.getvalue())\n"
        "print(json.dumps(texts))"
    )
    for (run, said), text in zip(runs, texts, strict=True):
        assert ("another --seed or --split" in text) == said
        assert ("cannot be told" in text) == (run is None)


def test_evaluate_and_compare_refuse_classes_that_were_trained_on(tmp_path):
    models = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        config = {"dataset": "omniglot", "split": "random1200", "seed": seed}
        training.Run(folder, config).begin()
        training.save_model(tiny_model(), folder / "best.keras")
        models.append(str(folder / "best.keras"))
    out = tmp_path / "out"
    one = [f"--model={models[0]}", f"--out={out}"]
    both = [f"--models={','.join(models)}", f"--out={out}"]
    for text in (
        *endings("evaluate", [*one, "--split=lake"], [*one, "--lake_runs=x"]),
        *endings("compare", both),
    ):
        assert "trained on classes that are tested on here" in text
    assert not out.exists()


def test_evaluate_explains_mistakes_before_it_measures(
    image_folder, whole_run, tmp_path
):
    other = tmp_path / "best.keras"
    training.save_model(
        vhe_tf.deconvolutional_vhe("small", image_shape=(20, 16, 1)), other
    )
    mistakes = {
        "--shots=1,many": "--shots must be positive numbers",
        "--shots=0": "--shots must be positive numbers",
        "--split=lake": "--split is of Omniglot",
        "--lake_runs=nowhere.zip": "Lake's one-shot runs were not found",
        f"--model={other} --dataset=glyphs": "(20, 16, 1). Received: (28,",
        "--kl_support_size=5": "is of --num_kl_batches",
        "--num_kl_batches=1 --kl_support_size=99": "needs at least 99 elements",
    }
    command = [
        f"--model={whole_run[0] / 'best.keras'}",
        f"--data_dir={image_folder}",
        f"--out={tmp_path / 'new' / 'report.json'}",
    ]
    said = endings(
        "evaluate", *([*command, *mistake.split()] for mistake in mistakes)
    )
    for text, words in zip(said, mistakes.values(), strict=True):
        assert words in text
        assert "task 1 of" not in text


def test_the_kl_of_training_needs_the_settings_of_a_run(tmp_path):
    done = output_of(
        trainer(
            f"--model={tmp_path / 'best.keras'}",
            "--num_kl_batches=1",
            script="evaluate.py",
        )
    )
    assert done.returncode == 1
    assert "has no config.json of a run beside it" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_class_more_ends_a_run_whose_unseen_ones_it_would_change(
    image_folder, whole_run, tmp_path
):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(image_folder, data)
    shutil.copytree(whole_run[0], run)
    shutil.copytree(data / "class03", data / "class99")
    done = output_of(trainer(*arguments(data, run)))
    assert done.returncode == 1
    assert "began with other classes than the data have now" in done.stdout
    assert "Traceback" not in done.stdout


def test_another_run_is_refused(image_folder, whole_run):
    command = trainer(*arguments(image_folder, whole_run[0]), "--seed=7")
    done = output_of(command)
    assert done.returncode != 0
    assert "another run's checkpoints" in done.stdout
    assert "seed: 3 there, 7 here" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    "script",
    [
        "omniglot.py",
        "omniglot_alphabets.py",
        "omniglot_styles.py",
        "youtube_faces.py",
        "evaluate.py",
    ],
)
def test_help_explains_itself_without_loading_tensorflow(script):
    done = output_of(
        [
            sys.executable,
            "-X",
            "importtime",
            *trainer("--help", script=script)[1:],
        ]
    )
    assert "python trainers/" in done.stdout
    # Of every module; no docstring has it.
    assert "--[no]jit_compile" in done.stdout or script == "evaluate.py"
    assert "tensorflow" not in {
        line.rpartition("|")[2].strip()
        for line in done.stdout.splitlines()
        if line.startswith("import time:")
    }


def test_without_data_or_internet_both_ways_are_named(tmp_path):
    # The data set's host, unreachable from anywhere by way of this proxy.
    nowhere = "http://127.0.0.1:9"
    done = output_of(
        trainer(f"--run_dir={tmp_path / 'run'}"),
        TFDS_DATA_DIR=str(tmp_path / "empty"),
        https_proxy=nowhere,
        HTTPS_PROXY=nowhere,
    )
    assert done.returncode != 0
    for words in ("data_dir", "TFDS_DATA_DIR", "internet", "glyphs"):
        assert words in done.stdout
    assert "Traceback" not in done.stdout


def test_mistakes_are_explained(image_folder, tmp_path):
    mistakes = {
        "--support_size=five": "number or a range such as 1-10",
        "--support_size=0": "must be a positive int",
        "--support_size=50": "needs at least 50 elements",
        "--symmetries=3": "must be one of",
        "--split=vinyals": "--split is of Omniglot",
        "--image_size=28x20": "pass symmetries=2, to mirror only",
    }
    command = arguments(image_folder, tmp_path / "run")
    done = output_of(trainer(*command, "--support_size=50"))
    assert done.returncode == 1
    assert mistakes["--support_size=50"] in done.stdout
    assert "Traceback" not in done.stdout
    said = endings("omniglot", *([*command, mistake] for mistake in mistakes))
    for text, words in zip(said, mistakes.values(), strict=True):
        assert words in text
    assert not list(tmp_path.rglob("run/*"))  # and leave nothing behind


@pytest.mark.parametrize(
    "flagfile", sorted((ROOT / "trainers" / "flagfiles").glob("*.flags"))
)
def test_flagfiles_name_flags_that_exist(flagfile):
    others = ("omniglot_alphabets", "omniglot_styles", "youtube_faces")
    [script] = [name for name in others if flagfile.name.startswith(name)] or [
        "omniglot"
    ]
    done = output_of(
        trainer(
            f"--flagfile={flagfile}", "--only_check_args", script=f"{script}.py"
        )
    )
    assert done.returncode == 0, done.stdout
