import dataclasses
import gc

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conftest import assert_distribution_shape
from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.divergences import kl_from_sample
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import NormalPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.distributions.pixel_cnn import guided
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

MIN_SCALE = 1e-3


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _network(num_parameters=1, *, channels=1, conditioned=None):
    """Makes a built network all of whose weights, biases too, are random."""
    network = GatedPixelCNN(
        num_parameters, filters=4, num_blocks=2, first_kernel_size=3
    )
    network.build(
        (None, None, None, channels),
        conditioned and (None, None, None, conditioned),
    )
    network.set_weights(
        [0.5 * _random(*w.shape, seed=i) for i, w in enumerate(network.weights)]
    )
    return network


def _bernoulli(image_shape=(2, 2, 1), *batch, conditioned=None, **named):
    """Makes a distribution over binary images."""
    channels = image_shape[-1]
    network = _network(channels, channels=channels, conditioned=conditioned)
    conditioning = conditioned and 2.0 * _random(
        *batch, *image_shape[:2], conditioned, seed=9
    )
    return PixelCNN(
        network, BernoulliPixels(), image_shape, conditioning, **named
    )


def _binary_images(height, width):
    """Returns every binary image, `[2 ** (H W), H, W, 1]`."""
    size = height * width
    images = np.indices((2,) * size).reshape(size, -1).T
    return images.reshape(-1, height, width, 1).astype(np.float32)


# Binary pixels ---------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_probabilities_of_all_3x3_images_sum_to_one(temperature):
    d = _bernoulli((3, 3, 1), 4, conditioned=2, temperature=temperature)
    log_probs = d.log_prob(_binary_images(3, 3)[:, tf.newaxis])
    assert log_probs.shape == (512, 4)
    np.testing.assert_allclose(
        np.exp(np.float64(log_probs)).sum(axis=0), np.ones(4), rtol=1e-5
    )
    # And they differ between conditionings.
    assert np.all(np.std(log_probs, axis=1) > 1e-3)


def test_probabilities_without_conditioning_sum_to_one():
    d = _bernoulli((3, 3, 1))
    log_probs = np.float64(d.log_prob(_binary_images(3, 3)))
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-5)


def test_probabilities_of_all_images_of_two_channels_sum_to_one():
    d = _bernoulli((2, 2, 2))
    images = _binary_images(4, 2).reshape(-1, 2, 2, 2)
    log_probs = np.float64(d.log_prob(images))
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_of_draws_match_the_probabilities(temperature):
    d = _bernoulli((2, 2, 1), temperature=temperature)
    num_samples = 10_000
    draws = d.sample(num_samples, seed=(1, 2))
    assert draws.shape == (num_samples, 2, 2, 1)
    index = np.reshape(draws, [num_samples, 4]) @ [8, 4, 2, 1]
    counts = np.bincount(index.astype(int), minlength=16)
    expected = num_samples * np.exp(
        np.float64(d.log_prob(_binary_images(2, 2)))
    )
    assert np.all(expected > 5.0)
    test = scipy.stats.chisquare(
        counts, expected * num_samples / expected.sum()
    )
    assert test.pvalue > 1e-3  # the seed is fixed


def test_a_lower_temperature_lowers_the_entropy():
    entropies = []
    for temperature in (0.25, 0.5, 1.0, 2.0):
        d = _bernoulli(temperature=temperature)
        log_probs = np.float64(d.log_prob(_binary_images(2, 2)))
        entropies.append(-np.sum(np.exp(log_probs) * log_probs))
    assert entropies == sorted(entropies)
    assert entropies[-1] - entropies[0] > 0.4


def test_a_temperature_is_a_power_of_each_conditional():
    images = _binary_images(2, 2)
    joint = np.exp(np.float64(_bernoulli().log_prob(images))).reshape([2] * 4)
    for temperature in (0.5, 3.0):
        expected = 1.0
        for i in range(4):
            marginal = joint.sum(axis=tuple(range(i + 1, 4)), keepdims=True)
            conditional = marginal / marginal.sum(axis=i, keepdims=True)
            power = conditional ** (1.0 / temperature)
            expected = expected * power / power.sum(axis=i, keepdims=True)
        d = _bernoulli(temperature=temperature)
        np.testing.assert_allclose(
            np.exp(d.log_prob(images)), expected.ravel(), rtol=1e-4
        )


