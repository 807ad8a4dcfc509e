"""Mistakes that `vhe-tf train` rejects once it has read the data."""

import shutil

import pytest
from PIL import Image

from tests.experiments.conftest import FOLDER
from tests.experiments.conftest import failure_of
from vhe_tf.experiments.run import Record


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--support_size=50", "needs at least 50 elements"),
        ("--image_size=28x20", "Received: --image_size=28x20 "),
        ("--init=nowhere.keras", "--init must be a .keras"),
        ("--manual_dir=.", "--manual_dir has no effect"),
        ("--data_dir=/nowhere", "Received: --data_dir=/nowhere"),
    ],
)
def test_mistakes_are_explained_and_leave_nothing(
    option, message, image_folder, tmp_path
):
    run_dir = tmp_path / "run"
    said = failure_of(
        "train",
        "own_images",
        f"--data_dir={image_folder}",
        f"--run_dir={run_dir}",
        *FOLDER,
        option,
    )
    assert message in said
    assert not run_dir.exists()


def test_another_run_is_rejected(image_folder, begun_run):
    said = failure_of(
        "train",
        "own_images",
        f"--data_dir={image_folder}",
        f"--run_dir={begun_run}",
        *FOLDER,
        "--seed=7",
    )
    assert "--seed: 3 there, 7 here" in said


def test_one_more_class_ends_a_run_whose_test_classes_it_would_change(
    image_folder, begun_run, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(image_folder, data)
    shutil.copytree(data / "class03", data / "class99")
    for path in (data / "class99").iterdir():  # another class, not a copy
        with Image.open(path) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(path)
    run_dir = tmp_path / "run"
    shutil.copytree(begun_run, run_dir)
    began = Record.read(run_dir / "config.json")
    here = {**began.provenance, "data_dir": str(data)}
    Record(began.experiment, here).write(run_dir / "config.json")
    said = failure_of(
        "train",
        "own_images",
        f"--data_dir={data}",
        f"--run_dir={run_dir}",
        *FOLDER,
    )
    assert "Restore the data" in said


def test_weights_that_have_seen_the_test_classes_are_rejected(
    image_folder, begun_run, tmp_path
):
    said = failure_of(
        "train",
        "own_images",
        f"--data_dir={image_folder}",
        f"--run_dir={tmp_path / 'run'}",
        *FOLDER,
        f"--init={begun_run / 'best.keras'}",
        "--seed=7",
    )
    assert "Received: a run with {'dataset': " in said
