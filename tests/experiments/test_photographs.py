import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

import vhe_tf
from tests.experiments.conftest import SHORT
from tests.experiments.conftest import commanded
from tests.experiments.conftest import failure_of
from tests.experiments.conftest import json_of
from tests.experiments.conftest import keys_of
from tests.experiments.conftest import unmeasured
from vhe_tf.data import GroupedImages
from vhe_tf.data import write_records
from vhe_tf.evaluation import Report
from vhe_tf.experiments.data import load_data
from vhe_tf.experiments.run import record_of

pytestmark = pytest.mark.integration

HEIGHT, WIDTH = 12, 10
LITTLE = (
    "--support_size=2",
    "--batch_size=2",
    "--epochs=1",
    "--steps_per_epoch=2",
    *SHORT,
)


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


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photo_run")
    text = commanded(
        "train",
        "own_photographs",
        f"--data_dir={photos}",
        f"--image_size={HEIGHT}x{WIDTH}",
        f"--run_dir={folder}",
        *LITTLE,
    )
    return folder, text


def pixels_of(path):
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def assert_is_no_negative(photo):
    red, green, _ = photo.mean(axis=(0, 1))
    assert red > 150 > green


def test_a_run_on_photographs_leaves_what_it_promises(run):
    folder, text = run
    model = vhe_tf.load_model(folder / "best.keras")
    assert model.image_shape == (HEIGHT, WIDTH, 3)
    assert [v.name for v in model.latents] == ["person", "element"]
    report = Report.from_json(json_of(folder / "metrics.json"))
    # Two people are for testing.
    assert report.left_out[0].startswith("20-way tasks:")
    joint = report["joint_nll"]
    bits = joint.bits_per_dimension.mean
    assert bits * HEIGHT * WIDTH * 3 * np.log(2) == pytest.approx(joint.mean)
    # No pixel of 256 levels has less than a uniform distribution for long.
    assert 2.0 < bits < 20.0
    assert " bits per dimension" in text


@pytest.mark.parametrize(
    ("picture", "left"),
    [("samples", 0), ("conditional", 6 * (WIDTH + 2) + 2 * 8)],
)
def test_pictures_show_five_photographs_and_five_samples_in_their_colours(
    picture, left, photos, run
):
    person_of = {
        pixels_of(path).tobytes(): path.parent.name
        for path in photos.glob("*/*.png")
    }
    # Each pixel is three on a side.
    grid = pixels_of(run[0] / "pictures" / f"{picture}.png")[::3, ::3]
    width = 10 * (WIDTH + 2) + 8
    grid = grid[-2 * (HEIGHT + 2) :]  # below the headings
    assert grid.shape == (2 * (HEIGHT + 2), left + width, 3)
    for top in (0, HEIGHT + 2):
        lefts = [left + k * (WIDTH + 2) for k in range(5)]
        shown = {
            grid[top : top + HEIGHT, x : x + WIDTH].tobytes() for x in lefts
        }
        assert len(shown) == 5
        assert len({person_of[photo] for photo in shown}) == 1


def test_tensorboard_shows_them_in_their_colours(run):
    events = event_accumulator.EventAccumulator(
        str(run[0] / "tensorboard" / "pictures"),
        size_guidance={event_accumulator.TENSORS: 1},
    ).Reload()
    [event] = events.Tensors("conditional")
    png = tf.make_ndarray(event.tensor_proto)[2]
    # Of the lowest one: above are headings.
    rows = slice(-HEIGHT, -HEIGHT // 2)
    assert_is_no_negative(pixels_of(io.BytesIO(png))[rows, : WIDTH // 2])


def test_videos_of_a_subset_of_the_archive_as_classes(tmp_path):
    """The central half of each frame is used, so frames have twice the size."""
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
    text = commanded(
        "train",
        "youtube_faces",
        f"--data_dir={tmp_path / 'tfds'}",
        f"--manual_dir={tmp_path}",
        f"--run_dir={run_dir}",
        f"--image_size={HEIGHT}x{WIDTH}",
        "--group=video",
        "--num_levels=8",
        *LITTLE,
    )
    model = vhe_tf.load_model(run_dir / "best.keras")
    assert [v.name for v in model.latents] == ["video", "element"]
    assert model.likelihood.head.num_levels == 8
    metrics = json_of(run_dir / "metrics.json")
    assert len(metrics["groups"]) == 8
    assert keys_of(run_dir / "metrics.json")[:2] == [
        "accuracy.8way_1shot",
        "accuracy.8way_2shot",
    ]
    subset, levels = metrics["caveat"].split("; ")
    assert "Table 5" in subset
    assert "8 levels" in levels
    assert metrics["caveat"] in text
    record = record_of(run_dir / "best.keras")
    again = load_data(record.experiment, data_dir=record.data_dir)
    people = [set(data.labels["person"]) for data in (again.train, again.test)]
    assert [len(part) for part in people] == [6, 4]
    assert not people[0] & people[1]
    np.testing.assert_array_equal(
        again.test.group_ids("video"), metrics["groups"]
    )


def recorded(folder, shape, group):
    """Writes fifteen groups of eight images, a file each."""
    generator = np.random.default_rng(0)
    ids = np.arange(120) // 8
    prototypes = 255 * (generator.random((15, *shape)) < 0.2)
    noise = generator.integers(0, 100, (120, *shape))
    images = np.abs(prototypes[ids] - noise).astype(np.uint8)
    write_records(
        folder,
        GroupedImages(images, {group: ids}),
        max_shard_bytes=8 * (np.prod(shape) + 100),
    )


def test_drawings_are_trained_on_from_records(tmp_path):
    folder, run_dir = tmp_path / "records", tmp_path / "run"
    recorded(folder, (28, 28, 1), "character")
    arguments = (
        "train",
        "own_images",
        "--dataset=records",
        f"--data_dir={folder}",
        f"--run_dir={run_dir}",
        "--init=none",
        *LITTLE,
    )
    assert "Next:" in commanded(*arguments, sizes=unmeasured)
    os.truncate(sorted(folder.glob("*.tfrecord"))[3], 0)
    said = failure_of(*arguments)
    assert "images-00003.tfrecord' must" in said


def test_photographs_are_trained_on_from_records(tmp_path):
    folder, run_dir = tmp_path / "records", tmp_path / "run"
    recorded(folder, (12, 10, 3), "person")
    arguments = (
        "train",
        "own_photographs",
        "--dataset=records",
        f"--data_dir={folder}",
        f"--run_dir={run_dir}",
        *LITTLE,
    )
    commanded(*arguments, sizes=unmeasured)
    model = vhe_tf.load_model(run_dir / "best.keras")
    assert model.image_shape == (12, 10, 3)
    assert "--image_size has no effect" in failure_of(
        *arguments, "--image_size=40x40"
    )