def test_binary_pixels_equal_scipy():
    pixels, temperature = BernoulliPixels(), tf.constant(0.7)
    logits = 3.0 * _random(5, 4, 3, 2)
    images = np.random.default_rng(1).integers(0, 2, logits.shape)
    probability = scipy.special.expit(np.float64(logits) / 0.7)
    np.testing.assert_allclose(
        pixels.log_prob(
            logits, tf.cast(images, tf.float32), temperature=temperature
        ),
        scipy.stats.bernoulli.logpmf(images, probability),
        rtol=1e-4,
    )
    noise = pixels.noise(logits.shape, tf.constant([[1, 2]]))[0]
    np.testing.assert_array_equal(
        pixels.transform(logits, noise, temperature=temperature),
        noise < probability,
    )


# Gaussian pixels -------------------------------------------------------------


def _normal(image_shape, *batch, conditioned=None, **named):
    """Makes a distribution over images of Gaussian pixels."""
    channels = image_shape[-1]
    network = _network(2 * channels, channels=channels, conditioned=conditioned)
    conditioning = conditioned and _random(
        *batch, *image_shape[:2], conditioned, seed=9
    )
    return PixelCNN(network, NormalPixels(), image_shape, conditioning, **named)


def _loc_and_scale(parameters, temperature=1.0):
    loc, raw = np.split(np.float64(parameters), 2, axis=-1)
    scale = np.log1p(np.exp(raw)) + MIN_SCALE
    return loc, scale * np.sqrt(temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_density_equals_scipy_along_the_chain(temperature):
    d = _normal((3, 4, 2), 5, conditioned=3, temperature=temperature)
    images = np.array(_random(5, 3, 4, 2, seed=1))
    expected = np.zeros(5)
    for i, j in np.ndindex(3, 4):
        known = images.copy()
        known[:, i, j:] = np.nan  # what comes later is not even looked at
        known[:, i + 1 :] = np.nan
        known = np.where(np.isnan(known), 99.0, known)
        parameters = d.network(known, d.conditioning)[:, i, j]
        loc, scale = _loc_and_scale(parameters, temperature)
        expected += scipy.stats.norm.logpdf(images[:, i, j], loc, scale).sum(-1)
    np.testing.assert_allclose(d.log_prob(images), expected, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_density_of_one_pixel_integrates_to_one(temperature):
    d = _normal((1, 1, 1), temperature=temperature)
    loc, scale = _loc_and_scale(
        d.network(np.zeros([1, 1, 1, 1], np.float32))[0, 0, 0], temperature
    )
    grid = np.linspace(loc[0] - 9.0 * scale[0], loc[0] + 9.0 * scale[0], 2001)
    density = np.exp(np.float64(d.log_prob(grid.reshape(-1, 1, 1, 1))))
    np.testing.assert_allclose(
        scipy.integrate.simpson(density, x=grid), 1.0, rtol=1e-5
    )


def test_gaussian_draws_follow_their_parameters():
    pixels, temperature = NormalPixels(), tf.constant(0.7)
    parameters = _random(5, 4, 3, 4)
    loc, scale = _loc_and_scale(parameters, 0.7)
    noise = pixels.noise(loc.shape, tf.constant([[1, 2]]))[0]
    np.testing.assert_allclose(
        pixels.transform(parameters, noise, temperature=temperature),
        loc + scale * np.float64(noise),
        rtol=1e-4,
        atol=1e-5,
    )
    # Kolmogorov-Smirnov, of 60_000 draws by a fixed seed.
    many = pixels.noise([1000, 4, 3, 5], tf.constant([[3, 4]]))[0]
    assert scipy.stats.kstest(np.ravel(many), "norm").pvalue > 1e-3


def test_a_gaussian_pixel_never_collapses_onto_a_point():
    log_prob = NormalPixels().log_prob(
        tf.constant([0.0, -1e4]),
        tf.constant([0.0]),
        temperature=tf.constant(1.0),
    )
    np.testing.assert_allclose(
        log_prob, [scipy.stats.norm.logpdf(0.0, 0.0, MIN_SCALE)], rtol=1e-5
    )


# A chain of Gaussian pixels of which all is known ----------------------------


@dataclasses.dataclass
class _LinearGaussian:
    """A gated PixelCNN whose rows are Gaussian chains, as a joint Gaussian."""

    taps: tuple[float, float] = (0.3, -0.6)  # of the second and first before
    shift: float = 0.4
    raw_scale: float = -0.2
    width: int = 4

    def distribution(self, height=2):
        """Returns the distribution, event shape `[height, width, 1]`."""
        network = GatedPixelCNN(2, filters=1, num_blocks=1, first_kernel_size=5)
        network.build((None, None, None, 1))
        network.set_weights([np.zeros(w.shape) for w in network.weights])
        # An elu is linear far above zero.
        far = 32.0
        network.first_left.kernel.assign(np.reshape(self.taps, [1, 2, 1, 1]))
        network.first_left.bias.assign([far])
        network.hidden.kernel.assign([[[[1.0]]]])
        network.parameters.kernel.assign([[[[1.0, 0.0]]]])
        network.parameters.bias.assign([self.shift - far, self.raw_scale])
        return PixelCNN(network, NormalPixels(), (height, self.width, 1))

    @property
    def scale(self):
        return np.log1p(np.exp(self.raw_scale)) + MIN_SCALE

    @property
    def unmix(self):
        """Returns I - A, where x = A x + shift + scale * noise."""
        second, first = self.taps
        return (
            np.eye(self.width)
            - first * np.eye(self.width, k=-1)
            - second * np.eye(self.width, k=-2)
        )

    @property
    def row(self):
        """Returns the mean and covariance of a row of pixels."""
        mix = np.linalg.inv(self.unmix)
        return mix @ np.full(
            self.width, self.shift
        ), self.scale**2 * mix @ mix.T


def _kl_of_gaussians(mean, covariance, other_mean, other_covariance):
    precision = np.linalg.inv(other_covariance)
    difference = other_mean - mean
    return 0.5 * (
        np.trace(precision @ covariance)
        + difference @ precision @ difference
        - len(mean)
        + np.linalg.slogdet(other_covariance)[1]
        - np.linalg.slogdet(covariance)[1]
    )


def test_the_density_of_a_linear_chain_is_that_of_the_joint_gaussian():
    chain = _LinearGaussian()
    images = 2.0 * _random(6, 2, 4, 1)
    rows = scipy.stats.multivariate_normal(*chain.row).logpdf(images[..., 0])
    np.testing.assert_allclose(
        chain.distribution().log_prob(images), rows.sum(axis=1), rtol=1e-4
    )


def test_draws_of_a_linear_chain_are_a_linear_map_of_the_noise():
    chain = _LinearGaussian()
    d = chain.distribution()
    noise = NormalPixels().noise([6, 2, 4, 1], tf.constant([[1, 2]]))[0]
    draws = d.network.generate(
        noise, None, pixels=NormalPixels(), temperature=tf.constant(1.0)
    )
    driven = chain.shift + chain.scale * np.float64(noise[..., 0])
    expected = driven @ np.linalg.inv(chain.unmix).T
    np.testing.assert_allclose(draws[..., 0], expected, rtol=1e-4, atol=1e-4)


def _assert_unbiased(posterior, prior, expected):
    """Checks the mean of one-sample estimates of a divergence."""
    estimates = kl_from_sample(
        posterior, prior, sample=posterior.sample(20_000, seed=(3, 4))
    )
    assert estimates.shape == (20_000, *posterior.batch_shape)
    error = np.std(estimates, axis=0) / np.sqrt(20_000)
    assert np.all(error < 0.02 * np.array(expected))
    # Four standard errors; the seed is fixed.
    difference = np.mean(estimates, axis=0) - expected
    assert np.all(np.abs(difference) < 4.0 * error)


def _posterior():
    """Returns a diagonal Gaussian, batch shape [2], event shape [2, 4, 1]."""
    return tfd.Independent(
        tfd.Normal(
            0.5 * _random(2, 2, 4, 1), tf.exp(0.3 * _random(2, 2, 4, 1, seed=1))
        ),
        reinterpreted_batch_ndims=3,
    )


def test_one_sample_kl_to_a_constant_pixel_cnn_is_unbiased():
    network = GatedPixelCNN(2, filters=1, num_blocks=1)
    network.build((None, None, None, 1))
    network.set_weights([np.zeros(w.shape) for w in network.weights])
    network.parameters.bias.assign([0.3, 0.8])
    posterior = _posterior()
    loc, scale = _loc_and_scale([0.3, 0.8])
    m, s = np.float64(posterior.mean()), np.float64(posterior.stddev())
    expected = np.sum(
        np.log(scale / s) + (s**2 + (m - loc) ** 2) / (2.0 * scale**2) - 0.5,
        axis=(1, 2, 3),
    )
    prior = PixelCNN(network, NormalPixels(), (2, 4, 1))
    _assert_unbiased(posterior, prior, expected)


def test_one_sample_kl_to_an_autoregressive_pixel_cnn_is_unbiased():
    chain, posterior = _LinearGaussian(), _posterior()
    expected = [
        sum(
            _kl_of_gaussians(m[:, 0], np.diag(s[:, 0] ** 2), *chain.row)
            for m, s in zip(mean, stddev, strict=True)
        )
        for mean, stddev in zip(
            np.float64(posterior.mean()),
            np.float64(posterior.stddev()),
            strict=True,
        )
    ]
    _assert_unbiased(posterior, chain.distribution(), expected)


# 8-bit pixels ----------------------------------------------------------------


def _discretized(image_shape, *batch, conditioned=None, **named):
    """Makes a distribution over images of 8-bit pixels."""
    channels = image_shape[-1]
    pixels = DiscretizedLogisticPixels(2)
    network = _network(
        pixels.num_parameters(channels),
        channels=channels,
        conditioned=conditioned,
    )
    conditioning = conditioned and _random(
        *batch, *image_shape[:2], conditioned, seed=9
    )
    return PixelCNN(network, pixels, image_shape, conditioning, **named)


def test_probabilities_of_all_images_of_two_8_bit_pixels_sum_to_one():
    d = _discretized((1, 2, 1))
    levels = np.indices([256, 256]).reshape(2, -1).T
    images = tf.constant(levels.reshape(-1, 1, 2, 1) / 255.0, tf.float32)
    joint = np.exp(np.float64(d.log_prob(images))).reshape(256, 256)
    np.testing.assert_allclose(joint.sum(), 1.0, rtol=1e-5)
    # And the second pixel depends on the first.
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    assert np.abs(joint - independent).sum() > 0.01


# Shapes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "batch"),
    [(_bernoulli, ()), (_discretized, (3,)), (_normal, (2, 3))],
)
def test_the_batch_is_that_of_the_conditioning(make, batch):
    d = make((2, 3, 2), *batch, conditioned=2)
    assert_distribution_shape(d, batch=batch, event=(2, 3, 2))
    draws = d.sample(5, seed=(1, 2))
    assert draws.shape == (5, *batch, 2, 3, 2)
    assert d.log_prob(draws).shape == (5, *batch)


def test_without_conditioning_there_is_no_batch():
    d = _bernoulli((2, 3, 2))
    assert_distribution_shape(d, batch=(), event=(2, 3, 2))
    draws = d.sample((4, 5), seed=(1, 2))
    assert draws.shape == (4, 5, 2, 3, 2)
    log_probs = d.log_prob(draws)
    assert log_probs.shape == (4, 5)
    np.testing.assert_allclose(
        log_probs[1, 2], d.log_prob(draws[1, 2]), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("images", "conditioning", "result"),
    [
        ((3,), (4, 3), (4, 3)),
        ((4, 3), (3,), (4, 3)),
        ((), (2,), (2,)),
        ((4, 1), (3,), (4, 3)),
        ((5, 1, 3), (4, 3), (5, 4, 3)),
    ],
)
def test_a_broadcast_density_equals_one_call_a_pair(
    images, conditioning, result
):
    d = _normal((2, 3, 1), *conditioning, conditioned=2)
    values = _random(*images, 2, 3, 1, seed=1)
    log_probs = d.log_prob(values)
    assert log_probs.shape == result
    values = np.broadcast_to(values, (*result, 2, 3, 1))
    conditionings = np.broadcast_to(d.conditioning, (*result, 2, 3, 2))
    for index in np.ndindex(*result):
        alone = d.copy(conditioning=tf.constant(conditionings[index]))
        np.testing.assert_allclose(
            log_probs[index], alone.log_prob(values[index]), rtol=1e-4
        )


def test_a_draw_belongs_to_the_conditioning_of_its_place():
    network = GatedPixelCNN(1, filters=2, num_blocks=1)
    network.build((None, None, None, 1), (None, None, None, 1))
    network.set_weights([np.zeros(w.shape) for w in network.weights])
    # The sign of the conditioning decides every pixel.
    (block,) = network.blocks
    block.condition.kernel.assign([[[[9.0, 9.0, 0.0, 0.0]]]])
    block.across.kernel.assign(np.reshape(np.eye(4), [1, 1, 4, 4]))
    block.residual.kernel.assign(np.reshape(np.eye(2), [1, 1, 2, 2]))
    network.hidden.kernel.assign(np.reshape(np.eye(2), [1, 1, 2, 2]))
    network.parameters.kernel.assign(np.full([1, 1, 2, 1], 200.0))
    signs = np.array([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]], np.float32)
    conditioning = np.tile(signs[..., None, None, None], [1, 1, 2, 2, 1])
    d = PixelCNN(network, BernoulliPixels(), (2, 2, 1), conditioning)
    np.testing.assert_array_equal(
        d.sample(4, seed=(1, 2)),
        np.tile(conditioning > 0.0, [4, 1, 1, 1, 1, 1]),
    )


