import dataclasses
import runpy
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import vhe_tf
from tests.conftest import tiny_alphabet_pixel_cnn_vhe
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_sizes
from tests.experiments.conftest import FOLDER
from tests.experiments.conftest import SHORT
from tests.experiments.conftest import commanded
from tests.experiments.conftest import json_of
from tests.experiments.conftest import keys_of
from tests.experiments.conftest import train_folder
from tests.experiments.conftest import unmeasured
from tests.processes import ROOT
from tests.tiny_run import assert_same_models
from tests.tiny_run import tiny_model
from vhe_tf._utils import atomic_io
from vhe_tf.data import GroupedImages
from vhe_tf.data.datasets.splits import drawings
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run
from vhe_tf.experiments import building
from vhe_tf.experiments import get
from vhe_tf.experiments import train
from vhe_tf.experiments.run import Record
from vhe_tf.models import loading
from vhe_tf.models import presets

GLYPHS = (
    "--dataset=glyphs",
    "--support_size=1-2",
    "--symmetries=1",
    "--batch_size=4",
    "--epochs=1",
    "--steps_per_epoch=2",
    "--num_validation_groups=4",
    *SHORT,
)


# Command lines ---------------------------------------------------------------


def _read(*words, default=None):
    return train.read(["train", *words], usage="Trains.", default=default)


def test_a_name_chooses_settings_evaluation_and_folder():
    arguments = _read("quickstart")
    assert arguments.experiment == get("quickstart")
    assert arguments.evaluation.num_test_tasks == 10
    assert arguments.run_dir == "runs/quickstart"
    assert _read("--experiment=quickstart") == arguments


def test_flags_override_what_the_name_chooses():
    arguments = _read(
        "quickstart", "--epochs=2", "--num_test_tasks=3", "--run_dir=x"
    )
    assert arguments.experiment.epochs == 2
    assert arguments.experiment.affine_copies == 4
    assert arguments.evaluation.num_test_tasks == 3
    assert arguments.evaluation.num_test_groups == 5
    assert arguments.run_dir == "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name one experiment"),
        (["quickstart", "omniglot"], "Name one experiment"),
        (["quikstart"], "Did you mean quickstart"),
        (["quickstart", "--symmetries=3"], "Received: --symmetries=3"),
        (["quickstart", "--split=lake"], "--split has no effect"),
        (["quickstart", "--support_size=five"], "a range such as 1-10"),
        (["quickstart", "--epoch=3"], "Unknown command line flag 'epoch'"),
    ],
)
def test_mistakes_of_a_command_line_are_explained(words, message):
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        _read(*words)


def test_a_trainer_needs_a_folder_unless_it_names_an_experiment():
    with pytest.raises(SystemExit, match="--run_dir is required"):
        _read("--epochs=2", default="omniglot")
    arguments = _read("--experiment=quickstart", default="omniglot")
    assert arguments.run_dir == "runs/quickstart"


