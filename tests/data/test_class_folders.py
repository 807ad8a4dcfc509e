"""Layouts of folders: nested ones, and those that are a split."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import assert_same_images
from vhe_tf.data import Folder
from vhe_tf.data import RecordedImages
from vhe_tf.data import Records
from vhe_tf.data import read_image_folder
from vhe_tf.data.datasets.records import folder_to_records


def draw(root, *folders, num_images=2):
    """Writes different drawings into each folder."""
    for folder in folders:
        generator = np.random.default_rng(list(str(folder).encode()))
        (root / folder).mkdir(parents=True)
        for number in range(num_images):
            pixels = np.zeros((9, 9), np.uint8)
            pixels[1:-1, 1:-1][generator.random((7, 7)) < 0.3] = 255
            Image.fromarray(pixels).save(root / folder / f"{number}.png")


def messages(caplog):
    return " ".join(record.getMessage() for record in caplog.records)


# Nested folders ---------------------------------------------------------------


def test_folders_of_class_folders_are_alphabets(tmp_path, caplog):
    draw(tmp_path, "Latin/a", "Greek/a", "Greek/b")
    data = read_image_folder(tmp_path)
    assert list(data.labels) == ["alphabet", "character"]
    np.testing.assert_array_equal(data.labels["alphabet"], [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(data.labels["character"], [0, 0, 1, 1, 2, 2])
    assert data.group_names == {
        "alphabet": {0: "Greek", 1: "Latin"},
        "character": {0: "Greek/a", 1: "Greek/b", 2: "Latin/a"},
    }
    assert not caplog.records


def test_other_levels_are_numbered_from_the_outside(tmp_path):
    draw(tmp_path, "x/y/a", "x/z/a", "w/y/a")
    data = read_image_folder(tmp_path, label_name="video")
    assert list(data.labels) == ["level_1", "level_2", "video"]
    np.testing.assert_array_equal(data.labels["level_1"], [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(data.labels["level_2"], [0, 0, 1, 1, 2, 2])
    assert data.group_names["video"] == {0: "w/y/a", 1: "x/y/a", 2: "x/z/a"}


def test_classes_must_be_equally_deep(tmp_path):
    draw(tmp_path, "a", "Greek/b")
    with pytest.raises(ValueError, match="Received: images in 'a' and in 'Gre"):
        read_image_folder(tmp_path)


def test_a_folder_in_itself_ends_in_an_error(tmp_path):
    draw(tmp_path, "Greek/a")
    (tmp_path / "Greek" / "again").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be in itself.*again'"):
        read_image_folder(tmp_path)


def test_nested_folders_become_nested_records(tmp_path):
    draw(tmp_path / "pages", "Latin/a", "Greek/a", "Greek/b")
    to = tmp_path / "records"
    folder_to_records.main(
        [f"--from_folder={tmp_path / 'pages'}", f"--to={to}"]
    )
    assert_same_images(
        RecordedImages(to).load(),
        read_image_folder(tmp_path / "pages", drawings=True, invert=None),
    )


# Names ------------------------------------------------------------------------


def test_folders_that_look_alike_are_one_class(tmp_path, caplog):
    decomposed = unicodedata.normalize("NFD", "é")
    draw(tmp_path, "1", "1.0", "é", decomposed, "b\u200b", "b", "07", "7")
    data = read_image_folder(tmp_path)
    names = data.group_names["character"]
    assert list(names.values()) == ["07", "1", "7", "b", "é"]
    sizes = np.bincount(data.labels["character"])
    np.testing.assert_array_equal(sizes, [2, 4, 2, 4, 4])
    assert "'1' and '1.0'" in messages(caplog)
    assert ascii("b\u200b") in messages(caplog)
    assert ascii(decomposed) in messages(caplog)


def test_alphabets_that_look_alike_are_one(tmp_path, caplog):
    draw(tmp_path, "1.0/a", "1/a", "1/b", "2/1.0", "3/1")
    data = read_image_folder(tmp_path)
    assert list(data.group_names["alphabet"].values()) == ["1", "2", "3"]
    characters = list(data.group_names["character"].values())
    assert characters == ["1/a", "1/b", "2/1.0", "3/1"]
    assert "'1' and '1.0'" in messages(caplog)


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "null", "NA"])
def test_folders_named_as_missing_values_are_no_classes(tmp_path, caplog, name):
    draw(tmp_path, "a", "b", name)
    data = read_image_folder(tmp_path)
    assert data.group_names["character"] == {0: "a", 1: "b"}
    assert len(data) == 4
    assert f"{name}'" in messages(caplog)


def test_a_folder_of_none_but_missing_values_is_rejected(tmp_path):
    draw(tmp_path, "nan")
    with pytest.raises(ValueError, match="no class folders"):
        read_image_folder(tmp_path)


# Splits -----------------------------------------------------------------------


def splits_of(root, tmp_path, dataset):
    if dataset == "folder":
        return Folder(image_size=(9, 9)).load(str(root))
    to = tmp_path / "records"
    folder_to_records.main(
        [f"--from_folder={root}", f"--to={to}", "--image_size=9x9", "--invert"]
    )
    return Records().load(str(to))


def names_of(data, group="character"):
    return [data.group_names[group][i] for i in data.group_ids(group).tolist()]


def trained_names(splits):
    """Returns the classes that are for training or for validation."""
    return sorted(names_of(splits.train) + names_of(splits.validation))


@pytest.mark.parametrize("dataset", ["folder", "records"])
@pytest.mark.parametrize(
    "folders",
    [
        ("train", "test", "validation"),
        ("Training", "TEST", "val"),
        ("images_background", "images_evaluation", "valid"),
        ("Training Set", "test_set", "dev"),
    ],
)
def test_folders_for_training_and_testing_are_the_split(
    tmp_path, folders, dataset
):
    root = tmp_path / "pages"
    train, test, validation = folders
    draw(root, *(f"{train}/Greek/{name}" for name in "abc"))
    draw(root, f"{test}/Latin/a", f"{test}/Latin/d", f"{validation}/Runes/f")
    splits = splits_of(root, tmp_path, dataset)
    assert names_of(splits.train) == ["Greek/a", "Greek/b", "Greek/c"]
    assert names_of(splits.test) == ["Latin/a", "Latin/d"]
    assert names_of(splits.validation) == ["Runes/f"]
    assert names_of(splits.test, "alphabet") == ["Latin"]
    assert list(splits.test.labels) == ["alphabet", "character"]


def test_a_validation_set_is_the_test_set_where_there_is_no_other(tmp_path):
    draw(tmp_path, "train/a", "train/b", "train/c", "val/d", "val/e")
    splits = Folder(image_size=(9, 9)).load(str(tmp_path))
    assert names_of(splits.test) == ["d", "e"]
    assert trained_names(splits) == ["a", "b", "c"]


def test_a_class_in_both_folders_is_for_testing(tmp_path, caplog):
    draw(tmp_path, *(f"train/{name}" for name in "abcd"), "test/d", "test/e")
    splits = Folder(image_size=(9, 9)).load(str(tmp_path))
    assert trained_names(splits) == ["a", "b", "c"]
    assert names_of(splits.test) == ["d", "e"]
    assert len(splits.test) == 6  # Also what was in train/d.
    assert "split: 1, for example 'd'" in messages(caplog)


def test_folders_of_the_same_classes_are_no_split(tmp_path, caplog):
    for side in ("train", "test"):
        draw(tmp_path, *(f"{side}/{name}" for name in "abcdef"))
    splits = Folder(image_size=(9, 9)).load(str(tmp_path))
    assert len(splits.train) + len(splits.validation) == 16
    assert len(splits.test) == 8
    assert set(names_of(splits.train)).isdisjoint(names_of(splits.test))
    assert set(trained_names(splits)).isdisjoint(names_of(splits.test))
    assert "split: 6, for example 'a'" in messages(caplog)


def test_a_single_folder_for_training_is_only_a_folder(tmp_path):
    draw(tmp_path, *(f"train/{name}" for name in "abcdef"))
    splits = Folder(image_size=(9, 9)).load(str(tmp_path))
    assert len(trained_names(splits)) == 4
    assert list(splits.train.labels) == ["character"]


@pytest.mark.parametrize(
    ("folders", "where"),
    [
        (["train/a", "test/b", "extra/c"], "'test' in 'test/b'"),
        (["a/Train", "a/test", "b/train"], "'Train' in 'a/Train'"),
        (["train/a/val", "test/b/val"], "'val' in 'b/val'"),
    ],
)
def test_a_split_that_is_ignored_is_warned_of(tmp_path, caplog, folders, where):
    draw(tmp_path, *folders)
    read_image_folder(tmp_path)
    assert where in messages(caplog)


@pytest.mark.parametrize("above", ["data", "data/omniglot"])
def test_the_folder_of_a_split_below_is_named(tmp_path, caplog, above):
    draw(tmp_path, f"{above}/images_background/a", f"{above}/test set/b")
    read_image_folder(tmp_path)
    assert f"give {str(tmp_path / above)!r}" in messages(caplog)


def test_splits_without_classes_are_rejected(tmp_path):
    draw(tmp_path, "train", "test")
    with pytest.raises(ValueError, match="for each class in 'te"):
        read_image_folder(tmp_path)


def test_too_few_classes_in_a_folder_are_named(tmp_path):
    draw(tmp_path, *(f"train/{name}" for name in "abcd"), "test/e")
    with pytest.raises(ValueError, match=r"'test' .* 2 .*Received: 1"):
        Folder(image_size=(9, 9)).load(str(tmp_path))