@pytest.mark.parametrize("leading", [(2,), (3, 2)])
def test_given_noise_decides_each_image_by_its_own_conditioning(leading):
    d = _normal((2, 3, 1), 2, conditioned=2)
    noise = _random(*leading, 2, 3, 1)
    draws = d.sample_from(noise)
    assert draws.shape == noise.shape
    for index in np.ndindex(*leading):
        alone = d.copy(conditioning=d.conditioning[index[-1]])
        np.testing.assert_allclose(
            alone.sample_from(noise[index]), draws[index], rtol=1e-4, atol=1e-5
        )


# Seeds, copies, compilation --------------------------------------------------


def test_a_draw_is_a_function_of_the_seed():
    d = _normal((2, 3, 1), 3, conditioned=2)
    draws = d.sample(2, seed=(1, 2))
    np.testing.assert_array_equal(d.sample(2, seed=(1, 2)), draws)
    np.testing.assert_array_equal(d.sample(2, seed=tf.constant([1, 2])), draws)
    assert not np.allclose(d.sample(2, seed=(1, 3)), draws)
    assert not np.allclose(draws[0], draws[1])


def test_a_copy_keeps_all_but_what_it_changes():
    d = _bernoulli((2, 3, 1), 3, conditioned=2)
    copy = d.copy(temperature=0.5)
    assert copy.temperature == 0.5
    assert d.temperature == 1.0
    assert copy.network is d.network
    assert copy.conditioning is d.conditioning
    assert_distribution_shape(copy, batch=[3], event=[2, 3, 1])
    image = tf.zeros([2, 3, 1])
    np.testing.assert_allclose(
        copy.log_prob(image),
        _bernoulli((2, 3, 1), 3, conditioned=2, temperature=0.5).log_prob(
            image
        ),
        rtol=1e-6,
    )
    assert not np.allclose(copy.log_prob(image), d.log_prob(image))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("make", [_bernoulli, _normal, _discretized])
