import numpy as np
import pytest

from vhe_tf import counts


@pytest.mark.parametrize("value", [1, 7, np.int32(3), np.int64(2)])
def test_a_positive_int_is_returned_as_one(value):
    assert counts.is_positive_int(value)
    assert counts.positive("num_shots", value) == value
    assert type(counts.positive("num_shots", value)) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, np.float32(1)])
def test_anything_else_is_refused_by_name(value):
    assert not counts.is_positive_int(value)
    with pytest.raises(ValueError, match=r"`num_shots` must be .*num_shots="):
        counts.positive("num_shots", value)
