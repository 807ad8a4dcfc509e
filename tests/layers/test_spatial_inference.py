import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import assert_distribution_shape
from tests.conftest import assert_equal_to_rounding
from tests.conftest import assert_survives_round_trip
from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.layers.pixel_cnn import GatedPixelCNN
from vhe_tf.layers.spatial_inference import PixelCNNPrior
from vhe_tf.layers.spatial_inference import PoseLikelihood
from vhe_tf.layers.spatial_inference import PosePosterior
from vhe_tf.layers.spatial_inference import StyledLikelihood
from vhe_tf.layers.spatial_inference import TemplatePosterior
from vhe_tf.layers.spatial_transformer import affine_transform

SCALES = [(4,), (4, 3, 5)]


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _binary(*shape):
    return tf.cast(_random(*shape) > 0.0, tf.float32)


def _with_random_weights(layer, *inputs, **named_inputs):
    """Randomises all weights, those that are zero at first too."""
    d = layer(*inputs, **named_inputs)
    d.log_prob(d.sample(seed=(1, 2)))
    layer.set_weights(
        [0.3 * _random(*w.shape, seed=i) for i, w in enumerate(layer.weights)]
    )
    return layer


def _template_posterior(filters=(4,), channels=2, **options):
    return TemplatePosterior(
        channels, filters, kernel_size=3, units=5, **options
    )


def _pose_posterior():
    return PosePosterior(keras.layers.Flatten(), 3)


def _pose_likelihood(image_shape=(5, 6, 1)):
    network = GatedPixelCNN(
        image_shape[-1], filters=3, num_blocks=1, first_kernel_size=3
    )
    return PoseLikelihood(network, image_shape, template="c", pose="z", units=5)


def _assert_every_weight_gets_a_gradient(layer, loss, count):
    with tf.GradientTape() as tape:
        value = loss()
    assert len(layer.trainable_variables) == len(layer.weights) == count
    gradients = tape.gradient(value, layer.trainable_variables)
    for weight, gradient in zip(
        layer.trainable_variables, gradients, strict=True
    ):
        assert gradient is not None, weight.path
        assert np.all(np.isfinite(gradient)), weight.path
        assert np.any(gradient), weight.path


# q(c; D) ---------------------------------------------------------------------


@pytest.mark.parametrize("filters", SCALES)
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (7, 5, 2), (2, 1, 1)])
@pytest.mark.parametrize("support_size", [1, 3])
def test_a_template_has_the_size_of_the_image(
    filters, image_shape, support_size
):
    layer = _template_posterior(filters)
    d = layer(_random(3, support_size, *image_shape))
    assert_distribution_shape(d, batch=[3], event=[*image_shape[:2], 2])


def test_the_published_sizes_are_the_default():
    layer = TemplatePosterior(2)
    layer(_random(1, 1, 28, 28, 1))
    assert [tuple(w.shape) for w in layer.weights if len(w.shape) == 4] == [
        (7, 7, 1, 8),
        (5, 5, 8, 10),
        (5, 5, 1, 10),
        (5, 5, 10, 4),
    ]


@pytest.mark.parametrize("filters", SCALES)
def test_a_blank_template_has_the_initial_scale(filters):
    blank = np.zeros((1, 2, 8, 8, 1), np.float32)
    d = _template_posterior(filters, initial_scale=0.2)(blank)
    np.testing.assert_array_equal(d.mean(), np.zeros((1, 8, 8, 2)))
    np.testing.assert_allclose(
        d.stddev(), np.full((1, 8, 8, 2), 0.2), rtol=1e-5
    )


@pytest.mark.parametrize("initial_scale", [0.001, 0.0, -1.0, float("nan")])
def test_an_initial_scale_must_be_one_that_the_posterior_can_have(
    initial_scale,
):
    with pytest.raises(ValueError, match=r"must be above 0\.001\. Received"):
        _template_posterior(initial_scale=initial_scale)