def test_a_compiled_density_equals_the_eager_one(make, jit_compile):
    d = make((2, 3, 2), 3, conditioned=2)
    images = tf.cast(_random(4, 3, 2, 3, 2) > 0.0, tf.float32)
    compiled = tf.function(
        lambda x, c: d.copy(conditioning=c).log_prob(x),
        jit_compile=jit_compile,
    )
    np.testing.assert_allclose(
        compiled(images, d.conditioning), d.log_prob(images), rtol=1e-4
    )


def test_draws_compiled_by_xla_are_draws():
    d = _bernoulli((2, 2, 1), 3, conditioned=2)
    compiled = tf.function(
        lambda seed: d.sample(4, seed=seed), jit_compile=True
    )
    draws = compiled(tf.constant([1, 2]))
    assert draws.shape == (4, 3, 2, 2, 1)
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_array_equal(compiled(tf.constant([1, 2])), draws)
    assert not np.array_equal(compiled(tf.constant([1, 3])), draws)


def test_a_graph_of_any_batch_has_draws_and_densities():
    network = _network(conditioned=2)

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 3, 2])])
    def draw_and_score(conditioning):
        d = PixelCNN(network, BernoulliPixels(), (2, 3, 1), conditioning)
        draws = d.sample(2, seed=(1, 2))
        return draws, d.log_prob(draws)

    for batch in (1, 4):
        draws, log_probs = draw_and_score(_random(batch, 2, 3, 2))
        assert draws.shape == (2, batch, 2, 3, 1)
        assert log_probs.shape == (2, batch)


