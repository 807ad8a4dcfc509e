"""Images and classes that occur twice under two names."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.test_class_folders import draw
from tests.data.test_class_folders import messages
from tests.data.test_class_folders import names_of
from tests.data.test_class_folders import trained_names
from vhe_tf.data import Folder
from vhe_tf.data import RecordedImages
from vhe_tf.data import Records
from vhe_tf.data import read_image_folder
from vhe_tf.data import read_label_table
from vhe_tf.data.datasets.records import folder_to_records
from vhe_tf.data.datasets.records.writer import write_settled_records


def linked(one, other):
    other.symlink_to(one)


def linked_files(one, other):
    other.mkdir()
    for path in one.iterdir():
        (other / path.name).hardlink_to(path)


def converted(one, other):
    """Other files of the same pixels."""
    other.mkdir()
    for path in one.iterdir():
        Image.open(path).save(other / f"{path.stem}.bmp")


DOUBLES = [shutil.copytree, linked, linked_files, converted]


@pytest.mark.parametrize("double", DOUBLES)
def test_two_names_of_a_class_are_one_class(tmp_path, caplog, double):
    draw(tmp_path, *"abcdef")
    double(tmp_path / "a", tmp_path / "z")
    data = read_image_folder(tmp_path)
    assert names_of(data) == list("abcdef")
    assert len(data) == 12
    assert re.search("'z' has .* as 'a'", messages(caplog))
    for seed in range(8):
        splits = Folder(seed=seed, image_size=(9, 9)).load(str(tmp_path))
        sides = [trained_names(splits), names_of(splits.test)]
        assert sorted([*sides[0], *sides[1]]) == list("abcdef")


@pytest.mark.parametrize("double", DOUBLES)
def test_a_class_on_both_sides_of_a_given_split_is_for_testing(
    tmp_path, caplog, double
):
    draw(tmp_path, *(f"train/{name}" for name in "abcd"), "test/e", "test/f")
    double(tmp_path / "train" / "b", tmp_path / "test" / "z")
    splits = Folder(image_size=(9, 9)).load(str(tmp_path))
    assert trained_names(splits) == ["a", "c", "d"]
    assert names_of(splits.test) == ["b", "e", "f"]
    assert len(splits.test) == 6
    assert re.search("'z' has .* as 'b'", messages(caplog))
    assert "'b'. Models must be tested" in messages(caplog)


@pytest.mark.parametrize("double", [linked, converted])
def test_records_of_a_folder_keep_copied_classes_on_one_side(
    tmp_path, caplog, capsys, double
):
    pages = tmp_path / "pages"
    draw(pages, *"abcdef")
    double(pages / "a", pages / "z")
    to_records(pages)
    assert re.search("'z' has .* as 'a'", messages(caplog))
    assert capsys.readouterr().out.startswith("12 images of 6 classes")
    records = RecordedImages(tmp_path / "records")
    folder = read_image_folder(pages, drawings=True)
    np.testing.assert_array_equal(records.load().images, folder.images)
    for name, ids in folder.labels.items():
        np.testing.assert_array_equal(records.labels[name], ids)
    for seed in range(8):
        splits = Records(seed=seed).load(str(tmp_path / "records"))
        sides = names_of(splits.train) + names_of(splits.test)
        assert sorted(sides) == list("abcdef")


def test_records_of_a_class_on_both_sides_are_for_testing(tmp_path):
    pages = tmp_path / "pages"
    draw(pages, *(f"train/{name}" for name in "abcd"), "test/e", "test/f")
    shutil.copytree(pages / "train" / "b", pages / "test" / "z")
    to_records(pages)
    splits = Records().load(str(tmp_path / "records"))
    assert names_of(splits.train) == ["a", "c", "d"]
    assert names_of(splits.test) == ["b", "e", "f"]


def test_records_are_read_from_their_place_in_any_file(tmp_path):
    images = np.arange(12, dtype=np.uint8)[:, None, None, None]
    labels = np.repeat(np.arange(4), 3)
    keep = labels != 1  # The second file of four keeps none.
    write_settled_records(
        tmp_path,
        [
            (image, {"kind": ids})
            for image, ids in zip(images, labels, strict=True)
        ],
        settle=lambda index: index.where(keep),
        max_shard_bytes=170,
    )
    assert len(list(tmp_path.glob("*.tfrecord"))) == 4
    records = RecordedImages(tmp_path)
    np.testing.assert_array_equal(records.load().images, images[keep])
    np.testing.assert_array_equal(records.labels["kind"], labels[keep])


def test_two_names_of_an_alphabet_are_one(tmp_path):
    draw(tmp_path, "Greek/a", "Greek/b", "Latin/a")
    shutil.copytree(tmp_path / "Greek", tmp_path / "Greek copy")
    data = read_image_folder(tmp_path)
    assert len(names_of(data, "alphabet")) == 2
    assert len(names_of(data)) == 3
    assert len(data) == 6


def to_records(pages):
    to = pages.with_name("records")
    folder_to_records.main(
        [f"--from_folder={pages}", f"--to={to}", "--no-invert"]
    )


@pytest.mark.parametrize(
    ("read", "kind"),
    [(read_image_folder, ValueError), (to_records, SystemExit)],
)
def test_an_image_in_two_classes_is_named_with_both(tmp_path, read, kind):
    pages = tmp_path / "pages"
    draw(pages, *"abc")
    shutil.copy(pages / "a" / "1.png", pages / "c" / "other.png")
    with pytest.raises(kind, match="Received: 1 with two") as error:
        read(pages)
    named = f"c/other.png ('c', but 'a' as {pages / 'a' / '1.png'})"
    assert named in str(error.value)
    assert not (tmp_path / "records" / "index.npz").exists()


def test_blank_images_and_those_that_are_the_same_when_small_differ(tmp_path):
    draw(tmp_path, "a", "b")
    for name in "ab":
        Image.new("L", (9, 9), 255).save(tmp_path / name / "blank.png")
    large = np.zeros((64, 64), np.uint8)
    large[32:] = 200
    Image.fromarray(large).save(tmp_path / "a" / "large.png")
    large[0, 0] = 1
    Image.fromarray(large).save(tmp_path / "b" / "large.png")
    data = read_image_folder(tmp_path, image_size=(4, 4))
    assert len(data) == 8


def test_copies_in_a_class_are_told(tmp_path, caplog):
    draw(tmp_path, "a", "b")
    shutil.copy(tmp_path / "a" / "1.png", tmp_path / "a" / "9.png")
    assert len(read_image_folder(tmp_path)) == 5
    assert "1 images are copies" in messages(caplog)
    assert f"a/9.png (as {tmp_path / 'a' / '1.png'})" in messages(caplog)


def table(folder, *rows):
    path = folder / "labels.csv"
    path.write_text("\n".join(["image,kind,drawer", *rows]), encoding="utf-8")
    return path


@pytest.mark.parametrize("copied", [False, True])
def test_an_image_with_two_labels_in_a_table_is_named(tmp_path, copied):
    draw(tmp_path, "scans", num_images=3)
    shutil.copy(tmp_path / "scans" / "0.png", tmp_path / "copy.png")
    again = "copy.png" if copied else "scans/0.png"
    rows = ["scans/0.png,a,Ann", "scans/1.png,a,Bob", "scans/2.png,b,Bob"]
    path = table(tmp_path, *rows, f"{again},b,Ann")
    with pytest.raises(ValueError, match="only one kind") as error:
        read_label_table(path)
    assert f"{again} ('b', but 'a' as" in str(error.value)


def test_two_names_of_a_group_in_a_table_are_one(tmp_path, caplog):
    draw(tmp_path, "a", "b")
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    path = table(
        tmp_path,
        *(f"{name}/{n}.png,{name},Ann" for name in "abc" for n in range(2)),
    )
    data = read_label_table(path)
    np.testing.assert_array_equal(data.labels["kind"], [0, 0, 1, 1])
    assert re.search("'c' has .* as 'a'", messages(caplog))


def test_a_row_without_a_label_does_not_contradict_another(tmp_path, caplog):
    draw(tmp_path, "scans")
    rows = ["scans/0.png,a,", "scans/0.png,,Ann", "scans/1.png,b,Bob"]
    data = read_label_table(table(tmp_path, *rows))
    np.testing.assert_array_equal(data.labels["kind"], [0, -1, 1])
    assert "one alone has a label" in messages(caplog)
    assert "same label" not in messages(caplog)
