import numpy as np
import pytest

from vhe_tf.data import RecordedImages
from vhe_tf.data import Records
from vhe_tf.data import write_records
from vhe_tf.data.datasets.records import spec as records_spec
from vhe_tf.data.grouped_images import GroupedImages


def recorded(folder, num_groups, *, channels=1, group="character"):
    """Writes records of three images per group, dark on the left."""
    images = np.full((3 * num_groups, 12, 10, channels), 255, np.uint8)
    images[:, :, :4] = 0
    ids = np.arange(len(images)) // 3
    write_records(folder, GroupedImages(images, {group: 7 * ids}))


def test_records_test_on_a_fifth_of_their_classes(tmp_path):
    recorded(tmp_path, 20)
    source = Records(seed=1).load(str(tmp_path))
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
    source = Records("colour", "person").load(str(tmp_path))
    assert source.image_size == source.test.image_shape[:2] == (12, 10)
    assert source.group == "person"
    assert source.binarization == "none"
    assert len(source.test) == 6
    assert len(source.train) == 24


def test_the_test_set_of_records_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(records_spec, "_MAX_TEST_GROUPS", 3)
    recorded(tmp_path, 20)
    source = Records().load(str(tmp_path))
    assert len(source.test.group_ids("character")) == 3
    assert len(source.train.group_ids("character")) == 17


def test_large_classes_of_records_are_tested_in_part(tmp_path, monkeypatch):
    image_bytes = 4 * 12 * 10
    monkeypatch.setattr(records_spec, "_MIN_TEST_IMAGES_PER_GROUP", 2)
    monkeypatch.setattr(records_spec, "_MAX_TEST_BYTES", 8 * image_bytes)
    recorded(tmp_path, 20)
    source = Records().load(str(tmp_path))
    ids, counts = np.unique(source.test.labels["character"], return_counts=True)
    assert len(ids) == 4
    np.testing.assert_array_equal(counts, 2)
    assert len(source.train) == 3 * 16
    # Where there is no room for so many classes, there are fewer.
    monkeypatch.setattr(records_spec, "_MAX_TEST_BYTES", 5 * image_bytes)
    source = Records().load(str(tmp_path))
    assert len(source.test.group_ids("character")) == 2
    assert len(source.test) == 4
    assert len(source.train) == 3 * 16  # as before: no run has other classes


@pytest.mark.parametrize(
    ("spec", "channels", "group", "wanted"),
    [
        (Records(), 3, "character", "1 channels in the grouping 'char"),
        (Records(), 1, "person", "1 channels in the grouping 'character'"),
        (
            Records("colour", "person"),
            1,
            "person",
            "3 channels in the grouping 'per",
        ),
        (
            Records("colour", "person"),
            3,
            "face",
            "3 channels in the grouping 'person'",
        ),
    ],
)
def test_records_of_another_kind_are_refused(
    tmp_path, spec, channels, group, wanted
):
    recorded(tmp_path, 10, channels=channels, group=group)
    with pytest.raises(ValueError, match=wanted) as error:
        spec.load(str(tmp_path))
    assert str(error.value).endswith(
        f"Received: images of shape (12, 10, {channels}) in ['{group}'] in "
        f"{tmp_path}."
    )


def test_records_need_a_folder_and_five_classes(tmp_path):
    with pytest.raises(ValueError, match=r"Received: data_dir=None\."):
        Records().load()
    recorded(tmp_path, 4)
    with pytest.raises(ValueError, match="Received: 4 in"):
        Records().load(str(tmp_path))