def test_the_gradient_of_a_density_reaches_weights_and_conditioning():
    d = _normal((2, 3, 1), 3, conditioned=2)
    images = _random(3, 2, 3, 1)
    with tf.GradientTape() as tape:
        tape.watch([images, d.conditioning])
        log_probs = d.log_prob(images)
    sources = [*d.network.trainable_variables, images, d.conditioning]
    for gradient in tape.gradient(log_probs, sources):
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient)


# Guidance --------------------------------------------------------------------


def _guided(guidance, *, image_shape=(2, 2, 1), batch=3):
    """Makes a distribution, two contrasts of it, and the guided one."""
    plain = _bernoulli(image_shape, batch, conditioned=2)
    conditioning = 2.0 * _random(2, batch, *image_shape[:2], 2, seed=17)
    contrast = plain.copy(conditioning=conditioning)
    return plain, contrast, guided(plain, contrast, guidance=guidance)


def test_no_guidance_is_the_distribution_itself():
    plain, _, same = _guided(0.0)
    assert same is plain


def test_guided_probabilities_equal_those_of_a_naive_computation():
    plain, contrast, d = _guided(0.7)
    images = _binary_images(2, 2)

    def logits(conditioning):  # [16, H, W, C], of each row
        conditioning = tf.repeat(conditioning[tf.newaxis], len(images), axis=0)
        return np.float64(plain.network(images, conditioning))

    for row in range(3):
        own = logits(plain.conditioning[row])
        mean = np.mean(
            [
                scipy.special.expit(logits(contrast.conditioning[k, row]))
                for k in range(2)
            ],
            axis=0,
        )
        probability = scipy.special.expit(
            1.7 * own - 0.7 * scipy.special.logit(mean)
        )
        expected = np.where(images > 0, probability, 1.0 - probability)
        np.testing.assert_allclose(
            d.log_prob(images[:, tf.newaxis])[:, row],
            np.log(expected).sum(axis=(1, 2, 3)),
            rtol=1e-4,
        )


