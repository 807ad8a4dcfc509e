import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.discretized import bits_per_dimension
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import NormalPixels
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

ONE = tf.constant(1.0)
JUST_BELOW_ONE = np.nextafter(np.float32(1.0), np.float32(0.0))

# Parameters of a component of one channel: logit, location, log-scale.
EXTREMES = [
    (logit, loc, log_scale)
    for logit in (-50.0, 0.0, 50.0)
    for loc in (-1e4, -1.0, 0.0, 0.3, 1.0, 1e4)
    for log_scale in (-1e4, -7.0, 0.0, 7.0, 1e4)
]


def _random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), tf.float32)


def _images(*shape, seed=0):
    """Draws 8-bit images."""
    levels = np.random.default_rng(seed).integers(0, 256, shape)
    return tf.constant(levels / 255.0, tf.float32)


def _with_every_level(images, channel):
    """Returns `[256, ...]`, the images with each level in a channel."""
    images = np.tile(np.float32(images), [256] + [1] * np.ndim(images))
    levels = np.arange(256, dtype=np.float32) / 255.0
    images[..., channel] = levels.reshape([-1] + [1] * (images.ndim - 2))
    return tf.constant(images)


def _parameters(pixels, channels, *leading, seed=0):
    """Draws parameters of logistics some ten levels wide."""
    shape = (*leading, -1, pixels.num_components)
    flat = _random(*leading, pixels.num_parameters(channels), seed=seed)
    parameters = np.reshape(flat, shape).copy()
    parameters[..., 1 : 1 + channels, :] *= 0.5
    parameters[..., 1 + channels : 1 + 2 * channels, :] -= 2.5
    return tf.constant(parameters.reshape(flat.shape))


def _mass(level, loc, scale):
    """Returns the probability of levels in components, by SciPy."""
    lower = np.where(level == 0, -np.inf, (2.0 * level - 1.0) / 255.0 - 1.0)
    upper = np.where(level == 255, np.inf, (2.0 * level + 1.0) / 255.0 - 1.0)
    d = scipy.stats.logistic(loc, scale)
    return np.where(
        lower > loc,  # where survival functions do not cancel
        d.sf(lower) - d.sf(upper),
        d.cdf(upper) - d.cdf(lower),
    )


def _expected_of_pixel(parameters, levels):
    """Returns log p(x_c | x_<c), `[C]`, in float64.

    The joint probability of the first channels, over that of one fewer; the
    parameters are `[M, K]`.
    """
    channels = len(levels)
    weights = scipy.special.softmax(parameters[0])
    locs, log_scales = parameters[1:][:channels], parameters[1 + channels :]
    pairs = [(i, j) for i in range(channels) for j in range(i + 1, channels)]
    moves = dict(zip(pairs, parameters[1 + 2 * channels :], strict=True))
    joint = [weights]
    for c, level in enumerate(levels):
        loc, scale = locs[c].copy(), np.exp(np.maximum(log_scales[c], -7.0))
        for before in range(c):
            value = 2.0 * levels[before] / 255.0 - 1.0
            loc += np.tanh(moves[before, c]) * value
        joint.append(joint[-1] * _mass(level, loc, scale))
    return np.diff(np.log(np.sum(joint, axis=1)))


def _expected(pixels, parameters, images):
    """Returns log p(x_c | x_<c), `[..., C]`, in float64."""
    levels = np.rint(255.0 * np.float64(images))
    parameters = np.float64(parameters)
    return np.reshape(
        [
            _expected_of_pixel(
                parameters[index].reshape(-1, pixels.num_components),
                levels[index],
            )
            for index in np.ndindex(levels.shape[:-1])
        ],
        levels.shape,
    )


# Probabilities ---------------------------------------------------------------


