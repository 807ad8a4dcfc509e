import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

import vhe_tf
from tests.tiny_run import assert_same_models
from tests.trainers.conftest import endings
from tests.trainers.conftest import interrupted
from tests.trainers.conftest import output_of
from tests.trainers.conftest import tiny_trainer
from tests.trainers.conftest import trainer
from vhe_tf import training
from vhe_tf.data import sources

HEIGHT, WIDTH = 12, 10


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten people in seven pictures each, of a colour of their own."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for person in range(10):
        (root / f"person{person}").mkdir()
        # Bright and reddish: seen as they are, and not as negatives.
        colour = generator.integers([180, 60, 60], [240, 120, 120])
        for picture in range(7):
            noise = generator.integers(-15, 16, (HEIGHT, WIDTH, 3))
            pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(
                root / f"person{person}" / f"{picture}.png"
            )
    return root


def arguments(photos, run_dir):
    return [
        "--dataset=folder",
        f"--data_dir={photos}",
        f"--image_size={HEIGHT}x{WIDTH}",
        f"--run_dir={run_dir}",
        "--support_size=2",
        "--batch_size=2",
        "--epochs=4",
        "--steps_per_epoch=2",
        "--num_test_trials=1",
        "--num_test_groups=1",
        "--num_test_samples=2",
        "--seed=3",
    ]