@pytest.mark.parametrize("filters", SCALES)
def test_a_template_ignores_the_order_of_the_support(filters):
    support = _random(3, 4, 7, 6, 1)
    layer = _with_random_weights(_template_posterior(filters), support)
    d = layer(support)
    other = layer(tf.gather(support, [2, 0, 3, 1], axis=1))
    np.testing.assert_allclose(d.mean(), other.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d.stddev(), other.stddev(), rtol=1e-4)


@pytest.mark.parametrize("filters", SCALES)
def test_a_support_repeated_is_the_same_evidence(filters):
    support = _random(3, 2, 7, 6, 1)
    layer = _with_random_weights(_template_posterior(filters), support)
    np.testing.assert_allclose(
        layer(support).mean(),
        layer(tf.concat([support, support], axis=1)).mean(),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("filters", SCALES)
def test_a_template_sees_every_image_of_its_group_and_no_other(filters):
    support = _random(3, 2, 7, 6, 1)
    layer = _with_random_weights(_template_posterior(filters), support)
    for group in range(3):
        with tf.GradientTape() as tape:
            tape.watch(support)
            d = layer(support)
            loss = tf.reduce_sum(d.mean()[group] + d.stddev()[group])
        gradient = np.abs(tape.gradient(loss, support)).sum(axis=(2, 3, 4))
        expected = np.zeros([3, 2], bool)
        expected[group] = True
        np.testing.assert_array_equal(gradient > 0.0, expected)


def test_each_image_is_first_brought_into_a_pose():
    support = _random(2, 3, 8, 8, 1)
    layer = _with_random_weights(_template_posterior(), support)
    layer.pose.offset.set_weights([np.zeros([5, 6]), np.full([6], 0.3)])
    images = tf.reshape(support, [6, 8, 8, 1])
    theta = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]) + np.tanh(0.3)
    moved = affine_transform(
        images, tf.constant(np.tile(theta, [6, 1]), tf.float32)
    )
    expected = layer(support).mean()
    layer.pose.offset.set_weights([np.zeros([5, 6]), np.zeros([6])])
    np.testing.assert_allclose(
        layer(tf.reshape(moved, support.shape)).mean(), expected, atol=1e-4
    )
    assert not np.allclose(layer(support).mean(), expected, atol=1e-2)


def test_one_scale_is_the_average_of_convolved_images():
    support = _random(2, 3, 6, 5, 1)
    layer = _with_random_weights(_template_posterior(), support)
    layer.pose.offset.set_weights([np.zeros([5, 6]), np.zeros([6])])
    ((encode,),) = layer.down
    images = tf.reshape(support, [6, 6, 5, 1])
    features = tf.nn.conv2d(images, encode.kernel, 1, "SAME") + encode.bias
    features = np.where(features > 0.0, features, np.expm1(features))
    features = features.reshape(2, 3, 6, 5, 4).mean(axis=1)
    head = layer.parameters
    parameters = tf.nn.conv2d(features, head.kernel, 1, "SAME") + head.bias
    loc, raw = np.split(np.float64(parameters), 2, axis=-1)
    d = layer(support)
    np.testing.assert_allclose(d.mean(), loc, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        d.stddev(), np.log1p(np.exp(raw)) + 1e-3, rtol=1e-3
    )


def test_the_finer_scales_do_not_pass_through_the_coarser_ones():
    support = _random(1, 2, 8, 8, 1)
    layer = _with_random_weights(_template_posterior((4, 3, 5)), support)
    for project, _ in layer.up:
        project.set_weights([np.zeros(w.shape) for w in project.weights])
    with tf.GradientTape() as tape:
        tape.watch(support)
        loss = tf.reduce_sum(layer(support).mean() ** 2)
    assert np.any(tape.gradient(loss, support))


