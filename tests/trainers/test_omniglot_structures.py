import json

import numpy as np
import pytest
from PIL import Image

import vhe_tf
from tests.tiny_run import assert_same_models
from tests.trainers.conftest import interrupted
from tests.trainers.conftest import output_of
from tests.trainers.conftest import signalled
from tests.trainers.conftest import tiny_trainer
from tests.trainers.conftest import trainer

# Few steps of few images, and as little of the evaluation as there can be.
FEW = [
    "--dataset=glyphs",
    "--support_size=1-2",
    "--symmetries=1",
    "--batch_size=4",
    "--epochs=1",
    "--steps_per_epoch=3",
    "--num_validation_groups=4",
    "--num_test_trials=1",
    "--num_test_groups=1",
    "--num_test_samples=2",
    "--seed=3",
]


def run(tmp_path_factory, name, *options):
    folder = tmp_path_factory.mktemp(name)
    done = output_of(
        tiny_trainer(
            f"--run_dir={folder}",
            *FEW,
            *options,
            script=f"omniglot_{name}.py",
        )
    )
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


@pytest.fixture(scope="module")
def alphabets(tmp_path_factory):
    return run(tmp_path_factory, "alphabets")


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    return run(
        tmp_path_factory,
        "styles",
        "--num_styles=4",
        "--copies=1",
        "--judge_epochs=1",
    )


def metrics_of(folder, name="metrics.json"):
    return json.loads((folder / name).read_text("utf-8"))


def size_of(folder, name):
    with Image.open(folder / "pictures" / f"{name}.png") as image:
        return image.width // 3, image.height // 3


def assert_is_a_run(folder, text, pictures):
    for name in ("best.keras", "last.keras", "config.json"):
        assert (folder / name).is_file(), name
    for name in (*pictures, "conditional", "reconstruction", "unconditional"):
        assert (folder / "pictures" / f"{name}.png").is_file(), name
    for part in ("", "pictures"):
        assert list((folder / "tensorboard" / part).glob("events.out.*"))
    assert not list(folder.rglob("*.partial*"))
    assert "epoch 1/1" in text
    assert "linear probe of character, from one image: " in text
    assert "Next:" in text


def test_a_run_of_alphabets_leaves_what_it_promises(alphabets):
    folder, text = alphabets
    assert_is_a_run(folder, text, ["levels"])
    # A row for each of 8 unseen alphabets; 1 cue, 8 images, 5 cues, 8 images.
    assert size_of(folder, "levels") == (22 * 30 + 3 * 8, 8 * 30)
    model = vhe_tf.load_model(folder / "best.keras")
    assert [v.name for v in model.latents] == [
        "alphabet",
        "character",
        "element",
    ]
    metrics = metrics_of(folder)
    assert list(metrics["accuracy"]) == [
        "20way_1shot",
        "20way_5shot",
        "8way_1shot_by_alphabet",
        "8way_5shot_by_alphabet",
    ]
    assert set(metrics["probes"]) == {"alphabet", "character"}
    assert np.isfinite(metrics["elbo"]["mean"])
    assert metrics["left_out"] == []
    assert "accuracy_8way_5shot_by_alphabet" in text
    assert "8-way 1-shot by alphabet accuracy on unseen images" in text


def test_a_run_of_styles_leaves_what_it_promises(styles):
    folder, text = styles
    assert_is_a_run(folder, text, ["transfer"])
    # 8 contents on the left, 4 styles on top.
    assert size_of(folder, "transfer") == (5 * 30 + 8, 9 * 30 + 8)
    with Image.open(folder / "pictures" / "transfer.png") as image:
        assert image.mode == "RGB"
    model = vhe_tf.load_model(folder / "best.keras")
    assert [v.name for v in model.latents] == ["character", "style", "pose"]
    metrics = metrics_of(folder)
    assert list(metrics["accuracy"]) == [
        "20way_1shot",
        "20way_5shot",
        "4way_1shot_by_style",
        "4way_5shot_by_style",
    ]
    assert set(metrics["probes"]) == {"character", "style"}
    assert set(metrics["transfer"]) == {
        "style",
        "content",
        "style_of_true",
        "content_of_true",
        "content_kept",
        "style_kept",
        "style_changed",
    }
    # Of 4 styles: what the judges can do on true drawings.
    assert metrics["transfer"]["style_of_true"]["mean"] > 0.5
    assert "redrawn in another style: right style" in text


@pytest.mark.parametrize(
    "name", ["alphabets", pytest.param("styles", marks=pytest.mark.slow)]
)
def test_either_structure_is_evaluated_and_exported(name, request, tmp_path):
    folder, _ = request.getfixturevalue(name)
    model = folder / "best.keras"
    out = tmp_path / "report.json"
    done = output_of(
        trainer(
            f"--model={model}",
            f"--out={out}",
            "--num_ways=3",
            "--shots=1",
            "--num_trials=1",
            "--num_groups=1",
            "--num_samples=2",
            "--joint_num_samples=2",
            script="evaluate.py",
        )
    )
    assert done.returncode == 0, done.stdout
    report = metrics_of(tmp_path, "report.json")
    by = {
        "alphabets": "8way_1shot_by_alphabet",
        "styles": "4way_1shot_by_style",
    }
    assert list(report["accuracy"]) == [
        "3way_1shot",
        "3way_1shot_within_alphabet",
        by[name],
    ]
    assert report["groups"] == metrics_of(folder)["groups"]
    done = output_of(
        trainer(
            f"--model={model}",
            f"--out={tmp_path / 'exported'}",
            "--num_samples=2",
            "--nowarmup",
            script="export.py",
        )
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "exported" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("alphabets", []), ("styles", ["--num_styles=4", "--copies=1"])],
)
def test_a_killed_run_ends_with_the_same_weights(name, options, tmp_path):
    def command(folder):
        return tiny_trainer(
            f"--run_dir={folder}",
            *FEW,
            *options,
            "--epochs=4",
            script=f"omniglot_{name}.py",
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    signalled(command(whole), whole / "last.keras")
    interrupted(command(killed), killed)
    assert_same_models(killed, whole)


def test_a_recipe_of_grey_drawings_is_none_for_styles(styles):
    folder, _ = styles
    done = output_of(
        trainer(
            f"--model={folder / 'best.keras'}",
            "--images=grey",
            script="evaluate.py",
        )
    )
    assert done.returncode != 0
    assert "leave it off for a model of coloured ones" in done.stdout
    assert "Traceback" not in done.stdout


def test_warping_drawings_in_styles_is_refused(tmp_path):
    done = output_of(
        trainer(
            f"--run_dir={tmp_path / 'run'}",
            "--dataset=glyphs",
            "--affine_copies=2",
            script="omniglot_styles.py",
        )
    )
    assert done.returncode != 0
    assert "--copies makes more elements of a drawing" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "run").exists()
