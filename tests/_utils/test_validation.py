import numpy as np
import pytest

from vhe_tf._utils import validation


@pytest.mark.parametrize("value", [1, 7, np.int32(3), np.int64(2)])
def test_a_positive_int_is_returned_as_one(value):
    assert validation.is_positive_int(value)
    assert validation.positive("num_shots", value) == value
    assert type(validation.positive("num_shots", value)) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, np.float32(1)])
def test_anything_else_is_refused_by_name(value):
    assert not validation.is_positive_int(value)
    with pytest.raises(ValueError, match=r"`num_shots` must be .*num_shots="):
        validation.positive("num_shots", value)