@pytest.mark.parametrize("num_components", [1, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_probabilities_equal_scipy(channels, num_components):
    pixels = DiscretizedLogisticPixels(num_components)
    parameters = _parameters(pixels, channels, 5, 4, 3)
    images = np.array(_images(5, 4, 3, channels))
    images[0, 0], images[0, 1] = 0.0, 1.0  # the edges
    log_probs = pixels.log_prob(
        parameters, tf.constant(images), temperature=ONE
    )
    assert log_probs.shape == (5, 4, 3, channels)
    assert log_probs.dtype == tf.float32
    expected = _expected(pixels, parameters, images)
    assert np.std(expected) > 1.0
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-4)


def test_probabilities_far_from_every_component_equal_scipy():
    # Differences of cumulative probabilities would be zero in float32.
    pixels = DiscretizedLogisticPixels(2)
    parameters = tf.constant([0.0, -1.0, -0.5, 0.4, -4.0, -3.5])
    images = _with_every_level(np.zeros([1]), 0)
    log_probs = pixels.log_prob(parameters, images, temperature=ONE)
    expected = np.log(
        _mass(
            np.arange(256)[:, None],
            np.array([-0.5, 0.4]),
            np.exp([-4.0, -3.5]),
        )
    ) + np.log(scipy.special.softmax([0.0, -1.0]))
    assert np.min(expected) < -70.0
    np.testing.assert_allclose(
        log_probs[:, 0], scipy.special.logsumexp(expected, axis=1), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("channels", "temperature"), [(3, 1.0), (1, 3.0), (2, 0.5)]
)
def test_probabilities_of_the_levels_of_a_channel_sum_to_one(
    channels, temperature
):
    pixels = DiscretizedLogisticPixels(3)
    parameters = _parameters(pixels, channels, 2)
    images = _images(2, channels)
    log_prob = tf.function(pixels.log_prob)  # eager loops are slow
    for c in range(channels):
        log_probs = log_prob(
            parameters,
            _with_every_level(images, c),
            temperature=tf.constant(temperature),
        )[..., c]
        assert log_probs.shape == (256, 2)
        np.testing.assert_allclose(
            np.exp(np.float64(log_probs)).sum(axis=0), np.ones(2), rtol=1e-5
        )


@pytest.mark.parametrize("num_levels", [2, 3, 6])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_few_levels_have_all_the_probability(num_levels, temperature):
    pixels = DiscretizedLogisticPixels(3, num_levels)
    parameters = _parameters(pixels, 3, 4)
    every = np.indices([num_levels] * 3).transpose(1, 2, 3, 0)
    every = np.float32(every.reshape(-1, 1, 3)) / (num_levels - 1)
    log_probs = pixels.log_prob(
        tf.broadcast_to(parameters, [len(every), *parameters.shape]),
        tf.constant(np.tile(every, (1, 4, 1))),
        temperature=tf.constant(temperature),
    )
    total = np.exp(np.float64(log_probs).sum(axis=-1)).sum(axis=0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    noise = np.random.default_rng(0).random((20_000, 4, 3), np.float32)
    drawn = pixels.transform(
        tf.broadcast_to(parameters, [len(noise), *parameters.shape]),
        tf.constant(noise),
        temperature=tf.constant(temperature),
    )
    index = np.rint((num_levels - 1) * np.float64(drawn)) @ (
        num_levels ** np.arange(3)[::-1]
    )
    for place in range(4):
        expected = np.exp(np.float64(log_probs[:, place]).sum(axis=-1))
        counts = np.bincount(index[:, place].astype(int), minlength=len(every))
        often = expected * len(noise) > 5
        statistic = np.sum(
            (counts[often] - expected[often] * len(noise)) ** 2
            / (expected[often] * len(noise))
        )
        assert scipy.stats.chi2.sf(statistic, often.sum() - 1) > 1e-4


def test_two_levels_of_one_component_are_a_bernoulli():
    # The only bound between them is at 0, where levels span [-1, 1].
    pixels = DiscretizedLogisticPixels(1, 2)
    parameters = tf.constant([[0.3, 0.7, -0.5]])  # logit, location, log-scale
    expected = scipy.stats.logistic(0.7, np.exp(-0.5)).sf(0.0)
    actual = pixels.log_prob(parameters, tf.ones([1, 1]), temperature=ONE)
    np.testing.assert_allclose(np.exp(actual), [[expected]], rtol=1e-6)


@pytest.mark.parametrize("num_levels", [1, 0, 2.0])
def test_an_improper_number_of_levels_is_refused(num_levels):
    with pytest.raises(ValueError, match=f"num_levels={num_levels}"):
        DiscretizedLogisticPixels(1, num_levels)


def test_probabilities_of_all_pixels_of_two_channels_sum_to_one():
    pixels = DiscretizedLogisticPixels(2)
    parameters = _parameters(pixels, 2)
    every = np.indices([256, 256]).transpose(1, 2, 0) / 255.0
    log_probs = pixels.log_prob(
        parameters,
        tf.constant(every, tf.float32),
        temperature=ONE,
    )
    joint = np.float64(tf.reduce_sum(log_probs, axis=-1))
    np.testing.assert_allclose(np.exp(joint).sum(), 1.0, rtol=1e-5)
    # The second channel depends on the first.
    assert np.std(log_probs[..., 1], axis=0).mean() > 0.1


def test_a_value_counts_as_the_nearest_level():
    pixels = DiscretizedLogisticPixels(3)
    parameters = _parameters(pixels, 2, 50)
    levels = np.random.default_rng(1).integers(0, 256, [50, 2])
    off = np.random.default_rng(2).uniform(-0.49, 0.49, [50, 2])
    np.testing.assert_array_equal(
        pixels.log_prob(
            parameters,
            tf.constant((levels + off) / 255.0, tf.float32),
            temperature=ONE,
        ),
        pixels.log_prob(
            parameters, tf.constant(levels / 255.0, tf.float32), temperature=ONE
        ),
    )


# Extremes --------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_every_level_has_a_finite_probability_at_extremes(temperature):
    pixels = DiscretizedLogisticPixels(1)
    parameters = tf.constant(EXTREMES)
    log_probs = pixels.log_prob(
        parameters,
        _with_every_level(np.zeros([len(EXTREMES), 1]), 0),
        temperature=tf.constant(temperature),
    )[..., 0]
    assert np.all(np.isfinite(log_probs))
    np.testing.assert_allclose(
        np.exp(np.float64(log_probs)).sum(axis=0), 1.0, rtol=1e-4
    )


def _mixed_extremes():
    """Returns parameters of pixels of 3 channels, `[500, P]`, K = 2."""
    rng = np.random.default_rng(3)
    columns = [np.array(column) for column in zip(*EXTREMES, strict=True)]
    of_rows = [0, 1, 1, 1, 2, 2, 2, 0, 0, 0]  # coefficients are as logits
    return tf.constant(
        np.concatenate(
            [rng.choice(columns[i], [500, 2]) for i in of_rows], axis=1
        ),
        tf.float32,
    )


def test_values_and_gradients_are_finite_at_mixed_extremes():
    pixels, parameters = DiscretizedLogisticPixels(2), _mixed_extremes()
    images = np.array(_images(500, 3))
    images[:50], images[50:100] = 0.0, 1.0
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        log_probs = pixels.log_prob(
            parameters, tf.constant(images), temperature=ONE
        )
    assert np.all(np.isfinite(log_probs))
    assert np.max(log_probs) <= 1e-6
    gradient = tape.gradient(log_probs, parameters)
    assert np.all(np.isfinite(gradient))
    assert np.mean(gradient != 0.0) > 0.2


def test_draws_at_mixed_extremes_are_levels():
    pixels, parameters = DiscretizedLogisticPixels(2), _mixed_extremes()
    draws = pixels.transform(
        parameters,
        pixels.noise([500, 3], tf.constant([[1, 2]]))[0],
        temperature=ONE,
    )
    log_probs = pixels.log_prob(parameters, draws, temperature=ONE)
    assert np.min(log_probs) > np.log(1e-6)  # of 1,500 samples, by a fixed seed


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_equal_finite_differences_of_float64(channels):
    pixels = DiscretizedLogisticPixels(2)
    parameters = _parameters(pixels, channels, 3)
    images = np.array(_images(3, channels))
    images[0] = 1.0
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        log_prob = tf.reduce_sum(
            pixels.log_prob(parameters, tf.constant(images), temperature=ONE),
            axis=-1,
        )
    gradient = tape.gradient(log_prob, parameters)
    step = 1e-5 * np.eye(parameters.shape[-1])
    for i in range(3):
        shifted = np.float64(parameters[i]) + np.stack([step, -step])
        up, down = _expected(
            pixels,
            shifted,
            np.broadcast_to(images[i], [2, len(step), channels]),
        ).sum(axis=-1)
        np.testing.assert_allclose(
            gradient[i], (up - down) / 2e-5, rtol=1e-3, atol=1e-4
        )


def test_a_scale_has_bounds():
    pixels = DiscretizedLogisticPixels(1)
    images = _with_every_level(np.zeros([1]), 0)
    for bound, beyond in ((-7.0, -8.0), (7.0, 8.0)):
        at, past, inside = (
            pixels.log_prob(tf.constant([0.0, 0.1, s]), images, temperature=ONE)
            for s in (bound, beyond, 0.99 * bound)
        )
        np.testing.assert_array_equal(at, past)
        assert not np.allclose(at, inside)


# Draws -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "temperature"),
    [
        (1, 0.9),
        (2, 0.6),
        pytest.param(3, 1.1, marks=pytest.mark.slow),
    ],
)
def test_a_tempered_draw_is_where_the_noise_meets_the_cumulative_probability(
    channels, temperature
):
    pixels, temperature = DiscretizedLogisticPixels(3), tf.constant(temperature)
    parameters = _parameters(pixels, channels, 4)
    noise = pixels.noise([4, channels], tf.constant([[1, 2]]))[0]
    draws = pixels.transform(parameters, noise, temperature=temperature)
    assert draws.dtype == tf.float32
    levels = np.rint(255.0 * np.float64(draws)).astype(int)
    np.testing.assert_array_equal(draws, np.float32(levels) / np.float32(255))
    assert np.mean((levels > 0) & (levels < 255)) > 0.5
    log_prob = tf.function(pixels.log_prob)  # eager loops are slow
    for c in range(channels):
        log_probs = log_prob(
            parameters, _with_every_level(draws, c), temperature=temperature
        )[..., c]
        cumulative = np.cumsum(np.exp(np.float64(log_probs)), axis=0)
        cumulative = np.concatenate([np.zeros([1, 4]), cumulative])
        before, after = (
            np.take_along_axis(cumulative, levels[None, :, c] + step, 0)[0]
            for step in (0, 1)
        )
        assert np.all(before - 1e-5 <= noise[:, c])
        assert np.all(noise[:, c] <= after + 1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_a_draw_is_that_of_a_component(channels, known):
    pixels = DiscretizedLogisticPixels(3)
    parameters = _parameters(pixels, channels, 200)
    noise = pixels.noise([200, channels], tf.constant([[1, 2]]))[0].numpy()
    draw = pixels.transform if known else tf.function(pixels.transform)
    draws = draw(parameters, noise, temperature=ONE)
    assert draws.dtype == tf.float32
    levels = np.rint(255.0 * np.float64(draws)).astype(int)
    np.testing.assert_allclose(draws, levels / 255.0, rtol=1e-6)
    assert np.mean((levels > 0) & (levels < 255)) > 0.5
    table = np.reshape(np.float64(parameters), [200, -1, 3])  # [N, rows, K]
    weights = scipy.special.softmax(table[:, 0], axis=-1)
    # Earlier and later channel of each coefficient.
    pairs = [(e, c) for e in range(channels) for c in range(e + 1, channels)]
    for n in range(200):
        ends = np.append(0.0, np.cumsum(weights[n]))
        k = np.searchsorted(ends, noise[n, 0], side="right") - 1
        u = np.float64(noise[n])
        u[0] = (u[0] - ends[k]) / weights[n, k]
        loc = table[n, 1 : 1 + channels, k]
        scale = np.exp(table[n, 1 + channels : 1 + 2 * channels, k])
        coefficients = np.tanh(table[n, 1 + 2 * channels :, k])
        for (earlier, later), value in zip(pairs, coefficients, strict=True):
            loc[later] += value * (2.0 * levels[n, earlier] / 255.0 - 1.0)
        position = scipy.stats.logistic.ppf(u, loc, scale)
        level = np.clip((position + 1.0) * 127.5, 0.0, 255.0)
        assert np.all(np.abs(level - levels[n]) < 0.51)


@pytest.mark.parametrize("noise", [0.0, JUST_BELOW_ONE])
def test_the_ends_of_the_noise_are_the_ends_of_a_wide_logistic(noise):
    draws = DiscretizedLogisticPixels(1).transform(
        tf.constant([0.0, 0.0, 0.0]), tf.constant([noise]), temperature=ONE
    )
    np.testing.assert_array_equal(draws, [np.round(noise)])


def test_noise_of_zero_draws_no_level_that_cannot_be():
    pixels = DiscretizedLogisticPixels(1)
    parameters = tf.constant([0.0, 0.5, -7.0])  # within a level of 191
    draws = pixels.transform(parameters, tf.constant([0.0]), temperature=ONE)
    # The least positive float32.
    assert pixels.log_prob(
        parameters, draws, temperature=ONE
    ) > -150.0 * np.log(2.0)


def test_noise_just_below_one_draws_no_level_that_cannot_be():
    pixels = DiscretizedLogisticPixels(3)
    parameters = _parameters(pixels, 3, 1000)
    draws = pixels.transform(
        parameters, tf.fill([1000, 3], JUST_BELOW_ONE), temperature=ONE
    )
    # A component and a channel are no less likely than half a step of float32
    # beside 1 each.
    log_prob = np.sum(
        pixels.log_prob(parameters, draws, temperature=ONE), axis=-1
    )
    assert np.min(log_prob) > -25.0 * 4 * np.log(2.0)


def _counts(levels, probabilities):
    """Returns observed and expected counts, the rarest in one."""
    observed = np.bincount(levels, minlength=len(probabilities))
    expected = len(levels) * probabilities / probabilities.sum()
    rare = expected <= max(5.0, expected.min())
    return (
        np.append(observed[~rare], observed[rare].sum()),
        np.append(expected[~rare], expected[rare].sum()),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_of_draws_match_the_probabilities(temperature):
    pixels, temperature = DiscretizedLogisticPixels(3), tf.constant(temperature)
    parameters = _parameters(pixels, 1, 1)
    noise = pixels.noise([20_000, 1], tf.constant([[1, 2]]))[0]
    draws = pixels.transform(parameters, noise, temperature=temperature)
    levels = np.rint(255.0 * draws[:, 0]).astype(int)
    every = _with_every_level(np.zeros([1]), 0)
    log_probs = pixels.log_prob(parameters, every, temperature=temperature)[
        :, 0
    ]
    observed, expected = _counts(levels, np.exp(np.float64(log_probs)))
    assert len(expected) > 50
    # The seed is fixed.
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_frequencies_of_pairs_of_channels_match_the_joint_probabilities():
    pixels = DiscretizedLogisticPixels(2)
    parameters = _parameters(pixels, 2, 1)
    noise = pixels.noise([20_000, 2], tf.constant([[1, 2]]))[0]
    levels = np.rint(
        255.0 * pixels.transform(parameters, noise, temperature=ONE)
    ).astype(int)
    every = np.indices([256, 256]).transpose(1, 2, 0) / 255.0
    joint = np.exp(
        np.float64(
            pixels.log_prob(
                parameters, tf.constant(every, tf.float32), temperature=ONE
            )
        ).sum(axis=-1)
    )
    coarse = joint.reshape(16, 16, 16, 16).sum(axis=(1, 3))  # 16 levels a cell
    cells = levels[:, 0] // 16 * 16 + levels[:, 1] // 16
    observed, expected = _counts(cells, coarse.ravel())
    assert len(expected) > 30
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


# Temperature -----------------------------------------------------------------


def test_a_temperature_is_a_power_of_each_conditional():
    temperature = 0.3
    pixels = DiscretizedLogisticPixels(2)
    parameters, images = _parameters(pixels, 2, 1), _images(1, 2)
    log_prob = tf.function(pixels.log_prob)  # eager loops are slow
    log_probs = log_prob(
        parameters, images, temperature=tf.constant(temperature)
    )
    levels = np.rint(255.0 * np.float64(images)).astype(int)
    for c in range(2):
        every = _expected(
            pixels,
            np.broadcast_to(parameters, [256, *parameters.shape]),
            _with_every_level(images, c),
        )[..., c]
        power = scipy.special.log_softmax(every / temperature, axis=0)
        np.testing.assert_allclose(
            log_probs[:, c],
            np.take_along_axis(power, levels[None, :, c], 0)[0],
            rtol=1e-3,
        )


def test_a_temperature_that_a_graph_does_not_know_may_be_one():
    pixels = DiscretizedLogisticPixels(3)
    parameters, images = _parameters(pixels, 2, 5), _images(5, 2)
    log_prob = tf.function(pixels.log_prob)
    np.testing.assert_allclose(
        log_prob(parameters, images, temperature=ONE),
        pixels.log_prob(parameters, images, temperature=ONE),
        rtol=1e-4,
        atol=1e-5,
    )
    # And one that it knows costs no enumeration.
    known = tf.function(
        lambda *inputs: pixels.log_prob(*inputs, temperature=ONE)
    )
    operations = known.get_concrete_function(parameters, images).graph
    assert not any("while" in o.name for o in operations.get_operations())


# The network -----------------------------------------------------------------


def _network(pixels, channels, conditioned=None):
    """Makes a random network whose pixels are some ten levels wide."""
    network = GatedPixelCNN(
        pixels.num_parameters(channels),
        filters=4,
        num_blocks=2,
        first_kernel_size=3,
    )
    network.build(
        (None, None, None, channels),
        conditioned and (None, None, None, conditioned),
    )
    network.set_weights(
        [0.5 * _random(*w.shape, seed=i) for i, w in enumerate(network.weights)]
    )
    network.parameters.bias.assign(_parameters(pixels, channels))
    return network


def _draw_naively(network, noise, conditioning, pixels, temperature):
    """Draws in raster order, each pixel by an evaluation of the image."""
    images = np.zeros(noise.shape, np.float32)
    for i, j in np.ndindex(*images.shape[1:3]):
        parameters = network(tf.constant(images), conditioning)
        images[:, i, j] = pixels.transform(
            parameters[:, i, j], noise[:, i, j], temperature=temperature
        )
    return images


@pytest.mark.parametrize(
    ("channels", "conditioned", "temperature", "jit_compile"),
    [(1, None, 1.0, False), (3, 2, 0.5, False), (3, 2, 0.5, True)],
)
def test_draws_equal_those_of_the_naive_sampler(
    channels, conditioned, temperature, jit_compile
):
    pixels = DiscretizedLogisticPixels(3)
    network = _network(pixels, channels, conditioned)
    noise = pixels.noise([3, 4, 5, channels], tf.constant([[1, 2]]))[0]
    temperature = tf.constant(temperature)
    if conditioned:
        conditioned = _random(3, 4, 5, conditioned, seed=9)
    generate = tf.function(
        lambda *inputs: network.generate(
            *inputs, pixels=pixels, temperature=temperature
        ),
        jit_compile=jit_compile,
    )
    expected = _draw_naively(network, noise, conditioned, pixels, temperature)
    assert len(np.unique(expected)) > 20
    # Levels: equal, or further apart than any rounding.
    np.testing.assert_allclose(
        generate(noise, conditioned), expected, rtol=1e-5
    )


def test_a_graph_of_any_batch_draws_each_image_without_its_neighbours():
    pixels = DiscretizedLogisticPixels(3)
    network = _network(pixels, 3)
    noise = pixels.noise([3, 4, 5, 3], tf.constant([[1, 2]]))[0]
    generate = tf.function(
        lambda noise: network.generate(
            noise, None, pixels=pixels, temperature=ONE
        ),
        input_signature=[tf.TensorSpec([None, 4, 5, 3])],
    )
    draws = generate(noise)
    for n in range(3):
        np.testing.assert_allclose(
            generate(noise[n : n + 1]), draws[n : n + 1], rtol=1e-5
        )


@pytest.mark.parametrize(
    ("channels", "temperature", "jit_compile"),
    [(1, 0.5, False), (1, 1.0, True), (2, 0.5, True)],
)
def test_compiled_pixels_equal_eager_ones(channels, temperature, jit_compile):
    pixels, temperature = DiscretizedLogisticPixels(3), tf.constant(temperature)
    parameters = _parameters(pixels, channels, 2, 3, 4)
    images = _images(2, 3, 4, channels)
    noise = pixels.noise(images.shape, tf.constant([[1, 2]]))[0]
    for method, inputs in (
        (pixels.log_prob, (parameters, images)),
        (pixels.transform, (parameters, noise)),
    ):
        compiled = tf.function(
            lambda *inputs, method=method: method(
                *inputs, temperature=temperature
            ),
            jit_compile=jit_compile,
        )
        np.testing.assert_allclose(
            compiled(*inputs),
            method(*inputs, temperature=temperature),
            rtol=1e-4,
            atol=1e-5,
        )


# The family ------------------------------------------------------------------


def test_parameters_are_those_of_every_component():
    for channels, size in ((1, 3), (2, 6), (3, 10), (4, 15)):
        pixels = DiscretizedLogisticPixels(7)
        assert pixels.num_parameters(channels) == 7 * size


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_components", [1, 2, 5])
def test_at_first_the_components_share_the_levels(channels, num_components):
    pixels = DiscretizedLogisticPixels(num_components)
    initial = tf.constant(pixels.initial_parameters(channels))
    assert initial.shape == [pixels.num_parameters(channels)]
    # They lie in the middle of as many parts of [-1, 1], in all channels: what
    # those before tell of a channel is which component it may be.
    edges = np.linspace(-1.0, 1.0, num_components + 1)
    centres = (edges[1:] + edges[:-1]) / 2.0
    masses = _mass(np.arange(256.0)[:, np.newaxis], centres, np.exp(-2.0))
    images = _with_every_level(np.full([1, 1, channels], 0.2), 0)
    found = pixels.log_prob(
        tf.broadcast_to(initial, [256, 1, 1, len(initial)]),
        images,
        temperature=ONE,
    )
    joint = np.full([256, num_components], 1.0 / num_components)
    for channel in range(channels):
        before = joint.sum(axis=1)
        joint *= masses if channel == 0 else masses[51]  # 0.2 of 255
        np.testing.assert_allclose(
            found[:, 0, 0, channel],
            np.log(joint.sum(axis=1) / before),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("family", [BernoulliPixels, NormalPixels])
def test_other_families_begin_at_zero(family):
    pixels = family()
    assert pixels.initial_parameters(3) == [0.0] * pixels.num_parameters(3)


def test_equal_families_are_equal():
    pixels = DiscretizedLogisticPixels(3)
    assert pixels == DiscretizedLogisticPixels(3)
    assert hash(pixels) == hash(DiscretizedLogisticPixels(3))
    assert pixels != DiscretizedLogisticPixels(4)


@pytest.mark.parametrize("num_components", [0, -7, 2.5, "3"])
def test_an_improper_number_of_components_is_refused(num_components):
    with pytest.raises(
        ValueError, match=f"Received: num_components={num_components!r}"
    ):
        DiscretizedLogisticPixels(num_components)


# Units -----------------------------------------------------------------------


def test_a_uniform_8_bit_image_has_8_bits_a_dimension():
    nats = 4 * 5 * 3 * np.log(256.0)
    np.testing.assert_allclose(bits_per_dimension(nats, (4, 5, 3)), 8.0)
    np.testing.assert_allclose(
        bits_per_dimension(tf.constant([nats, -nats]), (4, 5, 3)),
        [8.0, -8.0],
        rtol=1e-6,
    )
