import numpy as np
import pytest

from tests.data.conftest import data_of
from vhe_tf.data import datasets


def numbered(ids):
    images = np.arange(len(ids), dtype=np.float32) / len(ids)
    return data_of(images.reshape(-1, 1, 1, 1), character=np.asarray(ids))


def test_held_out_groups_are_whole_and_the_rest_stays():
    data = numbered([3, 5, 3, 8, 5, 11, 3])
    rest, held_out = datasets.hold_out_groups(
        data, "character", num_groups=2, seed=0
    )
    assert len(held_out.group_ids("character")) == 2
    assert len(rest.group_ids("character")) == 2
    assert not set(rest.group_ids("character")) & set(
        held_out.group_ids("character")
    )
    together = np.concatenate([rest.images, held_out.images]).ravel()
    np.testing.assert_array_equal(np.sort(together), data.images.ravel())


def test_the_seed_chooses_the_held_out_groups():
    data = numbered(np.arange(20))

    def chosen(seed):
        _, held_out = datasets.hold_out_groups(
            data, "character", num_groups=5, seed=seed
        )
        return held_out.images.ravel().tolist()

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_groups", [1, 2, 3, 4])
def test_groups_of_one_image_are_held_out_if_others_are_too_few(
    num_groups, seed
):
    data = numbered([0, 1, 1, 2, 3, 3, 4, 5, 5])
    _, held_out = datasets.hold_out_groups(
        data, "character", num_groups=num_groups, seed=seed
    )
    chosen = held_out.group_ids("character").tolist()
    assert len(chosen) == num_groups
    assert num_groups > 2 or set(chosen) <= {1, 3, 5}


@pytest.mark.parametrize("num_groups", [-1, 0, 3, 4])
def test_a_group_is_left_on_each_side(num_groups):
    with pytest.raises(ValueError, match=rf"1 to 2 of 3.*: {num_groups}\."):
        datasets.hold_out_groups(
            numbered([0, 1, 2]), "character", num_groups=num_groups
        )


def source_of(train, validation=None):
    return datasets.DataSplits(train, validation, train, (1, 1), "none")


@pytest.mark.parametrize(("asked", "given"), [(2, 2), (5, 5), (6, 5)])
def test_at_most_a_quarter_is_for_validation(asked, given):
    data = numbered(np.arange(20))
    train, validation = source_of(data).training_parts(
        "character", asked, seed=3
    )
    assert len(validation.group_ids("character")) == given
    rest, held_out = datasets.hold_out_groups(
        data, "character", num_groups=given, seed=3
    )
    np.testing.assert_array_equal(train.images, rest.images)
    np.testing.assert_array_equal(validation.images, held_out.images)


def test_of_two_groups_one_is_for_validation():
    parts = source_of(numbered([4, 4, 9])).training_parts(
        "character", 50, seed=0
    )
    assert [len(part.group_ids("character")) for part in parts] == [1, 1]


def test_data_with_a_validation_set_keep_it():
    train, validation = numbered([0, 1, 2]), numbered([3, 4])
    parts = source_of(train, validation).training_parts("character", 1, seed=0)
    assert parts == (train, validation)


def test_of_one_group_none_is_for_validation():
    with pytest.raises(ValueError, match=r"Can hold out .* of 1 groups"):
        source_of(numbered([4, 4])).training_parts("character", 1, seed=0)