@pytest.mark.parametrize(("filters", "count"), [((4,), 12), ((4, 3, 5), 28)])
def test_every_weight_of_a_template_posterior_gets_a_gradient(filters, count):
    support = _random(3, 2, 8, 8, 1)
    layer = _with_random_weights(_template_posterior(filters), support)
    for bias in layer.localisation.weights[1::2]:
        bias.assign(tf.ones_like(bias))  # no ReLU is dead

    def loss():
        d = layer(support)
        return tf.reduce_sum(d.mean() ** 2 + d.stddev())

    _assert_every_weight_gets_a_gradient(layer, loss, count)


@pytest.mark.parametrize("filters", SCALES)
def test_a_compiled_template_equals_the_eager_one(filters):
    support = _random(3, 2, 7, 6, 1)
    layer = _with_random_weights(_template_posterior(filters), support)
    compiled = tf.function(lambda x: layer(x).mean(), jit_compile=True)
    np.testing.assert_allclose(
        compiled(support), layer(support).mean(), rtol=1e-3, atol=1e-4
    )


# p(c) ------------------------------------------------------------------------


def test_a_pixel_cnn_prior_ignores_its_parents():
    layer = PixelCNNPrior((5, 4, 2), filters=3, num_blocks=1)
    d = layer(_random(2, 3, 7))
    assert isinstance(d, PixelCNN)
    assert_distribution_shape(d, batch=[], event=[5, 4, 2])
    assert d.log_prob(_random(2, 3, 5, 4, 2)).shape == (2, 3)


def test_every_weight_of_a_pixel_cnn_prior_gets_a_gradient():
    layer = PixelCNNPrior((5, 4, 2), filters=3, num_blocks=2)
    templates = _random(2, 3, 5, 4, 2)
    _with_random_weights(layer)
    _assert_every_weight_gets_a_gradient(
        # All but the convolution of a conditioning, which it has not.
        layer,
        lambda: layer().log_prob(templates),
        4 + 2 * 6 + 4,
    )


# q(z; x, c) ------------------------------------------------------------------


def test_a_pose_posterior_has_the_leading_axes_of_its_templates():
    layer = _pose_posterior()
    query = _random(3, 6, 5, 1)
    a, b = _random(4, 2, 3, 6, 5, 2), _random(4, 2, 3, 6, 5, 1, seed=1)
    d = layer(query, a, b)
    assert_distribution_shape(d, batch=[4, 2, 3], event=[3])
    alone = layer(query, a[2, 1], b[2, 1])
    assert_distribution_shape(alone, batch=[3], event=[3])
    np.testing.assert_allclose(
        d.mean()[2, 1], alone.mean(), rtol=1e-4, atol=1e-5
    )


def test_a_pose_depends_on_the_query_and_on_each_template():
    layer = _pose_posterior()
    images = [_random(3, 6, 5, 1), _random(3, 6, 5, 2), _random(3, 6, 5, 1)]
    loc = layer(*images).mean()
    for i in range(3):
        changed = [v + 1.0 if i == j else v for j, v in enumerate(images)]
        assert not np.allclose(layer(*changed).mean(), loc)


def test_a_pose_posterior_without_templates_sees_the_query_alone():
    layer = _pose_posterior()
    query = _random(3, 6, 5, 1)
    d = layer(query)
    assert isinstance(d, tfd.MultivariateNormalDiag)
    assert_distribution_shape(d, batch=[3], event=[3])
    assert layer.head.parameters.kernel.shape == (6 * 5, 2 * 3)


# p(x | c, z) -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_shape", "leading"), [((5, 6, 1), (3,)), ((3, 2, 2), (2, 4, 3))]
)
def test_a_pose_likelihood_has_the_leading_axes_of_its_latents(
    image_shape, leading
):
    layer = _pose_likelihood(image_shape)
    c, z = _random(*leading, *image_shape[:2], 2), _random(*leading, 3)
    d = layer(c=c, z=z)
    assert_distribution_shape(d, batch=leading, event=image_shape)
    assert d.log_prob(_binary(3, *image_shape)).shape == leading