@pytest.fixture(scope="module")
def deconvolutional(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deconvolutional")
    done = output_of(
        tiny_trainer(*arguments(photos, folder), script="youtube_faces.py")
    )
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


@pytest.fixture(scope="module")
def pixel_cnn(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixel_cnn")
    done = output_of(
        tiny_trainer(
            *arguments(photos, folder),
            "--architecture=pixel_cnn",
            "--objective=neural_statistician",
            "--epochs=1",
            script="youtube_faces.py",
        )
    )
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(
    deconvolutional, photos, tmp_path
):
    command = tiny_trainer(
        *arguments(photos, tmp_path), script="youtube_faces.py"
    )
    interrupted(command, tmp_path)
    assert_same_models(tmp_path, deconvolutional[0])


def metrics_of(path):
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("architecture", "latent", "objective"),
    [
        ("deconvolutional", "element", "vhe"),
        pytest.param(
            *("pixel_cnn", "pose", "neural_statistician"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_leaves_what_it_promises(
    architecture, latent, objective, request
):
    folder, text = request.getfixturevalue(architecture)
    model = vhe_tf.load_model(folder / "best.keras")
    assert model.image_shape == (HEIGHT, WIDTH, 3)
    assert [v.name for v in model.latents] == ["person", latent]
    assert model.objective == objective
    metrics = metrics_of(folder / "metrics.json")
    # Two people are for testing.
    assert list(metrics["accuracy"]) == ["2way_1shot", "2way_5shot"]
    assert [line.split(":")[0] for line in metrics["left_out"][:2]] == [
        "20-way tasks",
        "200-way tasks",
    ]
    for value in (
        metrics["elbo"],
        metrics["joint_nll"],
        metrics["conditional_nll"]["5shot"],
    ):
        bits = value["bits_per_dimension"]["mean"]
        assert np.isfinite(bits)
        assert bits * HEIGHT * WIDTH * 3 * np.log(2) == pytest.approx(
            value["mean"]
        )
    # No pixel of 256 levels has less than a uniform distribution for long.
    assert 2.0 < metrics["joint_nll"]["bits_per_dimension"]["mean"] < 20.0
    assert "nats an image = " in text
    assert " bits a dimension" in text
    for part in ("", "pictures"):
        assert list((folder / "tensorboard" / part).glob("events.out.*"))


@pytest.mark.parametrize(
    ("architecture", "picture", "left"),
    [
        ("deconvolutional", "samples", 0),
        ("deconvolutional", "conditional", 6 * (WIDTH + 2) + 2 * 8),
        pytest.param(
            *("pixel_cnn", "conditional", 6 * (WIDTH + 2) + 2 * 8),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_pictures_show_five_cues_and_five_samples_in_their_colours(
    architecture, picture, left, photos, request
):
    folder, _ = request.getfixturevalue(architecture)
    person_of = {
        pixels_of(path).tobytes(): path.parent.name
        for path in photos.glob("*/*.png")
    }
    # Each pixel is three on a side.
    grid = pixels_of(folder / "pictures" / f"{picture}.png")[::3, ::3]
    width = 10 * (WIDTH + 2) + 8
    assert grid.shape == (2 * (HEIGHT + 2), left + width, 3)
    for top in (0, HEIGHT + 2):
        lefts = [left + k * (WIDTH + 2) for k in range(5)]
        cues = {
            grid[top : top + HEIGHT, x : x + WIDTH].tobytes() for x in lefts
        }
        assert len(cues) == 5
        assert len({person_of[cue] for cue in cues}) == 1


def test_tensorboard_shows_them_in_their_colours(deconvolutional):
    events = event_accumulator.EventAccumulator(
        str(deconvolutional[0] / "tensorboard" / "pictures"),
        size_guidance={event_accumulator.TENSORS: 1},
    ).Reload()
    [event] = events.Tensors("conditional")
    png = tf.make_ndarray(event.tensor_proto)[2]
    assert_is_no_negative(pixels_of(io.BytesIO(png))[:HEIGHT, :WIDTH])


def pixels_of(path):
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def assert_is_no_negative(photo):
    red, green, _ = photo.mean(axis=(0, 1))
    assert red > 150 > green


def test_a_run_is_evaluated_and_compared_on_its_own_data(
    deconvolutional, photos, tmp_path
):
    model = deconvolutional[0] / "best.keras"
    done = output_of(
        trainer(
            f"--model={model}",
            f"--data_dir={photos}",
            f"--out={tmp_path / 'report.json'}",
            "--num_trials=1",
            "--num_groups=1",
            "--num_samples=2",
            "--joint_num_samples=2",
            script="evaluate.py",
        )
    )
    assert done.returncode == 0, done.stdout
    report = metrics_of(tmp_path / "report.json")
    expected = metrics_of(deconvolutional[0] / "metrics.json")
    assert report["groups"] == expected["groups"]
    assert "bits_per_dimension" in report["joint_nll"]
    done = output_of(
        trainer(
            f"--models={model}",
            f"--data_dir={photos}",
            f"--out={tmp_path / 'comparison.png'}",
            "--num_samples=1",
            script="compare.py",
        )
    )
    assert done.returncode == 0, done.stdout
    grid = pixels_of(tmp_path / "comparison.png")
    assert_is_no_negative(grid[: 3 * HEIGHT, : 3 * WIDTH])


def test_videos_of_a_subset_of_the_archive_as_classes(tmp_path):
    """Of each frame its central half is used, so they are of twice the size."""
    size = (2 * WIDTH, 2 * HEIGHT)
    for person in range(10):
        for video in range(2):
            folder = tmp_path / f"aligned_images_DB/person{person}/{video}"
            folder.mkdir(parents=True)
            for number in range(3):
                colour = (200 - 90 * video, 20 * person, 10 * number)
                Image.new("RGB", size, colour).save(
                    folder / f"aligned_detect_{video}.{number}.jpg"
                )
    run_dir = tmp_path / "run"
    data = [
        "--dataset=youtube_faces",
        f"--data_dir={tmp_path / 'tfds'}",
        f"--run_dir={run_dir}",
    ]
    done = output_of(
        tiny_trainer(
            *arguments(tmp_path, run_dir),
            *data,
            f"--manual_dir={tmp_path}",
            "--group=video",
            "--num_levels=8",
            "--epochs=1",
            script="youtube_faces.py",
        )
    )
    assert done.returncode == 0, done.stdout
    model = vhe_tf.load_model(run_dir / "best.keras")
    assert [v.name for v in model.latents] == ["video", "element"]
    metrics = metrics_of(run_dir / "metrics.json")
    assert len(metrics["groups"]) == 8
    assert list(metrics["accuracy"]) == ["8way_1shot", "8way_2shot"]
    caveat = "a subset of YouTube Faces, not comparable with Table 5"
    caveat += "; pixels of 8 levels, not 256"
    assert metrics["caveat"] == caveat
    assert caveat in done.stdout
    assert model.likelihood.head.num_levels == 8
    again = sources.load_again(
        training.data_settings(run_dir / "best.keras"),
        data_dir=str(tmp_path / "tfds"),
    )
    assert again.group == "video"
    assert again.num_levels == 8
    people = [set(data.labels["person"]) for data in (again.train, again.test)]
    assert [len(part) for part in people] == [6, 4]
    assert not people[0] & people[1]
    np.testing.assert_array_equal(
        again.test.group_ids("video"), metrics["groups"]
    )


def test_mistakes_are_explained(photos, tmp_path):
    mistakes = {
        "--image_size=40": "must be HEIGHTxWIDTH in pixels",
        "--group=video": "must be one of ['person'] for dataset='folder'",
        "--symmetries=4": "pass symmetries=2, to mirror only",
    }
    command = arguments(photos, tmp_path / "run")
    said = endings(
        "youtube_faces", *([*command, mistake] for mistake in mistakes)
    )
    for text, words in zip(said, mistakes.values(), strict=True):
        assert words in text
    assert not list((tmp_path / "run").iterdir())  # and leave nothing behind
