"""Models that a saved file cannot describe are named before they are saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import callbacks
from vhe_tf import layers
from vhe_tf.models import _reloading
from vhe_tf.models import loading

package = "tests.reloading"


class _Scaled(keras.layers.Layer):
    """A layer with an argument that its `get_config` forgets."""

    def __init__(self, units=4, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.gain = gain
        self.dense = keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.gain * self.dense(inputs)


@keras.saving.register_keras_serializable(package)
class _ForgetsAll(_Scaled):
    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable(package)
class _ForgetsHidden(_Scaled):
    """Nothing but its numbers shows what it forgets."""

    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.gain = tf.constant(gain)

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable(package)
class _Complete(_Scaled):
    def get_config(self):
        config = super().get_config()
        return {**config, "units": self.units, "gain": self.gain}


@keras.saving.register_keras_serializable(package)
class _Random(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs))


@keras.saving.register_keras_serializable(package)
def registered(x):
    return tf.nn.relu(x) * 2


def unregistered(x):
    return tf.nn.relu(x) * 2


def adapted():
    """Makes a layer that computes with more than its weights."""
    normalization = keras.layers.Normalization()
    normalization.adapt(np.float32(np.arange(24).reshape(4, 6)))
    return normalization


class _Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return tf.ones(shape, dtype or "float32")


def model_with(*encoder):
    """Makes a model of vectors whose encoder has these layers."""
    keras.utils.set_random_seed(0)
    return VHE(
        [
            Latent.vector(
                "character", 3, encoder=keras.Sequential(encoder), units=8
            )
        ],
        layers.DenseLikelihood((6,), "normal", units=(8,)),
        event_shape=(6,),
    )


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: keras.layers.Lambda(lambda x: x * 2), "Lambda"),
        (lambda: keras.layers.Lambda(unregistered), "Lambda"),
        (lambda: keras.layers.Dense(4, activation=unregistered), "Dense"),
        (lambda: keras.layers.Dense(4, activation=lambda x: x), "Dense"),
        (lambda: keras.layers.Dense(4, kernel_initializer=_Ones()), "Dense"),
        (lambda: keras.layers.Activation(unregistered), "Activation"),
        (lambda: _Scaled(), "_Scaled"),
    ],
)
def test_what_cannot_be_loaded_is_named(layer, named):
    model = model_with(layer(), keras.layers.Dense(4))
    with pytest.raises(
        ValueError, match=f"The layer {named} cannot be saved .*register"
    ):
        _reloading.reloaded(model)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: _ForgetsAll(units=16), "`units` is 16, and 4 when loaded"),
        (lambda: _ForgetsAll(gain=3.0), "`gain` is 3.0, and 1.0 when loaded"),
        (lambda: _ForgetsHidden(3.0), "Received: .*_ForgetsHidden"),
    ],
)
def test_what_would_be_another_is_named(layer, named, tmp_path):
    model = model_with(layer())
    with pytest.raises(ValueError, match=named):
        _reloading.reloaded(model)
    with pytest.raises(ValueError, match=named):
        loading.save_model(model, tmp_path / "model.keras")


def test_a_layer_in_two_places_is_rejected():
    shared = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    model = VHE(
        [Latent.vector(name, 3, encoder=shared, units=8) for name in "ab"],
        layers.DenseLikelihood((6,), "normal", units=(8,)),
        event_shape=(6,),
    )
    with pytest.raises(ValueError, match=r"instead of .* in one place"):
        _reloading.reloaded(model)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: _Complete(16, 3.0),
        lambda: keras.layers.Dense(4, activation=registered),
        lambda: keras.layers.Dropout(0.5),
        lambda: _Random(),
        adapted,
    ],
)
def test_layers_of_all_kinds_can_be_saved(layer, tmp_path):
    model = model_with(layer(), keras.layers.Dense(4))
    loading.save_model(model, tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loading.load_model(tmp_path / "model.keras").get_weights()[0],
        model.get_weights()[0],
    )


def test_a_layer_that_is_seldom_random_is_accepted(monkeypatch):
    model = model_with(keras.layers.Dense(4))
    monkeypatch.setattr(_reloading, "_REPETITIONS", 3)

    def differ_in(*comparisons):
        found = iter([f"part {i}" if i else None for i in comparisons])
        monkeypatch.setattr(_reloading, "_differing", lambda *_: next(found))

    differ_in(1, 0, 0, 1)
    _reloading.reloaded(model)
    differ_in(1, 0, 0, 0)
    with pytest.raises(ValueError, match="part 1 is another when loaded"):
        _reloading.reloaded(model)


def test_no_comparison_ends_a_run_that_has_begun(monkeypatch, tmp_path):
    best = callbacks.BestModel(tmp_path / "best.keras")
    model = model_with(keras.layers.Dense(4))
    model.compile()
    best.set_model(model)
    best.on_train_begin()
    monkeypatch.setattr(
        _reloading,
        "_differing",
        lambda a, b: None if a is b else "the likelihood",
    )
    best.on_epoch_end(0, {"val_elbo": 1.0})
    assert loading.load_model(best.path).event_shape == (6,)


@pytest.mark.parametrize(
    "make", [lambda: tiny_vhe("hierarchical"), tiny_pixel_cnn_vhe]
)
def test_models_of_the_package_can_be_saved(make):
    _reloading.reloaded(make())
