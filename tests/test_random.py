import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import random
from vhe_tf.distributions.discretized import DiscretizedLogisticPixels
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import NormalPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.layers.pixel_cnn import GatedPixelCNN

SEEDS = tf.constant([[1, 2], [3, 4], [5, -6]])
LOC = np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
SCALE = np.linspace(0.5, 2.0, 12, dtype=np.float32).reshape(3, 4)
GENERATORS = {
    "bits": random.bits,
    "uniform": random.uniform,
    "normal": random.normal,
}

# Of values in different layouts, where a logarithm or a cosine may round in
# another way; far below the distance of two samples.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


# The generator ----------------------------------------------------------------


def test_the_generator_gives_the_published_numbers_of_splitmix64():
    # Of the reference implementation by Vigna (2015), seed 1234567.
    numbers = random._split_mix(
        tf.constant(1234567, tf.uint64), tf.cast(tf.range(5), tf.uint64)
    )
    np.testing.assert_array_equal(
        numbers,
        np.array(
            [
                6457827717110365317,
                3203168211198807973,
                9817491932198370423,
                4593380528125082431,
                16408922859458223821,
            ],
            np.uint64,
        ),
    )


def _split_mix(state, counter):
    """Returns output `counter` of SplitMix64, by integers of Python."""
    mask = 2**64 - 1
    z = (state + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_numbers_are_those_of_splitmix64_that_begins_at_the_seed():
    words = random.bits([3], SEEDS).numpy().view(np.uint64)
    numbers = random.uniform([6], SEEDS).numpy()
    for row, (low, high) in enumerate(SEEDS.numpy().tolist()):
        state = (low % 2**32 + (high % 2**32 << 32)) ^ random._NUMBERS
        expected = [_split_mix(state, counter) for counter in range(3)]
        np.testing.assert_array_equal(words[row], np.uint64(expected))
        halves = [v >> shift for v in expected for shift in (0, 32)]
        np.testing.assert_array_equal(
            numbers[row],
            [((half % 2**32 >> 9) + 0.5) / 2**23 for half in halves],
        )


def test_a_uniform_number_is_neither_0_nor_1():
    ends = tf.constant([0, 2**32 - 1], tf.uint32)
    np.testing.assert_array_equal(
        random._cell_centres(ends), [2.0**-24, 1.0 - 2.0**-24]
    )


@pytest.mark.parametrize(
    ("name", "cdf"),
    [("uniform", scipy.stats.uniform.cdf), ("normal", scipy.stats.norm.cdf)],
)
def test_numbers_have_their_distribution(name, cdf):
    numbers = GENERATORS[name]([20_000], random.fold_in(7, tf.range(10)))
    for row in numbers.numpy():
        # The seeds are fixed; of 20 p-values the least is below it 1 in 500.
        assert scipy.stats.kstest(row, cdf).pvalue > 1e-4


def test_every_bit_is_as_often_set_as_not():
    words = random.bits([20_000], random.fold_in(7, tf.range(2))).numpy()
    is_set = words[..., np.newaxis] >> np.arange(64) & 1
    # Five standard errors of 40,000 fair coins.
    assert np.abs(is_set.mean(axis=(0, 1)) - 0.5).max() < 5 * 0.5 / 200


def test_the_tails_of_the_normal_distribution_have_their_probability():
    numbers = random.normal([2**20], random.fold_in(0, tf.range(8))).numpy()
    assert np.all(np.isfinite(numbers))
    for limit in (3.0, 4.0, 4.5):
        expected = numbers.size * scipy.stats.norm.sf(limit)
        for count in (np.sum(numbers > limit), np.sum(numbers < -limit)):
            # Five standard deviations of a Poisson number.
            assert abs(count - expected) < 5.0 * np.sqrt(expected)
    # 8 million numbers exceed it with a probability of 0.998.
    assert np.abs(numbers).max() > 4.9


def test_the_radius_of_a_pair_of_normals_uses_all_32_bits(monkeypatch):
    words = tf.constant([[0, 2**32 - 1]], tf.uint64)  # of angle 0
    monkeypatch.setattr(random, "_words", lambda count, seeds: words)
    numbers = random.normal([4], SEEDS[:1]).numpy()[0]
    farthest = np.sqrt(-2.0 * np.log(2.0**-33))
    assert farthest > 6.7
    np.testing.assert_allclose(
        numbers, [farthest, 0.0, 0.0, 0.0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", GENERATORS)
def test_rows_and_positions_are_independent(name):
    # Seeds that differ by one bit, counters that follow each other.
    seeds = tf.constant([[0, 0], [1, 0], [0, 1], [2, 0], [-1, -1], [3, 0]])
    numbers = GENERATORS[name]([20_001], seeds).numpy().astype(np.float64)
    here_and_next = np.concatenate([numbers[:, :-1], numbers[:, 1:]], axis=0)
    correlation = np.corrcoef(here_and_next) - np.eye(12)
    # Five standard errors of 20,000 pairs.
    assert np.abs(correlation).max() < 5.0 / np.sqrt(20_000)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_row_is_decided_by_its_seed_alone(name):
    together = GENERATORS[name]([7, 3], SEEDS).numpy()
    for row in range(3):
        alone = GENERATORS[name]([7, 3], SEEDS[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], **ROUNDING)
    others = GENERATORS[name]([7, 3], SEEDS[::-1])
    np.testing.assert_allclose(others[::-1], together, **ROUNDING)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_longer_row_begins_with_the_shorter_one(name):
    shorter = GENERATORS[name]([5], SEEDS)
    longer = GENERATORS[name]([2, 4], SEEDS).numpy().reshape(3, 8)
    np.testing.assert_allclose(longer[:, :5], shorter, **ROUNDING)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_numbers_are_the_same(name, jit_compile):
    shape = [5, 3]

    @tf.function(jit_compile=jit_compile)
    def compiled(seeds):
        return GENERATORS[name](shape, seeds)

    numbers = GENERATORS[name](shape, SEEDS)
    if name == "normal":
        np.testing.assert_allclose(compiled(SEEDS), numbers, **ROUNDING)
    else:
        np.testing.assert_array_equal(compiled(SEEDS), numbers)


@pytest.mark.parametrize("name", GENERATORS)
def test_static_shapes_stay_static(name):
    @tf.function
    def numbers(images, seeds):
        return GENERATORS[name](tf.shape(images)[1:], seeds)

    traced = numbers.get_concrete_function(
        tf.TensorSpec([None, 4, None, 3]), tf.TensorSpec([7, 2], tf.int32)
    )
    assert traced.structured_outputs.shape.as_list() == [7, 4, None, 3]


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("shape", [[], [0], [1], [2, 0, 3]])
def test_small_shapes(name, shape):
    assert GENERATORS[name](shape, SEEDS).shape == [3, *shape]


# Seeds ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, [0, 0]),
        (-1, [-1, -1]),
        (2**63 - 1, [-1, 2**31 - 1]),
        (np.int64(2**32), [0, 1]),
        (tf.constant(3), [3, 0]),
        ((1, 2), [1, 2]),
        (np.int64([1, 2]), [1, 2]),
        ([[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]),
    ],
)
def test_a_seed_is_an_integer_a_pair_or_a_pair_per_row(seed, expected):
    seed = random.as_seed(seed)
    assert seed.dtype == tf.int32
    np.testing.assert_array_equal(seed, expected)


@pytest.mark.parametrize(
    "seed",
    [
        1.5,
        True,
        2**63,
        None,
        "one",
        [1, 2, 3],
        [[1], [2]],
        [[[1, 2]]],
        [1.0, 2],
    ],
)
def test_another_seed_is_rejected(seed):
    with pytest.raises(ValueError, match="Received: seed=") as error:
        random.as_seed(seed)
    assert f"seed={seed!r}." in str(error.value)


def test_fold_in_does_to_each_row_what_it_does_to_one_seed():
    folded = random.fold_in(SEEDS, 7)
    for row in range(3):
        np.testing.assert_array_equal(
            folded[row], random.fold_in(SEEDS[row], 7)
        )
    several = random.fold_in(SEEDS[0], tf.range(5))
    for number in range(5):
        np.testing.assert_array_equal(
            several[number], random.fold_in((1, 2), number)
        )


def test_folded_seeds_differ_in_all_64_bits_of_what_is_folded_in():
    data = [0, 1, -1, 2**32, 2**62, 5, 6]
    folded = [random.fold_in(0, number) for number in data]
    folded += [random.fold_in(seed, 1) for seed in folded]
    assert len({tuple(map(int, seed)) for seed in [*folded, (0, 0)]}) == 15


def test_numbers_of_a_seed_and_of_those_folded_from_it_are_independent():
    seed = tf.constant([[4, 5]])
    seeds = [seed, *(random.fold_in(seed, index) for index in range(4))]
    seeds.append(random.fold_in(seeds[1], 0))
    numbers = random.uniform([20_000], tf.concat(seeds, axis=0)).numpy()
    correlation = np.corrcoef(numbers) - np.eye(6)
    # Five standard errors of 20,000 pairs.
    assert np.abs(correlation).max() < 5.0 / np.sqrt(20_000)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_seeds_are_the_same(jit_compile):
    compiled = tf.function(random.fold_in, jit_compile=jit_compile)
    np.testing.assert_array_equal(
        compiled(SEEDS, tf.constant(3)), random.fold_in(SEEDS, 3)
    )


# Distributions ----------------------------------------------------------------


class Independently:
    """A network that samples each pixel by its own noise."""

    def generate(self, noise, conditioning, pixels, temperature):
        return pixels.transform(conditioning, noise, temperature=temperature)


def pixel_cnn(pixels, loc):
    """Makes a PixelCNN of images of 1 x 4 pixels."""
    count = pixels.num_parameters(1)
    conditioning = tf.repeat(tf.reshape(loc, [-1, 1, 4, 1]), count, axis=-1)
    return PixelCNN(Independently(), pixels, (1, 4, 1), conditioning)


# Every registered family, of rows `[B, 4]` of locations.
FAMILIES = {
    "normal": lambda loc: tfd.Independent(tfd.Normal(loc, tf.exp(loc)), 1),
    "multivariate": lambda loc: tfd.MultivariateNormalDiag(loc, tf.exp(loc)),
    "triangular": lambda loc: tfd.MultivariateNormalTriL(
        loc, tf.exp(loc)[:, :, None] * (0.1 * np.tri(4) + 0.9 * np.eye(4))
    ),
    "nested": lambda loc: tfd.Independent(
        tfd.MultivariateNormalDiag(tf.reshape(loc, [-1, 2, 2])), 1
    ),
    "bernoulli": lambda loc: tfd.Independent(
        tfd.Bernoulli(logits=loc, dtype=tf.float32), 1
    ),
    "binary pixels": lambda loc: pixel_cnn(BernoulliPixels(), loc),
    "normal pixels": lambda loc: pixel_cnn(NormalPixels(), loc),
    "discretized pixels": lambda loc: pixel_cnn(
        DiscretizedLogisticPixels(2, 8), loc
    ),
}


def test_every_registered_family_is_tested():
    tested = {type(make(LOC)) for make in FAMILIES.values()} | {
        type(make(LOC).distribution)
        for make in FAMILIES.values()
        if isinstance(make(LOC), tfd.Independent)
    }
    # Others may have come from an example.
    tested = {cls for family in tested for cls in family.__mro__}
    assert {
        tfd.Normal,
        tfd.MultivariateNormalLinearOperator,
        tfd.Bernoulli,
        PixelCNN,
    } == tested & set(random._FAMILIES)


@pytest.mark.parametrize("name", ["normal", "multivariate", "normal pixels"])
def test_gaussian_samples_have_their_distribution(name):
    samples = random.sample(FAMILIES[name](LOC), [2000], seed=SEEDS).numpy()
    scale = np.exp(LOC)
    if name == "normal pixels":
        scale = np.log1p(np.exp(LOC)) + 1e-3
    samples = samples.reshape(2000, 3, 4)
    for row in range(3):
        for column in range(4):
            test = scipy.stats.kstest(
                samples[:, row, column],
                scipy.stats.norm(LOC[row, column], scale[row, column]).cdf,
            )
            assert test.pvalue > 1e-4


@pytest.mark.parametrize("name", ["bernoulli", "binary pixels"])
def test_binary_samples_have_their_distribution(name):
    samples = random.sample(FAMILIES[name](LOC), [2000], seed=SEEDS).numpy()
    assert set(np.unique(samples)) == {0.0, 1.0}
    expected = scipy.special.expit(LOC)
    error = np.sqrt(expected * (1.0 - expected) / 2000)
    means = samples.mean(axis=0).reshape(3, 4)
    assert np.all(np.abs(means - expected) < 4.5 * error)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_of_a_distribution_is_decided_by_its_seed_alone(name):
    make = FAMILIES[name]
    together = random.sample(make(LOC), [5], seed=SEEDS)
    for row in range(3):
        here = slice(row, row + 1)
        alone = random.sample(make(LOC[here]), [5], seed=SEEDS[here])
        np.testing.assert_allclose(alone[:, 0], together[:, row], **ROUNDING)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_share_the_randomness_of_one_seed_in_a_row(name):
    make = FAMILIES[name]
    shared = random.sample(make(LOC), [5], seed=SEEDS[:1])
    repeated = random.sample(make(LOC), [5], seed=np.repeat(SEEDS[:1], 3, 0))
    np.testing.assert_allclose(shared, repeated, **ROUNDING)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_two_rows_or_samples_share_randomness(name):
    # Equal rows: whatever differs is randomness.
    zeros = tf.zeros([3, 4])
    samples = random.sample(FAMILIES[name](zeros), [200], seed=SEEDS).numpy()
    first = samples.reshape(200, 3, 4).transpose(1, 2, 0).reshape(12, 200)
    correlation = np.corrcoef(first) - np.eye(12)
    assert np.abs(correlation).max() < 5.0 / np.sqrt(200)


@pytest.mark.parametrize("name", FAMILIES)
def test_xla_samples_what_tensorflow_samples(name):
    @tf.function(jit_compile=True)
    def compiled(loc, seeds):
        return random.sample(FAMILIES[name](loc), [2], seed=seeds)

    np.testing.assert_allclose(
        compiled(LOC, SEEDS),
        random.sample(FAMILIES[name](LOC), [2], seed=SEEDS),
        **ROUNDING,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_one_seed_samples_what_the_distribution_does(name):
    distribution = FAMILIES[name](LOC)
    np.testing.assert_array_equal(
        random.sample(distribution, [2], seed=7),
        distribution.sample([2], seed=(7, 0)),
    )


def test_gradients_reach_the_parameters_of_a_gaussian():
    loc, scale = tf.constant(LOC.T), tf.constant(SCALE.T)  # [S=4, B=3]
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        samples = random.sample(tfd.Normal(loc, scale), seed=SEEDS)
    by_loc, by_scale = tape.gradient(samples, [loc, scale])
    np.testing.assert_array_equal(by_loc, tf.ones([4, 3]))
    np.testing.assert_allclose(by_scale, (samples - loc) / scale, rtol=1e-4)


def test_sample_axes_of_the_distribution_are_kept():
    distribution = tfd.MultivariateNormalDiag(
        tf.zeros([2, 3, 4]) + tf.constant([0.0, 100.0])[:, None, None]
    )
    samples = random.sample(distribution, seed=SEEDS).numpy()
    assert samples.shape == (2, 3, 4)
    np.testing.assert_array_equal(samples[1] > 50.0, np.ones([3, 4], bool))
    assert not np.allclose(samples[0], samples[1] - 100.0)


def test_a_prior_without_a_batch_is_sampled_once_per_row():
    prior = tfd.MultivariateNormalDiag(tf.zeros(4))
    samples = random.sample(prior, [2, 3], seed=SEEDS)
    assert samples.shape == (2, 3, 4)
    assert len(np.unique(samples)) == 24


def test_a_pixel_cnn_samples_what_its_noise_decides():
    keras.utils.set_random_seed(0)
    network = GatedPixelCNN(1, filters=4, num_blocks=1)
    conditioning = tf.random.stateless_normal([3, 5, 4, 2], [0, 1])
    distribution = PixelCNN(network, BernoulliPixels(), (5, 4, 1), conditioning)
    samples = random.sample(distribution, [2], seed=SEEDS)
    noise = BernoulliPixels().noise([2, 5, 4, 1], SEEDS)
    np.testing.assert_array_equal(
        samples, distribution.sample_from(tf.einsum("bs...->sb...", noise))
    )


def test_another_family_is_rejected_unless_the_first_seed_may_serve_all_rows():
    gamma = tfd.Gamma([1.0, 2.0, 3.0], 1.0)
    with pytest.raises(TypeError, match=r"random\.register.*Received: Gamma"):
        random.sample(gamma, seed=SEEDS)
    np.testing.assert_array_equal(
        random.sample(gamma, seed=SEEDS, allow_unregistered=True),
        gamma.sample(seed=SEEDS[0]),
    )


class _Shifted(tfd.Normal):
    pass


def test_a_subclass_is_sampled_as_what_it_is_unless_registered(monkeypatch):
    monkeypatch.setattr(random, "_FAMILIES", dict(random._FAMILIES))
    shifted = _Shifted(tf.zeros([3]), 1.0)
    np.testing.assert_array_equal(
        random.sample(shifted, seed=SEEDS),
        random.sample(tfd.Normal(tf.zeros([3]), 1.0), seed=SEEDS),
    )
    random.register(
        _Shifted,
        noise=lambda _, shape, seeds: random.uniform(shape, seeds),
        transform=lambda distribution, noise: distribution.loc + 9.0 + noise,
    )
    samples = random.sample(shifted, [50], seed=SEEDS).numpy()
    assert samples.shape == (50, 3)
    assert samples.min() > 9.0
    assert samples.max() < 10.0
