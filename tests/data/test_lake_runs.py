import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import REAL
from tests.data.conftest import SHARED
from tests.data.conftest import needs_omniglot
from vhe_tf.data.datasets import omniglot

RUNS = SHARED / "omniglot_runs" / "all_runs.zip"

needs_runs = pytest.mark.skipif(
    not RUNS.exists(),
    reason="needs Lake's runs, ../shared/data/omniglot_runs/all_runs.zip",
)


@pytest.fixture(scope="module")
def made_up_runs(tmp_path_factory):
    """Runs whose support images and queries tell run and class."""
    root = tmp_path_factory.mktemp("all_runs")
    for run in range(1, 21):
        folder = root / f"run{run:02d}"
        (folder / "training").mkdir(parents=True)
        (folder / "test").mkdir()
        lines = []
        for way in range(1, 21):
            answer = (way + run) % 20 + 1
            page = np.full((105, 105), 255, np.uint8)
            page[run, way] = 0
            name = folder / "training" / f"class{way:02d}.png"
            Image.fromarray(page).convert("1").save(name)
            page = np.full((105, 105), 255, np.uint8)
            page[run, answer] = page[104, 104] = 0
            name = folder / "test" / f"item{way:02d}.png"
            Image.fromarray(page).convert("1").save(name)
            lines.append(
                f"run{run:02d}/test/item{way:02d}.png "
                f"run{run:02d}/training/class{answer:02d}.png\n"
            )
        (folder / "class_labels.txt").write_text("".join(lines))
    return root


@pytest.fixture
def broken_runs(made_up_runs, tmp_path):
    """A copy that a test may corrupt."""
    return shutil.copytree(made_up_runs, tmp_path / "runs")


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("as_zip", [False, True])
def test_lake_runs_are_read_from_a_folder_or_a_zip(
    made_up_runs, tmp_path, as_zip
):
    path = made_up_runs
    if as_zip:
        path = zipped(made_up_runs, tmp_path / "all_runs.zip")
    runs = omniglot.lake_runs(path)
    assert len(runs) == 20
    for number, run in enumerate(runs, start=1):
        assert run.support.shape == run.queries.shape == (20, 105, 105, 1)
        assert run.support.dtype == run.queries.dtype == np.uint8
        expected = np.zeros((20, 105, 105, 1), np.uint8)
        expected[np.arange(20), number, np.arange(1, 21)] = 255
        np.testing.assert_array_equal(run.support, expected)
        answers = run.support[run.labels]
        answers[:, 104, 104] = 255
        np.testing.assert_array_equal(run.queries, answers)


def test_absent_runs_say_where_to_get_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"brendenlake/omniglot.*absent\.zip'"
    ):
        omniglot.lake_runs(tmp_path / "absent.zip")


def test_file_that_is_no_zip_is_named(tmp_path):
    (tmp_path / "all_runs.zip").write_text("<html>")
    with pytest.raises(ValueError, match=r"Received: .*all_runs\.zip'\."):
        omniglot.lake_runs(tmp_path / "all_runs.zip")


@pytest.mark.parametrize(
    "name", ["run17/class_labels.txt", "run03/training/class05.png"]
)
@pytest.mark.parametrize("as_zip", [False, True])
def test_missing_file_of_a_run_is_named(broken_runs, tmp_path, name, as_zip):
    (broken_runs / name).unlink()
    path = broken_runs
    if as_zip:
        path = zipped(broken_runs, tmp_path / "all_runs.zip")
    with pytest.raises(FileNotFoundError, match=name):
        omniglot.lake_runs(path)


def test_broken_drawing_is_named(broken_runs):
    drawing = broken_runs / "run03" / "test" / "item02.png"
    drawing.write_bytes(drawing.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"item02\.png' .*PNG.*Received: "):
        omniglot.lake_runs(broken_runs)


def test_drawing_of_another_size_is_named(broken_runs):
    drawing = broken_runs / "run03" / "test" / "item02.png"
    Image.new("1", (105, 28)).save(drawing)
    with pytest.raises(ValueError, match=r"item02\.png'.*\(28, 105\)"):
        omniglot.lake_runs(broken_runs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run02/test/item01.png\n", r"Received: 'run02/test/item01\.png'"),
        (
            "run02/test/item01.png run02/training/class07.png\n",
            "Received: 1 test images",
        ),
        (
            "run02/test/item01.png run02/training/class21.png\n" * 20,
            r"unknown classes \['run02/training/class21\.png'\]",
        ),
    ],
)
def test_invalid_class_labels_are_named(broken_runs, text, message):
    (broken_runs / "run02" / "class_labels.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        omniglot.lake_runs(broken_runs)
    assert "class_labels.txt" in str(error.value)


def test_class_labels_that_are_too_long_are_not_read(
    made_up_runs, broken_runs, tmp_path
):
    text = (made_up_runs / "run01" / "class_labels.txt").read_text()
    place = broken_runs / "run01" / "class_labels.txt"
    place.write_text(text + " " * 2**24)
    for path in (broken_runs, zipped(broken_runs, tmp_path / "runs.zip")):
        with pytest.raises(ValueError, match=r"class_labels\.txt'.* 65,536 "):
            omniglot.lake_runs(path)


def test_pages_of_another_size_are_not_decoded(broken_runs, monkeypatch):
    page = Image.new("1", (9000, 9000))
    page.save(broken_runs / "run01" / "training" / "class01.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match=r"Received: shape \(9000, 9000\)"):
        omniglot.lake_runs(broken_runs)


@needs_omniglot
@needs_runs
def test_right_answers_of_lakes_runs_are_of_the_queries_characters():
    evaluation = omniglot.load_omniglot(recipe="original", data_dir=REAL).test
    character = {
        image.tobytes(): int(label)
        for image, label in zip(
            evaluation.images, evaluation.labels["character"], strict=True
        )
    }
    runs = omniglot.lake_runs(RUNS)
    assert len(runs) == 20
    for run in runs:
        support = [character[image.tobytes()] for image in run.support]
        queries = [character[image.tobytes()] for image in run.queries]
        assert len(set(support)) == 20
        assert [support[label] for label in run.labels] == queries