def test_guided_draws_follow_the_guided_probabilities():
    _, _, d = _guided(1.5, image_shape=(1, 3, 1), batch=2)
    images = _binary_images(1, 3)
    expected = np.exp(np.float64(d.log_prob(images[:, tf.newaxis])))  # [8, 2]
    drawn = d.sample(4000, seed=(3, 4)).numpy().reshape(4000, 2, 3)
    index = drawn @ np.array([4, 2, 1])
    for row in range(2):
        counts = np.bincount(index[:, row].astype(int), minlength=8)
        shares = expected[:, row] / expected[:, row].sum()
        _, p_value = scipy.stats.chisquare(counts, 4000 * shares)
        assert p_value > 1e-6


def test_a_network_is_traced_once_for_each_guidance():
    plain, contrast, _ = _guided(0.7)
    for seed in range(2):
        guided(plain, contrast, guidance=0.7).sample(seed=(0, seed))
        gc.collect()
    compiled = plain.network._compiled_generate
    assert compiled.experimental_get_tracing_count() == 1


def test_guidance_is_for_binary_pixel_cnns():
    d = _normal((2, 2, 1), 3, conditioned=2)
    with pytest.raises(ValueError, match=r"Received: guidance=0\.5"):
        guided(d, d, guidance=0.5)
    with pytest.raises(ValueError, match=r"Received: guidance=-1\.0"):
        _guided(-1.0)