def test_sample_axes_equal_one_call_a_sample():
    c, z = _random(4, 3, 5, 6, 2), _random(4, 3, 2)
    layer = _with_random_weights(_pose_likelihood(), c=c, z=z)
    query = _binary(3, 5, 6, 1)
    log_probs = layer(c=c, z=z).log_prob(query)
    for s in range(4):
        np.testing.assert_allclose(
            layer(c=c[s], z=z[s]).log_prob(query), log_probs[s], rtol=1e-4
        )


def test_the_pose_says_where_the_template_appears():
    c, z = _random(3, 5, 6, 2), _random(3, 2)
    layer = _with_random_weights(_pose_likelihood(), c=c, z=z)
    theta = layer.affine_map(z)
    np.testing.assert_array_equal(
        layer(c=c, z=z).conditioning, affine_transform(c, theta)
    )
    assert not np.allclose(layer(c=c, z=z).conditioning, c)
    assert np.std(theta, axis=0).max() > 0.0


def test_gradients_of_a_likelihood_reach_every_weight_and_latent():
    c, z = _random(4, 3, 5, 6, 2), _random(4, 3, 2)
    layer = _with_random_weights(_pose_likelihood(), c=c, z=z)
    query = _binary(3, 5, 6, 1)
    _assert_every_weight_gets_a_gradient(
        layer, lambda: layer(c=c, z=z).log_prob(query), 4 + 4 + 7 + 4
    )
    with tf.GradientTape() as tape:
        tape.watch([c, z])
        log_probs = layer(c=c, z=z).log_prob(query)
    for gradient in tape.gradient(log_probs, [c, z]):
        assert np.all(np.isfinite(gradient))
        axes = tuple(range(2, gradient.shape.rank))
        assert np.all(np.any(gradient, axis=axes))


# p(x | STN(c, z), s) ----------------------------------------------------------


def _styled_likelihood(image_shape=(4, 5, 3)):
    pixels = DiscretizedLogisticPixels(2)
    network = GatedPixelCNN(
        pixels.num_parameters(image_shape[-1]),
        filters=3,
        num_blocks=1,
        first_kernel_size=3,
    )
    return StyledLikelihood(
        network,
        image_shape,
        template="c",
        pose="z",
        style="s",
        num_levels=256,
        num_components=2,
    )


def _styled_latents(*leading, image_size=(4, 5)):
    return {
        "c": _random(*leading, *image_size, 2),
        "z": _random(*leading, 2),
        "s": _random(*leading, 6),
    }


def _levels(*shape):
    rng = np.random.default_rng(1)
    return tf.constant(rng.integers(0, 256, shape) / 255.0, tf.float32)


@pytest.mark.parametrize(
    ("image_shape", "leading"), [((4, 5, 3), (3,)), ((3, 2, 1), (2, 4, 3))]
)
def test_a_styled_likelihood_has_the_leading_axes_of_its_latents(
    image_shape, leading
):
    layer = _styled_likelihood(image_shape)
    d = layer(**_styled_latents(*leading, image_size=image_shape[:2]))
    assert_distribution_shape(d, batch=leading, event=image_shape)
    assert d.log_prob(_levels(3, *image_shape)).shape == leading


def test_a_style_multiplies_the_template_in_its_pose():
    leading = (2, 3)
    latents = _styled_latents(*leading)
    layer = _with_random_weights(_styled_likelihood(), **latents)
    theta = layer.affine_map(latents["z"])
    c, s = affine_transform(latents["c"], theta), latents["s"]
    assert not np.allclose(c, latents["c"])
    one = np.ones_like(c[..., :1]), np.ones_like(s[..., :1])
    product = np.einsum(
        "...hwl,...s->...hwls",
        np.concatenate([c, one[0]], axis=-1),
        np.concatenate([s, one[1]], axis=-1),
    )
    # All but 1 times 1.
    expected = product.reshape(*leading, 4, 5, 21)[..., :-1]
    assert_equal_to_rounding(layer(**latents).conditioning, expected)


