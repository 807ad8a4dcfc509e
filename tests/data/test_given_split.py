"""Splits that folders, tables and records give: each group on one side."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from tests.data.test_class_folders import draw
from tests.data.test_class_folders import messages
from tests.data.test_class_folders import names_of
from vhe_tf.data import Folder
from vhe_tf.data import Records
from vhe_tf.data import from_columns
from vhe_tf.data import write_records
from vhe_tf.data.datasets.given_split import given_split
from vhe_tf.data.datasets.own_images import Table

TRAIN = [("train", name) for name in "abcd"]
TEST = [("test", name) for name in "efg"]


def pixels_of(number):
    return np.random.default_rng(number).integers(0, 256, (9, 9), np.uint8)


def from_table(rows, tmp_path, header=("image", "character", "split")):
    """Loads a table of different drawings, one for each row of labels."""
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, (side, name) in enumerate(rows):
            Image.fromarray(pixels_of(number)).save(tmp_path / f"{number}.png")
            writer.writerow([f"{number}.png", name, side])
    return Table(image_size=(9, 9)).load(str(path))


def from_records(rows, tmp_path):
    images = np.stack([pixels_of(number) for number, _ in enumerate(rows)])
    sides, names = zip(*rows, strict=True)
    data = from_columns(
        images[..., np.newaxis], {"character": names, "split": sides}
    )
    write_records(tmp_path / "records", data)
    return Records().load(str(tmp_path / "records"))


def sides_of(splits):
    parts = (splits.train, splits.validation, splits.test)
    return [set() if part is None else set(names_of(part)) for part in parts]


def assert_disjoint(splits, everything):
    train, validation, test = sides_of(splits)
    assert sorted([*train, *validation, *test]) == sorted(everything)
    assert min(len(train), len(test)) > 1


@pytest.mark.parametrize("load", [from_table, from_records])
@pytest.mark.parametrize(
    "words",
    [
        {"train": "train", "test": "test", "validation": "val"},
        {"train": "Training Set", "test": "TEST", "validation": "dev"},
    ],
)
def test_a_given_split_is_used(tmp_path, load, words):
    rows = [*TRAIN, *TEST, ("validation", "h"), ("validation", "i")]
    splits = load([(words[side], name) for side, name in rows], tmp_path)
    assert sides_of(splits) == [set("abcd"), set("hi"), set("efg")]
    assert "split" not in splits.train.labels


@pytest.mark.parametrize("load", [from_table, from_records])
def test_a_class_on_both_sides_is_for_testing(tmp_path, caplog, load):
    splits = load([*TRAIN, *TEST, ("test", "a")], tmp_path)
    train, validation, test = sides_of(splits)
    assert train | validation == set("bcd")
    assert test == set("aefg")
    assert len(splits.test) == 5
    assert "split: 1, for example 'a'" in messages(caplog)


@pytest.mark.parametrize("load", [from_table, from_records])
def test_a_split_of_each_class_is_ignored(tmp_path, caplog, load):
    rows = [(side, name) for side in ("train", "test") for name in "abcdef"]
    splits = load(rows, tmp_path)
    assert_disjoint(splits, "abcdef")
    assert "split: 6, for example 'a'" in messages(caplog)
    assert "random groups" in messages(caplog)
    assert "split" not in splits.train.labels


@pytest.mark.parametrize("load", [from_table, from_records])
def test_a_split_without_a_test_set_is_ignored(tmp_path, caplog, load):
    splits = load([("train", name) for name in "abcdef"], tmp_path)
    assert_disjoint(splits, "abcdef")
    assert "none to test on" in messages(caplog)


def test_a_validation_set_is_the_test_set_where_there_is_no_other(tmp_path):
    rows = [*TRAIN, *[("validation", name) for _, name in TEST]]
    train, validation, test = sides_of(from_table(rows, tmp_path))
    assert (train | validation, test) == (set("abcd"), set("efg"))


@pytest.mark.parametrize("load", [from_table, from_records])
def test_images_without_a_side_have_that_of_their_class(tmp_path, caplog, load):
    rows = [*TRAIN, *TEST, ("", "a"), ("", "e"), ("", "x")]
    splits = load(rows, tmp_path)
    train, validation, test = sides_of(splits)
    assert (train | validation, test) == (set("abcd"), set("efg"))
    assert len(splits.test) == 4
    assert "Left out 1 images" in messages(caplog)
    assert "number 10" in messages(caplog)


@pytest.mark.parametrize("load", [from_table, from_records])
def test_a_split_with_other_names_is_rejected(tmp_path, load):
    with pytest.raises(ValueError, match=r"rename it if .* 2 others.*'0'"):
        load([*TRAIN, *TEST, ("0", "x"), ("1", "y")], tmp_path)


@pytest.mark.parametrize("load", [from_table, from_records])
def test_a_split_without_a_name_of_a_side_is_ignored(tmp_path, caplog, load):
    rows = [(str(index % 5), name) for index, name in enumerate("abcdef" * 2)]
    splits = load(rows, tmp_path)
    assert_disjoint(splits, "abcdef")
    assert "read as no split" in messages(caplog)
    assert "split" not in splits.train.labels


@pytest.mark.parametrize("load", [from_table, from_records])
def test_a_side_of_too_few_classes_is_named(tmp_path, load):
    rows = [*TRAIN, ("test", "e")]
    with pytest.raises(ValueError, match=r"'test' .* 2 .*Received: 1"):
        load(rows, tmp_path)


def test_the_case_of_the_column_does_not_matter(tmp_path):
    header = ("image", "character", "Split")
    splits = from_table([*TRAIN, *TEST], tmp_path, header)
    assert sides_of(splits)[2] == set("efg")


def test_the_split_cannot_be_the_grouping_of_the_classes(tmp_path):
    from_table([*TRAIN, *TEST], tmp_path)
    spec = Table(image_size=(9, 9), groupings=("split",))
    with pytest.raises(ValueError, match="rename it"):
        spec.load(str(tmp_path / "table.csv"))


def test_an_image_on_both_sides_is_on_that_of_its_class(tmp_path, caplog):
    from_table([*TRAIN, *TEST], tmp_path)
    path = tmp_path / "table.csv"
    path.write_text(path.read_text() + "0.png,a,test\n")
    splits = Table(image_size=(9, 9)).load(str(path))
    assert "a" in sides_of(splits)[2]
    assert "1 images are copies" in messages(caplog)


# Groupings --------------------------------------------------------------------


def draw_torn_alphabets(root):
    """Other characters of the same alphabets for training and for testing."""
    for side, names in (("train", "ab"), ("test", "xy")):
        for alphabet in ("Greek", "Latin", "Thai", "Tamil", "Urdu"):
            draw(root, *(f"{side}/{alphabet}/{name}" for name in names))


def test_alphabets_that_are_held_out_are_on_one_side(tmp_path, caplog):
    draw_torn_alphabets(tmp_path)
    groupings = ("alphabet", "character")
    spec = Folder(image_size=(9, 9), groupings=groupings)
    splits = spec.load(str(tmp_path))
    parts = (splits.train, splits.validation, splits.test)
    for grouping in groupings:
        names = [name for part in parts for name in names_of(part, grouping)]
        assert len(names) == len(set(names))
    assert re.search("'alphabet' [^:]* split: 5, ", messages(caplog))


def test_one_torn_alphabet_is_for_testing(tmp_path, caplog):
    for alphabet in ("Greek", "Latin", "Thai", "Tamil"):
        draw(tmp_path, f"train/{alphabet}/a", f"train/{alphabet}/b")
    draw(tmp_path, "test/Urdu/a", "test/Zulu/a", "test/Tamil/c")
    spec = Folder(image_size=(9, 9), groupings=("alphabet", "character"))
    splits = spec.load(str(tmp_path))
    assert names_of(splits.test, "alphabet") == ["Tamil", "Urdu", "Zulu"]
    assert "split: 1, for example 'Tamil'" in messages(caplog)


def test_characters_of_an_alphabet_may_be_on_both_sides(tmp_path, caplog):
    draw_torn_alphabets(tmp_path)
    splits = Folder(image_size=(9, 9)).load(str(tmp_path))
    assert len(names_of(splits.test)) == 10
    assert "split" not in messages(caplog)


def test_a_class_without_an_alphabet_is_on_one_side(tmp_path):
    images = np.stack([pixels_of(number) for number in range(14)])
    columns = {
        "alphabet": [*"AABBCCDDEEFF", "", ""],
        "character": [*"aabbccddeeff", "z", "z"],
        "split": ["train"] * 8 + ["test"] * 4 + ["train", "test"],
    }
    data = from_columns(images[..., np.newaxis], columns)
    train, _, test = given_split(data, ["alphabet", "character"], place="here")
    assert names_of(train) == list("abcd")
    assert names_of(test) == list("efz")