def test_help_begins_with_the_folder_of_the_run(capsys):
    with pytest.raises(SystemExit) as stop:
        _read("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.index("--run_dir") < text.index("--data_dir")
    assert text.index("--data_dir") < text.index("--experiment")


# Building --------------------------------------------------------------------


def test_ema_weights_forget_the_initial_weights():
    experiment = Experiment(ema=0.999, warmup_steps=0, epochs=1)
    model = tiny_model()
    building.compile_model(model, experiment)
    optimizer, variables = model.optimizer, model.trainable_variables
    optimizer.build(variables)
    weights, averages = [], []
    for _ in range(4):
        optimizer.apply([tf.ones_like(v) for v in variables])
        weights.append(variables[0].numpy().ravel())
        with optimizers_ema(model):
            averages.append(variables[0].numpy().ravel())
    expected = weights[0]
    for t in range(1, 4):
        momentum = (1 + t) / (10 + t)
        expected = momentum * expected + (1 - momentum) * weights[t]
    np.testing.assert_allclose(averages[-1], expected, rtol=1e-6)
    assert not np.allclose(weights[0], weights[-1], rtol=1e-4)


def optimizers_ema(model):
    return vhe_tf.optimizers.ema_weights(model)


def test_the_learning_rate_rises_and_falls():
    experiment = Experiment(
        epochs=2, steps_per_epoch=10, warmup_steps=4, learning_rate=0.5
    )
    schedule = building.make_optimizer(experiment)._learning_rate
    rates = [float(schedule(step)) for step in (0, 2, 4, 12, 20)]
    # A line, then half a period of a cosine over the other 16 steps.
    np.testing.assert_allclose(rates, [0, 0.25, 0.5, 0.25, 0], atol=1e-7)


def test_weights_that_may_have_seen_the_validation_set_are_told_of(
    tmp_path, capsys
):
    experiment = Experiment(dataset="glyphs")
    others = [
        (experiment, False),
        (Experiment(dataset="glyphs", seed=1), True),
        (Experiment(dataset="folder", seed=1), False),
        (None, False),
    ]
    for number, (trained, is_told) in enumerate(others):
        folder = tmp_path / str(number)
        folder.mkdir()
        if trained:
            Run(folder, trained).begin()
        loading.save_model(tiny_model(), folder / "best.keras")
        path = str(folder / "best.keras")
        building._initialize(
            tiny_model(), dataclasses.replace(experiment, init=path)
        )
        said = capsys.readouterr().out
        assert ("another --seed or --split" in said) == is_told
        assert ("cannot determine" in said) == (trained is None)


def test_weights_of_another_architecture_are_rejected(tmp_path):
    path = tmp_path / "best.keras"
    loading.save_model(tiny_model(), path)
    with tiny_sizes():
        other = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    with pytest.raises(ValueError, match=r"`init` must .*Received: init="):
        building._initialize(other, Experiment(init=str(path)))


def test_a_model_of_alphabets_begins_with_a_model_of_characters(
    tmp_path, capsys
):
    source = tiny_pixel_cnn_vhe(image_shape=(8, 8, 1), seed=1)
    path = tmp_path / "best.keras"
    loading.save_model(source, path)
    model = tiny_alphabet_pixel_cnn_vhe(image_shape=(8, 8, 1))
    building._initialize(model, Experiment(init=str(path)))
    images = np.zeros([2, 1, 8, 8, 1], np.float32)
    images[:, :, 2:5, 3] = 1.0
    character, above = source.latents[0], model.latents[1]
    above.posterior.shift.kernel.assign(
        tf.zeros_like(above.posterior.shift.kernel)
    )
    above.posterior.shift.bias.assign(tf.zeros_like(above.posterior.shift.bias))
    np.testing.assert_allclose(
        above.posterior(images, tf.ones([2, 3])).mean(),
        character.posterior(images).mean(),
        rtol=1e-5,
        atol=1e-6,
    )
    for a, b in zip(
        source.likelihood.variables, model.likelihood.variables, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    said = capsys.readouterr().out
    count = len(model.variables) - len(source.variables)
    count += len(character.prior.variables)
    assert f"{count} of {len(model.variables)} random" in said


@pytest.mark.parametrize(
    ("settings", "image_shape", "name"),
    [
        ({}, (28, 28, 1), "omniglot_deconvolutional_small"),
        ({"size": "published"}, (28, 28, 1), None),
        (
            {"architecture": "pixel_cnn"},
            (28, 28, 1),
            "omniglot_pixel_cnn_small",
        ),
        ({"architecture": "pixel_cnn"}, (40, 40, 1), None),
        (
            {"architecture": "pixel_cnn", "images": "grey", "size": "large"},
            (28, 28, 1),
            "omniglot_pixel_cnn_large_random1200",
        ),
        # No model that has been trained on the test characters.
        (
            {"architecture": "pixel_cnn", "dataset": "omniglot"},
            (28, 28, 1),
            "omniglot_pixel_cnn_small",
        ),
        (
            {
                "architecture": "pixel_cnn",
                "dataset": "omniglot",
                "split": "random1200",
            },
            (28, 28, 1),
            None,
        ),
        (
            {"architecture": "pixel_cnn", "images": "colour", "high_bits": 3},
            (40, 40, 3),
            "youtube_faces_pixel_cnn_small",
        ),
        (
            {"architecture": "pixel_cnn", "images": "colour"},
            (40, 40, 3),
            None,
        ),
    ],
)
def test_training_starts_from_the_nearest_preset(settings, image_shape, name):
    experiment = Experiment(**{"dataset": "folder", **settings})
    assert building.nearest_preset(experiment, image_shape) == name


def test_weights_that_an_installation_lacks_are_named(monkeypatch, capsys):
    """As those of larger models in a wheel."""
    lacking = {
        name: dataclasses.replace(preset, installed=False)
        for name, preset in vhe_tf.presets().items()
    }
    monkeypatch.setattr(presets, "presets", lambda: lacking)
    experiment = Experiment(dataset="folder", init="nearest", symmetries=1)
    assert building.nearest_preset(experiment, (28, 28, 1)) is None
    images = GroupedImages(
        np.stack([np.eye(28, dtype=np.float32)[..., None]] * 2),
        {"character": np.arange(2)},
    )
    splits = drawings(images, images, images="binary", image_size=(28, 28))
    with tiny_sizes():
        building.build_model(experiment, splits)
    name = "omniglot_deconvolutional_small"
    assert f"saved_models/{name}/best.keras" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("init", "said"),
    [("nearest", "omniglot_pixel_cnn_small"), ("none", None)],
)
def test_a_model_has_the_weights_that_are_named(init, said, capsys):
    experiment = Experiment(
        dataset="glyphs", architecture="pixel_cnn", init=init
    )
    images = GroupedImages(
        np.stack([np.eye(28, dtype=np.float32)[..., None]] * 2),
        {"character": np.arange(2)},
    )
    splits = drawings(images, images, images="binary", image_size=(28, 28))
    weights, preset = (
        model.trainable_variables  # without a fitted prior
        for model in (
            building.build_model(experiment, splits),
            vhe_tf.load_model("omniglot_pixel_cnn_small"),
        )
    )
    same = all(
        np.array_equal(*pair) for pair in zip(weights, preset, strict=True)
    )
    assert same == (said is not None)
    line = f"Initial weights: {said}." if said else ""
    assert capsys.readouterr().out.startswith(line)


# Training --------------------------------------------------------------------


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
    assert "accuracy.3way_1shot" in keys_of(folder / "metrics.json")
    assert "epoch 2/2" in text
    assert "3-way 1-shot accuracy" in text
    assert "Next:" in text
    assert not list(folder.rglob("*.partial*"))


def test_more_epochs_resume_a_run(image_folder, whole_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole_run[0], folder)
    text = train_folder(image_folder, folder, "--epochs=3", sizes=unmeasured)
    assert "Resuming from step 4" in text
    assert "epoch 3/3" in text
    assert "epoch 2/3" not in text
    settings = json_of(folder / "config.json")
    assert settings["experiment"]["epochs"] == 3


def test_the_trainer_to_copy_trains_the_same_weights(
    image_folder, whole_run, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    arguments = [
        "--experiment=own_images",
        f"--data_dir={image_folder}",
        f"--run_dir={folder}",
        *FOLDER,
    ]
    monkeypatch.setattr(sys, "argv", ["omniglot.py", *arguments])
    trainer = ROOT / "trainers" / "omniglot.py"

    def run_trainer(_):
        with tiny_sizes():
            runpy.run_path(str(trainer), run_name="__main__")

    monkeypatch.setattr("vhe_tf.experiments.cli.main", run_trainer)
    commanded()
    assert_same_models(folder, whole_run[0])


def test_a_run_is_locked_to_its_end_and_keeps_its_data_folder(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr("vhe_tf.experiments.header.header", lambda *_, **__: "")
    folders = {}
    for dataset in ("omniglot", "glyphs"):
        arguments = _read(
            "quickstart", f"--dataset={dataset}", f"--run_dir={tmp_path}"
        )
        run = Run(arguments.run_dir, arguments.experiment)
        lock = run.checkpoints / ".lock"
        model = tiny_model()
        with train.begun(
            arguments, run, model=model, splits=None, episodes=None
        ):
            with (
                pytest.raises(BlockingIOError),
                atomic_io.locked(lock),  # as another process does
            ):
                pass
            with run.locked():  # as `ExactResume` does
                pass
            with pytest.raises(BlockingIOError), atomic_io.locked(lock):
                pass
        with atomic_io.locked(lock):
            pass
        folders[dataset] = Record.read(run.config).data_dir
        run.config.unlink()
    assert folders == {"omniglot": str(tmp_path / "tfds"), "glyphs": None}


@pytest.mark.integration
@pytest.mark.parametrize("architecture", ["deconvolutional", "pixel_cnn"])
def test_the_trainer_to_copy_has_the_callbacks_of_the_command(
    architecture, image_folder, tmp_path, monkeypatch
):
    arguments = [
        "--experiment=own_images",
        f"--run_dir={tmp_path}",
        f"--data_dir={image_folder}",
        f"--architecture={architecture}",
        *FOLDER,
    ]
    found = []

    def fit(self, *_, callbacks, **__):
        found.append([_described(callback) for callback in callbacks])
        raise SystemExit

    monkeypatch.setattr(vhe_tf.VHE, "fit", fit)
    with pytest.raises(SystemExit):
        commanded("train", *arguments)
    monkeypatch.setattr(sys, "argv", ["omniglot.py", *arguments])
    with pytest.raises(SystemExit), tiny_sizes():
        runpy.run_path(
            str(ROOT / "trainers" / "omniglot.py"), run_name="__main__"
        )
    assert found[0] == found[1]


def _described(callback):
    plain = (bool, int, float, str, tuple, dict)
    own = {k: v for k, v in vars(callback).items() if isinstance(v, plain)}
    return type(callback).__name__, own


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "image_size"),
    [
        (
            "--objective=resample --kl_warmup_steps=3 --ema=0 --pixels=grey "
            "--symmetries=2 --support_size=2 --image_size=20x16 "
            "--accumulation=2 --precision=mixed_bfloat16",
            (20, 16),
        ),
        pytest.param(
            "--objective=neural_statistician --jit_compile",
            (28, 28),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_option_trains(options, image_size, image_folder, tmp_path):
    train_folder(image_folder, tmp_path, *options.split(), "--epochs=1")
    model = vhe_tf.load_model(tmp_path / "best.keras")
    assert model.image_shape == (*image_size, 1)
    assert "joint_nll" in keys_of(tmp_path / "metrics.json")


@pytest.mark.integration
def test_a_pixel_cnn_trains_and_is_evaluated(image_folder, tmp_path):
    train_folder(
        image_folder,
        tmp_path,
        "--architecture=pixel_cnn",
        "--objective=rescale",
        "--symmetries=1",
        "--affine_copies=1",
        "--batch_size=2",
        "--epochs=1",
    )
    model = vhe_tf.load_model(tmp_path / "best.keras")
    assert [latent.name for latent in model.latents] == ["character", "pose"]
    assert model.objective == "rescale"
    for name in ("conditional", "reconstruction", "unconditional"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as image:
            # Ink, paper and gaps: samples, no shades.
            last_row = np.asarray(image)[-3 * 30 :]  # below the headings
            assert len(np.unique(last_row)) == 3


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "options", "latents", "keys", "picture"),
    [
        (
            "omniglot_alphabets",
            ["--oracle_epochs=1"],
            ["alphabet", "character", "element"],
            {
                "accuracy.8way_5shot_by_alphabet",
                "probe.alphabet.alphabet",
                "new_groups.8way_5shot.samples",
            },
            # A row for each of 8 unseen alphabets; 1 image, 5 samples, 5
            # images, 5 samples.
            ("levels", (16 * 30 + 3 * 8, 8 * 30)),
        ),
        pytest.param(
            "omniglot_styles",
            ["--num_styles=4", "--copies=1", "--oracle_epochs=1"],
            ["character", "style", "pose"],
            {"accuracy.4way_1shot_by_style", "transfer.style"},
            # 8 contents on the left, 4 styles on top.
            ("transfer", (5 * 30 + 8, 9 * 30 + 8)),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_structures_train(name, options, latents, keys, picture, tmp_path):
    text = commanded("train", name, f"--run_dir={tmp_path}", *GLYPHS, *options)
    model = vhe_tf.load_model(tmp_path / "best.keras")
    assert [latent.name for latent in model.latents] == latents
    assert keys <= set(keys_of(tmp_path / "metrics.json"))
    assert "linear probe of character, from one image: " in text
    file, size = picture
    with Image.open(tmp_path / "pictures" / f"{file}.png") as image:
        assert image.width // 3 == size[0]
        assert image.height // 3 > size[1]  # below headings


def test_the_precision_of_a_run_does_not_outlive_it():
    assert keras.config.dtype_policy().name == "float32"