def test_a_styled_image_is_a_pixel_cnn_given_the_product():
    latents = _styled_latents(2, 3)
    layer = _with_random_weights(_styled_likelihood(), **latents)
    query = _levels(3, 4, 5, 3)
    log_probs = layer(**latents).log_prob(query)
    theta = layer.affine_map(latents["z"])
    c, s = affine_transform(latents["c"], theta).numpy(), latents["s"]
    for i, j in np.ndindex(2, 3):
        template = np.insert(c[i, j], 2, 1.0, axis=-1)[..., np.newaxis]
        product = (template * np.append(s[i, j], 1.0)).reshape(1, 4, 5, 21)
        alone = PixelCNN(
            layer.network,
            DiscretizedLogisticPixels(2),
            (4, 5, 3),
            conditioning=tf.constant(product[..., :-1], tf.float32),
        )
        np.testing.assert_allclose(
            log_probs[i, j], alone.log_prob(query[j])[0], rtol=1e-5
        )
    # All matter.
    for name in latents:
        other = layer(**{**latents, name: -latents[name]}).log_prob(query)
        assert np.abs(other - log_probs).max() > 0.01, name


def test_template_pose_and_style_are_found_by_their_names():
    latents = _styled_latents(3)
    layer = _styled_likelihood()
    reordered = dict(reversed(latents.items()))
    np.testing.assert_array_equal(
        layer(**reordered, other=-latents["s"]).conditioning,
        layer(**latents).conditioning,
    )
    with pytest.raises(KeyError, match="c"):
        layer(character=latents["c"], z=latents["z"], s=latents["s"])


def test_gradients_of_a_styled_likelihood_reach_every_weight_and_latent():
    latents = _styled_latents(4, 3)
    layer = _with_random_weights(_styled_likelihood(), **latents)
    query = _levels(3, 4, 5, 3)
    _assert_every_weight_gets_a_gradient(
        layer, lambda: layer(**latents).log_prob(query), 4 + 4 + 7 + 4
    )
    with tf.GradientTape() as tape:
        tape.watch(latents)
        log_probs = layer(**latents).log_prob(query)
    for gradient in tape.gradient(log_probs, latents).values():
        assert np.all(np.isfinite(gradient))
        axes = tuple(range(2, gradient.shape.rank))
        assert np.all(np.any(gradient, axis=axes))


# Configuration ---------------------------------------------------------------


def test_spatial_layers_survive_a_round_trip():
    support = _random(3, 2, 7, 6, 1)
    for filters in SCALES:
        assert_survives_round_trip(
            _template_posterior(filters, initial_scale=0.3), support
        )
    assert_survives_round_trip(PixelCNNPrior((3, 4, 2), 3, 1))
    query, template = _random(3, 5, 6, 1), _random(4, 3, 5, 6, 2)
    assert_survives_round_trip(_pose_posterior(), query, template)
    assert_survives_round_trip(
        _pose_likelihood(), c=template, z=_random(4, 3, 2)
    )
    assert_survives_round_trip(
        _styled_likelihood((5, 6, 3)),
        c=template,
        z=_random(4, 3, 2),
        s=_random(4, 3, 2),
    )


def test_distributions_are_float32_under_mixed_float16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        template = _random(3, 5, 6, 2)
        posterior = _template_posterior((4, 3))(_random(3, 2, 5, 6, 1))
        assert_distribution_shape(posterior, batch=[3], event=[5, 6, 2])
        pose = _pose_posterior()(_random(3, 5, 6, 1), template)
        assert_distribution_shape(pose, batch=[3], event=[3])
        prior = PixelCNNPrior((3, 4, 2), 3, 1)()
        assert_distribution_shape(prior, batch=[], event=[3, 4, 2])
        likelihood = _pose_likelihood()(c=template, z=_random(3, 2))
        assert_distribution_shape(likelihood, batch=[3], event=[5, 6, 1])
        styled = _styled_likelihood((5, 6, 3))(
            c=template, z=_random(3, 2), s=_random(3, 2)
        )
        assert_distribution_shape(styled, batch=[3], event=[5, 6, 3])
    finally:
        keras.config.set_dtype_policy(policy)
