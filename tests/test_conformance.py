import inspect

import keras
import pytest

import vhe_tf
from tests.conftest import tiny_sizes
from vhe_tf import distributions
from vhe_tf import layers
from vhe_tf import optimizers


def _registered():
    """Returns the classes of the package that Keras can revive, by name."""
    return {
        value.__name__: value
        for value in keras.saving.get_custom_objects().values()
        if value.__module__.startswith("vhe_tf.")
    }


def _arguments(cls):
    """Returns the names of all constructor arguments but `*` and `**`."""
    return [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


@pytest.fixture(scope="module")
def instances():
    """One object of every registered class, by the name of its class."""
    with tiny_sizes():
        models = [
            vhe_tf.deconvolutional_vhe("small", num_levels=256),
            vhe_tf.alphabet_vhe("small"),
            vhe_tf.pixel_cnn_vhe("small", num_levels=8, high_bits=1),
            vhe_tf.pixel_cnn_vhe("published"),
            vhe_tf.style_vhe("small"),
        ]
    made = [
        *models,
        optimizers.AveragingAdam(),
        layers.DenseLikelihood((1,)),
        layers.GaussianMixturePrior(2, num_components=2),
        layers.LowRankGaussianPrior((4, 4, 2), rank=2),
        layers.Pointwise(1),
    ]
    for model in models:
        made += model._flatten_layers()
    return {type(instance).__name__: instance for instance in made}


def test_every_exported_layer_is_registered():
    exported = set(layers.__all__) - {"BaseLayer"}
    assert exported | {"AveragingAdam", "Latent", "VHE"} == set(_registered())


@pytest.mark.parametrize("name", sorted(_registered()))
def test_constructor_arguments_are_attributes_and_configuration(
    instances, name
):
    instance = instances[name]
    for argument in _arguments(type(instance)):
        assert hasattr(instance, argument)
        assert argument in instance.get_config()


def test_distributions_have_their_constructor_arguments():
    distribution = distributions.PixelCNN(
        layers.GatedPixelCNN(1, filters=2, num_blocks=1),
        distributions.BernoulliPixels(),
        (4, 4, 1),
        temperature=0.5,
    )
    for argument in _arguments(distributions.PixelCNN):
        assert hasattr(distribution, argument)
    assert distribution.image_shape == (4, 4, 1)
