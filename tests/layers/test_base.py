"""Layers of the user are saved with the arguments of their constructors."""

import json

import keras
import pytest

from vhe_tf.layers import BaseLayer

package = "tests.base"


@keras.saving.register_keras_serializable(package)
class _Private(BaseLayer):
    def __init__(self, size=4, **kwargs):
        super().__init__(**kwargs)
        self._size = size


@keras.saving.register_keras_serializable(package)
class _Replaced(BaseLayer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = keras.layers.Dense(units)


@keras.saving.register_keras_serializable(package)
class _Fixed(_Replaced):
    def __init__(self, **kwargs):
        super().__init__(7, **kwargs)


@keras.saving.register_keras_serializable(package)
class _Several(BaseLayer):
    def __init__(self, encoders, initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.encoders = encoders
        self.initializer = keras.initializers.get(initializer)


@keras.saving.register_keras_serializable(package)
class _Partly(BaseLayer):
    def __init__(self, encoder, size=4, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self._size = size


@keras.saving.register_keras_serializable(package)
class _Defined(_Partly):
    def get_config(self):
        return {**super().get_config(), "size": self._size}


def revived(layer):
    saved = json.dumps(keras.saving.serialize_keras_object(layer))
    return keras.saving.deserialize_keras_object(json.loads(saved))


def test_arguments_need_not_be_attributes():
    assert revived(_Private(5))._size == 5
    assert revived(_Replaced(6)).units.units == 6
    assert revived(_Fixed()).units.units == 7
    assert revived(_Private(trainable=False)).trainable is False


def test_layers_in_a_list_are_revived():
    several = revived(_Several([keras.layers.Dense(n) for n in (2, 3)]))
    assert [encoder.units for encoder in several.encoders] == [2, 3]
    assert isinstance(several.initializer, keras.initializers.Zeros)


def test_an_argument_that_is_kept_nowhere_is_named():
    with pytest.raises(NotImplementedError, match="no attribute 'size'"):
        _Partly(keras.layers.Dense(2), 5).get_config()
    assert revived(_Defined(keras.layers.Dense(2), 5))._size == 5
