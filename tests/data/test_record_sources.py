import os

import numpy as np
import pytest

from vhe_tf.data import RecordedImages
from vhe_tf.data import sources
from vhe_tf.data import write_records
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.records import DamagedRecordsError


def recorded(folder, num_groups, *, channels=1, group="character"):
    """Writes records of three images a group, dark on the left."""
    images = np.full((3 * num_groups, 12, 10, channels), 255, np.uint8)
    images[:, :, :4] = 0
    ids = np.arange(len(images)) // 3
    write_records(folder, GroupedImages(images, {group: 7 * ids}))


def test_records_test_on_a_fifth_of_their_classes(tmp_path):
    recorded(tmp_path, 20)
    source = sources.load_source("records", data_dir=str(tmp_path), seed=1)
    assert isinstance(source.train, RecordedImages)
    assert isinstance(source.test, GroupedImages)
    assert source.validation is None
    train, test = (
        set(data.group_ids("character")) for data in (source.train, source.test)
    )
    assert len(test) == 4
    assert not train & test
    assert train | test == set(range(0, 140, 7))
    assert source.image_size == (12, 10)
    assert source.binarization == "threshold"
    # Ink is 255 as stored.
    assert source.test.images.dtype == np.float32
    assert np.all(source.test.images[:, :, :4] == 0.0)
    assert np.all(source.test.images[:, :, 4:] == 1.0)


def test_records_of_colour_stay_as_they_are(tmp_path):
    recorded(tmp_path, 10, channels=3, group="person")
    source = sources.load_photo_source("records", data_dir=str(tmp_path))
    assert source.image_size == source.test.image_shape[:2] == (12, 10)
    assert source.group == "person"
    assert source.binarization == "none"
    assert len(source.test) == 6
    assert len(source.train) == 24


def test_the_test_set_of_records_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_MAX_TEST_GROUPS_OF_RECORDS", 3)
    recorded(tmp_path, 20)
    source = sources.load_source("records", data_dir=str(tmp_path))
    assert len(source.test.group_ids("character")) == 3
    assert len(source.train.group_ids("character")) == 17


def test_large_classes_of_records_are_tested_in_part(tmp_path, monkeypatch):
    image_bytes = 4 * 12 * 10
    monkeypatch.setattr(sources, "_MIN_TEST_IMAGES_A_GROUP", 2)
    monkeypatch.setattr(sources, "_MAX_TEST_BYTES_OF_RECORDS", 8 * image_bytes)
    recorded(tmp_path, 20)
    source = sources.load_source("records", data_dir=str(tmp_path))
    ids, counts = np.unique(source.test.labels["character"], return_counts=True)
    assert len(ids) == 4
    np.testing.assert_array_equal(counts, 2)
    assert len(source.train) == 3 * 16
    # Where there is no room for so many classes, there are fewer.
    monkeypatch.setattr(sources, "_MAX_TEST_BYTES_OF_RECORDS", 5 * image_bytes)
    source = sources.load_source("records", data_dir=str(tmp_path))
    assert len(source.test.group_ids("character")) == 2
    assert len(source.test) == 4
    assert len(source.train) == 3 * 16  # as before: no run has other classes


def test_damaged_records_are_left_out_on_request(tmp_path, capsys):
    recorded(tmp_path, 20)
    [path] = tmp_path.glob("*.tfrecord")
    intact = sources.load_source("records", data_dir=str(tmp_path))
    # Of the test set, the first image alone is there.
    first = np.flatnonzero(
        np.isin(7 * (np.arange(60) // 3), intact.test.group_ids("character"))
    )[0]
    with np.load(tmp_path / "index.npz") as index:
        os.truncate(path, index["offsets"][first + 1])
    with pytest.raises(DamagedRecordsError, match=path.name):
        sources.load_source("records", data_dir=str(tmp_path))
    source = sources.load_source(
        "records", data_dir=str(tmp_path), skip_corrupt=True
    )
    np.testing.assert_array_equal(source.test.images, intact.test.images[:1])
    assert len(source.train) == len(intact.train)
    assert "Left out 11 of 12 records" in capsys.readouterr().out
    again = sources.load_again(
        {"dataset": "records", "images": "grey"},
        data_dir=str(tmp_path),
        skip_corrupt=True,
    )
    assert again.test.labels["character"] == source.test.labels["character"]


@pytest.mark.parametrize(
    ("load", "channels", "group", "wanted"),
    [
        ("load_source", 3, "character", "1 channels in the grouping 'char"),
        ("load_source", 1, "person", "1 channels in the grouping 'character'"),
        ("load_photo_source", 1, "person", "3 channels in the grouping 'per"),
        ("load_photo_source", 3, "face", "3 channels in the grouping 'person'"),
    ],
)
def test_records_of_another_kind_are_refused(
    tmp_path, load, channels, group, wanted
):
    recorded(tmp_path, 10, channels=channels, group=group)
    with pytest.raises(ValueError, match=wanted) as error:
        getattr(sources, load)("records", data_dir=str(tmp_path))
    assert str(error.value).endswith(
        f"Received: images of shape (12, 10, {channels}) in ['{group}'] in "
        f"{tmp_path}."
    )


def test_records_need_a_folder_and_five_classes(tmp_path):
    with pytest.raises(ValueError, match=r"Received: data_dir=None\."):
        sources.load_source("records")
    recorded(tmp_path, 4)
    with pytest.raises(ValueError, match="Received: 4 in"):
        sources.load_source("records", data_dir=str(tmp_path))


def test_records_are_not_resized(tmp_path):
    for load in (sources.load_source, sources.load_photo_source):
        with pytest.raises(ValueError, match="size at which they are stored"):
            load("records", data_dir=str(tmp_path), image_size=(28, 28))
