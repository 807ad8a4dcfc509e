"""VHEs that are solved exactly: every latent, and x, linear and Gaussian.

All variables of a data set are linear maps of one vector of independent
standard normals, so that log p(X), every posterior and every divergence follow
from covariances, in float64 and without a look at the package.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import random
from vhe_tf.layers.base import BaseLayer

IMAGE_SHAPE = (2, 2, 1)
PIXELS = 4
NOISE = 0.6
SEED = (3, 4)


class LinearNormal(BaseLayer):
    """N(sum of inputs @ gains + offset, covariance), batch shape of inputs."""

    def __init__(self, gains, covariance, offset=None):
        super().__init__(autocast=False)
        self.gains = tuple(np.float32(gain) for gain in gains)
        self.scale_tril = np.float32(np.linalg.cholesky(covariance))
        self.offset = np.zeros(len(covariance)) if offset is None else offset

    def call(self, *inputs):
        loc = tf.constant(self.offset, tf.float32)
        for value, gain in zip(inputs, self.gains, strict=True):
            loc += tf.linalg.matvec(gain, value, transpose_a=True)
        return tfd.MultivariateNormalTriL(loc, self.scale_tril)


class LinearPosterior(LinearNormal):
    """The same given images: the mean over a support, or one query."""

    def call(self, observed, *parents):
        if observed.shape.rank == 5:
            observed = tf.reduce_mean(observed, axis=1)
        return super().call(tf.reshape(observed, [-1, PIXELS]), *parents)


class LinearLikelihood(BaseLayer):
    """p(x | latents) = N(sum of latents @ loadings, NOISE**2 I)."""

    def __init__(self, loadings):
        super().__init__(autocast=False)
        self.loadings = {k: np.float32(v) for k, v in loadings.items()}

    def call(self, **latents):
        loc = tf.add_n(
            [
                tf.linalg.matvec(self.loadings[k], latents[k], transpose_a=True)
                for k in sorted(latents)
            ]
        )
        shape = tf.concat([tf.shape(loc)[:-1], IMAGE_SHAPE], axis=0)
        return tfd.Independent(tfd.Normal(tf.reshape(loc, shape), NOISE), 3)


@dataclasses.dataclass(frozen=True)
class Role:
    """A latent of the model; the data set has one variable a group."""

    name: str
    size: int
    parents: tuple[str, ...] = ()
    per_element: bool = False


class World:
    """A small data set and all there is to know about it, in float64.

    Args:
        roles: The latents, parents first.
        elements: For each element, the variable that plays each role.
    """

    def __init__(self, roles, elements):
        rng = np.random.default_rng(7)
        self.roles = {role.name: role for role in roles}
        self.elements = elements
        self.loadings = {
            role.name: rng.normal(size=(role.size, PIXELS)) for role in roles
        }
        self.weights = {
            (role.name, parent): rng.normal(
                size=(self.roles[parent].size, role.size)
            )
            for role in roles
            for parent in role.parents
        }
        self._maps = {}
        self._num_noises = 0
        for role in roles:
            for element in elements:
                if element[role.name] not in self._maps:
                    self._define(
                        element[role.name],
                        [
                            (self.weights[role.name, p], element[p])
                            for p in role.parents
                        ],
                        1.0,
                        role.size,
                    )
        self.xs = [f"x{i}" for i in range(len(elements))]
        for x, element in zip(self.xs, elements, strict=True):
            terms = [(self.loadings[r], element[r]) for r in self.roles]
            self._define(x, terms, NOISE, PIXELS)
        noises = rng.normal(size=64)
        self.images = np.float32([self._maps[x] @ noises for x in self.xs])
        self.log_evidence = scipy.stats.multivariate_normal(
            np.zeros(len(self.xs) * PIXELS), self.covariance(self.xs, self.xs)
        ).logpdf(np.float64(self.images).ravel())

    def _define(self, name, terms, scale, size):
        fresh = np.zeros((size, 64))
        fresh[:, self._num_noises : self._num_noises + size] = (
            np.eye(size) * scale
        )
        self._num_noises += size
        self._maps[name] = fresh + sum(
            weight.T @ self._maps[parent] for weight, parent in terms
        )

    def covariance(self, rows, columns):
        maps = [
            np.concatenate([self._maps[v] for v in vs])
            for vs in (rows, columns)
        ]
        return maps[0] @ maps[1].T

    def conditional(self, targets, given):
        """Returns gain and covariance: E[targets | given] = given @ gain."""
        cross = self.covariance(given, targets)
        gain = np.linalg.solve(self.covariance(given, given), cross)
        return gain, self.covariance(targets, targets) - gain.T @ cross

    def group(self, role, variable):
        """Returns which elements have a variable in a role."""
        return [i for i, e in enumerate(self.elements) if e[role] == variable]

    def true_posterior(self, role, support_size=None):
        """Makes the layer of p(latent | support or query, parents)."""
        role = self.roles[role]
        first = self.elements[0]
        members = self.group(role.name, first[role.name])[:support_size]
        given = [self.xs[i] for i in members]
        given += [first[parent] for parent in role.parents]
        gain, covariance = self.conditional([first[role.name]], given)
        count = len(members) * PIXELS
        each = gain[:count].reshape(len(members), PIXELS, role.size)
        # Only then is the mean of the support all that the posterior needs.
        np.testing.assert_allclose(each, each[:1].repeat(len(each), 0))
        gains = [each.sum(axis=0)]
        for parent in role.parents:
            gains.append(gain[count : count + self.roles[parent].size])
            count += self.roles[parent].size
        return LinearPosterior(gains, covariance)

    def random_posterior(self, role, rng):
        """Makes a posterior of arbitrary parameters."""
        role = self.roles[role]
        sizes = [PIXELS, *(self.roles[p].size for p in role.parents)]
        root = 0.5 * rng.normal(size=(role.size, role.size))
        return LinearPosterior(
            [0.3 * rng.normal(size=(size, role.size)) for size in sizes],
            root @ root.T + 0.05 * np.eye(role.size),
            rng.normal(size=role.size),
        )

    def model(self, posteriors, **kwargs):
        return VHE(
            latents=[
                Latent(
                    role.name,
                    prior=LinearNormal(
                        [self.weights[role.name, p] for p in role.parents],
                        np.eye(role.size),
                    ),
                    posterior=posteriors[role.name],
                    parents=role.parents,
                    per_element=role.per_element,
                )
                for role in self.roles.values()
            ],
            likelihood=LinearLikelihood(self.loadings),
            event_shape=IMAGE_SHAPE,
            **kwargs,
        )

    def true_model(self):
        return self.model({r: self.true_posterior(r) for r in self.roles})

    def episode(self, num_repeats=1):
        """Every element with D = X, `num_repeats` times, as one batch."""
        groups = [r.name for r in self.roles.values() if not r.per_element]
        members = {
            name: [self.group(name, e[name]) for e in self.elements]
            for name in groups
        }

        def repeat(values):
            return tf.repeat(tf.constant(values)[tf.newaxis], num_repeats, 0)

        def batch(values):
            repeated = repeat(values)
            return tf.reshape(repeated, [-1, *repeated.shape[2:]])

        images = self.images.reshape(-1, *IMAGE_SHAPE)
        return {
            "query": batch(images),
            "support": {n: batch(images[m]) for n, m in members.items()},
            "group_size": {
                n: batch(np.int32([len(v) for v in m]))
                for n, m in members.items()
            },
            "seed": random.fold_in(SEED, tf.range(len(batch(images)))),
        }


def _flat(num_elements=4):
    return World([Role("character", 2)], [{"character": "c"}] * num_elements)


def _with_elements():
    return World(
        [
            Role("character", 2),
            Role("element", 1, ("character",), per_element=True),
        ],
        [{"character": "c", "element": f"z{i}"} for i in range(3)],
    )


def _hierarchical():
    return World(
        [
            Role("alphabet", 2),
            Role("character", 1, ("alphabet",)),
            Role("element", 1, ("alphabet", "character"), per_element=True),
        ],
        [
            {"alphabet": "a", "character": f"c{i // 2}", "element": f"z{i}"}
            for i in range(4)
        ],
    )


def _crossed():
    return World(
        [Role("row", 1), Role("column", 2)],
        [
            {"row": f"r{i}", "column": f"k{j}"}
            for i, j in itertools.product(range(2), range(2))
        ],
    )


WORLDS = {
    "flat": _flat,
    "with_elements": _with_elements,
    "hierarchical": _hierarchical,
    "crossed": _crossed,
}


def _bound_on_all(world, model, num_repeats=4000):
    """Returns the bound summed over X (Eq. 14), and its standard error.

    Each repeat of each element draws latents of its own, so the repeats of the
    sum are independent and their spread gives the error of their mean.
    """
    elbo = np.float64(model(world.episode(num_repeats)).elbo)
    sums = elbo.reshape(num_repeats, len(world.elements)).sum(axis=1)
    return sums.mean(), sums.std() / np.sqrt(num_repeats)


# Five standard errors: a correct bound fails once in 2 million runs.
NUM_ERRORS = 5.0


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("parameters", range(3))
def test_the_bound_never_exceeds_the_evidence(name, parameters):
    world = WORLDS[name]()
    rng = np.random.default_rng(parameters)
    model = world.model(
        {r: world.random_posterior(r, rng) for r in world.roles}
    )
    bound, error = _bound_on_all(world, model)
    assert bound - NUM_ERRORS * error <= world.log_evidence


def _groups_of_one():
    """A plain VAE."""
    return _flat(1)


@pytest.mark.parametrize(
    "make", [_groups_of_one, _flat, _with_elements, _hierarchical]
)
def test_the_bound_meets_the_evidence_at_the_true_posterior(make):
    world = make()
    bound, error = _bound_on_all(world, world.true_model(), num_repeats=20_000)
    assert NUM_ERRORS * error < 0.2
    assert abs(bound - world.log_evidence) < NUM_ERRORS * error


def test_a_crossed_bound_falls_short_by_what_factorising_costs():
    # Marginals of the true posterior: exact, but for their dependence.
    world = _crossed()
    bound, error = _bound_on_all(world, world.true_model())
    assert bound + NUM_ERRORS * error < world.log_evidence


def _gaussian_kl(m0, s0, m1, s1):
    """Returns KL[N(m0, s0) || N(m1, s1)]."""
    log_ratio = np.linalg.slogdet(s1)[1] - np.linalg.slogdet(s0)[1]
    distance = (m1 - m0) @ np.linalg.solve(s1, m1 - m0)
    trace = np.trace(np.linalg.solve(s1, s0))
    return 0.5 * (trace + distance - len(m0) + log_ratio)


@pytest.mark.parametrize("name", ["flat", "crossed"])
@pytest.mark.parametrize("parameters", range(2))
def test_the_gap_of_the_bound_is_the_kl_to_the_true_posterior(name, parameters):
    world = WORLDS[name]()
    rng = np.random.default_rng(10 + parameters)
    posteriors = {r: world.random_posterior(r, rng) for r in world.roles}
    means, covariances, variables = [], [], []
    for role, q in posteriors.items():
        for variable in sorted({e[role] for e in world.elements}):
            support = world.images[world.group(role, variable)]
            means.append(support.mean(axis=0) @ q.gains[0] + q.offset)
            covariances.append(q.scale_tril @ q.scale_tril.T)
            variables.append(variable)
    gain, covariance = world.conditional(variables, world.xs)
    gap = _gaussian_kl(
        np.concatenate(means),
        scipy.linalg.block_diag(*covariances),
        world.images.ravel() @ gain,
        covariance,
    )
    bound, error = _bound_on_all(world, world.model(posteriors), 20_000)
    assert abs(world.log_evidence - gap - bound) < NUM_ERRORS * error


def test_a_smaller_support_loosens_the_bound():
    world = _flat()
    bounds = []
    for size in (1, 2, 4):
        model = world.model(
            {"character": world.true_posterior("character", size)}
        )
        episode = world.episode(num_repeats=4000)
        episode["support"] = {
            "character": episode["support"]["character"][:, :size]
        }
        bounds.append(4.0 * np.mean(model(episode).elbo))
    assert bounds[0] < bounds[1] < bounds[2]


# Enumeration (Eq. 13 and 15) --------------------------------------------------


def test_an_element_of_no_known_group_has_the_bound_of_the_prior():
    # E_p(c) log p(x | c), and nothing to pay for c.
    world = _flat()
    rng = np.random.default_rng(0)
    model = world.model({"character": world.random_posterior("character", rng)})
    num_repeats = 20_000
    episode = world.episode(num_repeats)
    without = model(episode)
    known = tf.tile([True, False, True, False], [num_repeats])
    size = tf.where(known, episode["group_size"]["character"], 0)
    terms = model(
        {
            **episode,
            "has_label": {"character": known},
            "group_size": {"character": size},
        }
    )
    np.testing.assert_array_equal(terms.elbo[known], without.elbo[known])
    np.testing.assert_array_equal(terms.kl["character"][~known], 0.0)
    np.testing.assert_array_equal(terms.scaled_kl["character"][~known], 0.0)
    loading = world.loadings["character"]
    expected = (
        scipy.stats.norm.logpdf(world.images, 0.0, NOISE).sum(axis=-1)
        - np.square(loading).sum() / (2 * NOISE**2)
    )[[1, 3]]
    elbo = np.float64(terms.elbo[~known]).reshape(num_repeats, 2)
    error = elbo.std(axis=0) / np.sqrt(num_repeats)
    assert np.all(NUM_ERRORS * error < 0.05 * np.abs(expected))
    assert np.all(np.abs(elbo.mean(axis=0) - expected) < NUM_ERRORS * error)


@pytest.mark.parametrize("parameters", range(3))
def test_a_bound_with_missing_labels_never_exceeds_the_evidence(parameters):
    # The last element has a row but no known column: one of its own.
    elements = [*_crossed().elements, {"row": "r0", "column": "k9"}]
    world = World([Role("row", 1), Role("column", 2)], elements)
    rng = np.random.default_rng(parameters)
    model = world.model(
        {r: world.random_posterior(r, rng) for r in world.roles}
    )
    num_repeats = 4000
    episode = _with_equal_supports(world, num_repeats)
    known = tf.tile([True] * 4 + [False], [num_repeats])
    episode["has_label"] = {"column": known}
    episode["group_size"]["column"] = tf.where(
        known, episode["group_size"]["column"], 0
    )
    terms = model(episode)
    sums = np.float64(terms.elbo).reshape(num_repeats, 5).sum(axis=1)
    error = sums.std() / np.sqrt(num_repeats)
    assert sums.mean() - NUM_ERRORS * error <= world.log_evidence


def _with_equal_supports(world, num_repeats):
    """As `World.episode`, with the first element of each group as D."""
    images = world.images.reshape(-1, *IMAGE_SHAPE)
    supports, sizes = {}, {}
    for role in world.roles:
        groups = [world.group(role, e[role]) for e in world.elements]
        first = images[[members[0] for members in groups]]
        supports[role] = tf.tile(
            first[:, np.newaxis], [num_repeats, 1, 1, 1, 1]
        )
        sizes[role] = tf.tile(
            [len(members) for members in groups], [num_repeats]
        )
    return {
        "query": tf.tile(images, [num_repeats, 1, 1, 1]),
        "support": supports,
        "group_size": sizes,
        "seed": random.fold_in(SEED, tf.range(len(images) * num_repeats)),
    }


def _all_supports(world):
    return list(itertools.combinations(range(len(world.elements)), 2))


def test_the_objective_enumerated_is_the_bound_of_each_support_averaged():
    world = _flat()
    q = world.true_posterior("character", 2)
    model = world.model({"character": q})
    images = tf.reshape(world.images, [-1, *IMAGE_SHAPE])
    seed = tf.constant(SEED, tf.int32)
    objective, bounds = [], []
    for members in _all_supports(world):
        support = {"character": tf.gather(images, members)[tf.newaxis]}
        for x in range(4):
            episode = {
                "query": images[x : x + 1],
                "support": support,
                "group_size": {"character": tf.constant([4])},
                "seed": seed[tf.newaxis],
            }
            objective.append(np.float64(model(episode).elbo[0]))
        # Eq. 12, by hand: sum{ log p(x | c) : x in X } - KL[q(c; D) || p(c)].
        c = model.infer(support, seed=seed[tf.newaxis])["character"]
        c = np.float64(c[0, 0])
        log_density = scipy.stats.norm.logpdf(
            world.images, c @ world.loadings["character"], NOISE
        )
        mean = world.images[list(members)].mean(axis=0) @ q.gains[0]
        kl = _gaussian_kl(
            mean, q.scale_tril @ q.scale_tril.T, np.zeros(2), np.eye(2)
        )
        bounds.append(log_density.sum() - kl)
    assert len(objective) == 24
    np.testing.assert_allclose(
        np.mean(objective), np.mean(bounds) / 4.0, rtol=1e-5
    )


def test_the_objective_enumerated_bounds_the_evidence():
    world = _flat()
    model = world.model({"character": world.true_posterior("character", 2)})
    images = tf.reshape(world.images, [-1, *IMAGE_SHAPE])
    pairs = list(itertools.product(range(4), _all_supports(world)))
    num_repeats = 2000
    queries, supports = zip(*pairs * num_repeats, strict=True)
    terms = model(
        {
            "query": tf.gather(images, queries),
            "support": {"character": tf.gather(images, supports)},
            "group_size": {"character": tf.fill([len(queries)], 4)},
            "seed": random.fold_in(SEED, tf.range(len(queries))),
        }
    )
    objective = np.float64(terms.elbo).reshape(num_repeats, 24).mean(axis=1)
    error = objective.std() / np.sqrt(num_repeats)
    assert 4.0 * (objective.mean() - NUM_ERRORS * error) <= world.log_evidence


def test_rescale_is_no_bound_but_its_validation_is():
    """Closed form, |X| = 4 and |D| = 1, at the true posterior given D."""
    world = _flat()
    q = world.true_posterior("character", 1)
    model = world.model({"character": q}, objective="rescale")
    images = tf.reshape(world.images, [-1, *IMAGE_SHAPE])
    num_repeats = 2000

    def of_pairs(pairs):
        queries, members = np.repeat(pairs, num_repeats, axis=0).T
        count = len(queries)
        terms = model(
            {
                "query": tf.gather(images, queries),
                "support": {
                    "character": tf.gather(images, members)[:, tf.newaxis]
                },
                "group_size": {"character": tf.fill([count], 4)},
                "seed": random.fold_in(SEED, tf.range(count)),
            }
        )
        values = np.float64(terms.elbo).reshape(len(pairs), num_repeats)
        error = values.std(axis=1) / np.sqrt(num_repeats * len(pairs))
        return values.mean(axis=1), error.mean()

    # E log p(x | c) - KL is log p(x) here; Rescale is charged KL / 4 alone.
    own, error = of_pairs([(x, x) for x in range(4)])
    covariance = world.covariance(["x0"], ["x0"])
    means = world.images @ q.gains[0]
    log_density = scipy.stats.multivariate_normal(
        np.zeros(PIXELS), covariance
    ).logpdf(np.float64(world.images))
    kl = np.array(
        [
            _gaussian_kl(
                mean, q.scale_tril @ q.scale_tril.T, np.zeros(2), np.eye(2)
            )
            for mean in means
        ]
    )
    np.testing.assert_allclose(
        own, log_density + 0.75 * kl, atol=2 * NUM_ERRORS * error
    )
    assert 4 * (own.mean() - NUM_ERRORS * error) > world.log_evidence
    # Validation samples x and D apart: the VHE bound.
    assert model.objective.validates_resampled
    apart, error = of_pairs(list(itertools.product(range(4), range(4))))
    assert 4 * (apart.mean() - NUM_ERRORS * error) <= world.log_evidence


# Importance weighting ---------------------------------------------------------


def _log_weights(world, model, num_samples):
    """Returns log p(X, c_s) / q(c_s; X), `[S]`, for a world of one group."""
    episode = world.episode()
    support = {n: v[:1] for n, v in episode["support"].items()}
    samples, log_ratio = model.importance_sample(
        support, seed=tf.constant(SEED, tf.int32), num_samples=num_samples
    )
    each = {
        n: tf.repeat(v, len(world.elements), axis=1) for n, v in samples.items()
    }
    log_likelihood = model.log_likelihood_given(
        each, episode["query"], seed=tf.constant((5, 6), tf.int32)
    )
    assert log_ratio.shape == (num_samples, 1)
    assert log_likelihood.shape == (num_samples, len(world.elements))
    return np.float64(log_ratio[:, 0]) + np.sum(
        np.float64(log_likelihood), axis=1
    )


def _nested():
    """One alphabet with one character: supports are equal, latents two."""
    return World(
        [Role("alphabet", 2), Role("character", 1, ("alphabet",))],
        [{"alphabet": "a", "character": "c"}] * 3,
    )


@pytest.mark.parametrize("make", [_flat, _with_elements, _nested])
def test_weights_are_constant_at_the_true_posterior(make):
    world = make()
    # float32 sums of tens of nats.
    np.testing.assert_allclose(
        _log_weights(world, world.true_model(), 50),
        np.full(50, world.log_evidence),
        rtol=2e-5,
    )


def _wide_model(world):
    """Makes a model whose posterior of c is off and too wide."""
    q = world.true_posterior("character")
    wide = LinearPosterior(
        q.gains, 2.0 * q.scale_tril @ q.scale_tril.T, np.array([0.1, -0.1])
    )
    posteriors = {r: world.true_posterior(r) for r in world.roles}
    return world.model({**posteriors, "character": wide})


@pytest.mark.parametrize("make", [_flat, _with_elements])
def test_the_importance_weighted_estimate_converges_to_the_evidence(make):
    world = make()
    log_weights = _log_weights(world, _wide_model(world), 20_000)
    weights = np.exp(log_weights - world.log_evidence)
    # Delta method: the error of the log of a mean is that of the mean.
    error = weights.std() / weights.mean() / np.sqrt(len(weights))
    assert NUM_ERRORS * error < 0.2
    assert abs(np.log(weights.mean())) < NUM_ERRORS * error


def test_the_importance_weighted_estimate_rises_with_its_samples():
    world = _flat()
    log_weights = _log_weights(world, _wide_model(world), 4096)
    averages = [
        np.mean(
            scipy.special.logsumexp(log_weights.reshape(-1, k), axis=1)
            - np.log(k)
        )
        for k in (1, 4, 16, 64, 256)
    ]
    assert np.all(np.diff(averages) > 0.0)
    assert averages[0] < world.log_evidence - 0.05
    assert abs(averages[-1] - world.log_evidence) < 0.1


def test_a_crossed_group_is_weighted_from_partial_supports():
    # Rows by their own supports, columns by theirs, joined element by element.
    world = _crossed()
    model = world.true_model()
    images = world.images.reshape(-1, *IMAGE_SHAPE)
    log_weights, samples = 0.0, {}
    num_samples = 40_000
    for stream, role in enumerate(("row", "column")):
        variables = sorted({e[role] for e in world.elements})
        support = np.stack([images[world.group(role, v)] for v in variables])
        drawn, log_ratio = model.importance_sample(
            {role: tf.constant(support)},
            seed=tf.constant((stream, 9), tf.int32),
            num_samples=num_samples,
        )
        assert log_ratio.shape == (num_samples, 2)
        log_weights += np.sum(np.float64(log_ratio), axis=1)
        index = [variables.index(e[role]) for e in world.elements]
        samples[role] = tf.gather(drawn[role], index, axis=1)
    log_likelihood = model.log_likelihood_given(
        samples, tf.constant(images), seed=tf.constant(SEED, tf.int32)
    )
    log_weights += np.sum(np.float64(log_likelihood), axis=1)
    weights = np.exp(log_weights - world.log_evidence)
    error = weights.std() / weights.mean() / np.sqrt(num_samples)
    assert NUM_ERRORS * error < 0.5
    assert abs(np.log(weights.mean())) < NUM_ERRORS * error


# Conditional likelihoods ------------------------------------------------------


def _some_characters(*leading):
    rng = np.random.default_rng(2)
    return rng.normal(size=(*leading, 2)).astype(np.float32)


def test_the_likelihood_without_element_latents_is_exact():
    world = _flat()
    c = _some_characters(5, 4)
    expected = scipy.stats.norm.logpdf(
        world.images, c @ world.loadings["character"], NOISE
    ).sum(axis=-1)
    actual = world.true_model().log_likelihood_given(
        {"character": tf.constant(c)},
        world.episode()["query"],
        seed=tf.constant(SEED, tf.int32),
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def _marginal_given_character(world, c, covariance_of_c=None):
    """Returns log p(x | c) with z integrated out, `[..., B]`."""
    weight = world.weights["element", "character"]
    b = world.loadings["element"]
    loading = world.loadings["character"] + weight @ b
    covariance = b.T @ b + NOISE**2 * np.eye(PIXELS)
    if covariance_of_c is not None:
        covariance = covariance + loading.T @ covariance_of_c @ loading
    return scipy.stats.multivariate_normal(np.zeros(PIXELS), covariance).logpdf(
        world.images - c @ loading
    )


@pytest.mark.parametrize("num_element_samples", [1, 3])
def test_element_latents_integrate_out_exactly_at_their_true_posterior(
    num_element_samples,
):
    world = _with_elements()
    c = _some_characters(5, 3)
    actual = world.true_model().log_likelihood_given(
        {"character": tf.constant(c)},
        world.episode()["query"],
        seed=tf.constant(SEED, tf.int32),
        num_element_samples=num_element_samples,
    )
    np.testing.assert_allclose(
        actual, _marginal_given_character(world, c), rtol=1e-4
    )


def test_element_latents_integrate_out_as_their_samples_grow():
    world = _with_elements()
    c = _some_characters(1, 3)
    q = world.true_posterior("element")
    wide = LinearPosterior(q.gains, 3.0 * q.scale_tril @ q.scale_tril.T, [0.2])
    model = world.model(
        {"character": world.true_posterior("character"), "element": wide}
    )
    expected = _marginal_given_character(world, c)
    errors = []
    for num_samples in (1, 20_000):
        actual = model.log_likelihood_given(
            {"character": tf.constant(c)},
            world.episode()["query"],
            seed=tf.constant(SEED, tf.int32),
            num_element_samples=num_samples,
        )
        errors.append(np.abs(actual - expected).max())
    # Weights of two Gaussians of variance 1 and 3, a fifth apart, spread by
    # less than their mean: 5 / sqrt(20000) = 0.035.
    assert errors[1] < 0.035
    assert errors[1] < errors[0]


def _marginal_given_alphabet(world, a):
    """Returns log p(x | a) with c and z integrated out, `[..., B]`."""
    of_z = world.loadings["element"]
    of_c = world.loadings["character"]
    of_c = of_c + world.weights["element", "character"] @ of_z
    of_a = world.loadings["alphabet"]
    of_a = of_a + world.weights["element", "alphabet"] @ of_z
    of_a = of_a + world.weights["character", "alphabet"] @ of_c
    covariance = of_z.T @ of_z + of_c.T @ of_c + NOISE**2 * np.eye(PIXELS)
    return scipy.stats.multivariate_normal(np.zeros(PIXELS), covariance).logpdf(
        world.images - a @ of_a
    )


def _alone():
    """Four characters with one element each: a support is the element."""
    return World(
        list(_hierarchical().roles.values()),
        [
            {"alphabet": "a", "character": f"c{i}", "element": f"z{i}"}
            for i in range(4)
        ],
    )


def test_a_group_latent_left_out_integrates_out_exactly():
    # q(c; {x}, a) and q(z; x, a, c) are exact, so that one draw of each is.
    world = _alone()
    a = _some_characters(5, 4)
    actual = world.true_model().log_likelihood_given(
        {"alphabet": tf.constant(a)},
        world.episode()["query"],
        seed=tf.constant(SEED, tf.int32),
    )
    np.testing.assert_allclose(
        actual, _marginal_given_alphabet(world, a), rtol=1e-4
    )


def test_an_alphabet_is_scored_with_its_characters_integrated_out():
    world = _alone()
    model = world.true_model()
    episode = world.episode()
    support = {"alphabet": episode["support"]["alphabet"]}
    seed = tf.constant(SEED, tf.int32)
    drawn = model.infer(
        support,
        seed=random.fold_in(seed, 0),
        num_samples=7,
        sample_unobserved=False,
    )
    assert list(drawn) == ["alphabet"]
    expected = scipy.special.logsumexp(
        _marginal_given_alphabet(world, drawn["alphabet"].numpy()), axis=0
    ) - np.log(7)
    actual = model.log_likelihood(
        support, episode["query"], seed=seed, num_samples=7
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_alphabet_of_a_known_character_is_inferred_from_its_images():
    world = _hierarchical()
    model = world.true_model()
    support = world.episode()["support"]["character"]
    seed = tf.constant(SEED, tf.int32)
    implied, log_ratio = model.importance_sample(
        {"character": support}, seed=seed, num_samples=5
    )
    both = {"character": support, "alphabet": support}
    given, log_ratio_given = model.importance_sample(
        both, seed=seed, num_samples=5
    )
    for name in both:
        np.testing.assert_array_equal(implied[name], given[name])
    np.testing.assert_array_equal(log_ratio, log_ratio_given)
    # Encoded, a character has no images to infer its alphabet from.
    encoded = model.encode({"character": support})
    assert set(encoded) == {"alphabet", "character"}
    only = {"character": encoded["character"]}
    with pytest.raises(ValueError, match=r"depends on \['alphabet'\]"):
        model.infer(only, seed=seed, num_samples=5, sample_unobserved=False)


@pytest.mark.parametrize("make", [_flat, _with_elements])
def test_the_conditional_likelihood_is_the_gaussian_predictive(make):
    world = make()
    q = world.true_posterior("character")
    mean = world.images.mean(axis=0) @ q.gains[0]
    covariance = np.float64(q.scale_tril @ q.scale_tril.T)
    loading = world.loadings["character"]
    if "element" in world.roles:
        expected = _marginal_given_character(world, mean, covariance)
    else:
        expected = scipy.stats.multivariate_normal(
            mean @ loading,
            loading.T @ covariance @ loading + NOISE**2 * np.eye(PIXELS),
        ).logpdf(world.images)
    num_samples = 20_000
    episode = world.episode()
    actual = world.true_model().log_likelihood(
        episode["support"]["character"],
        episode["query"],
        seed=tf.constant(SEED, tf.int32),
        num_samples=num_samples,
    )
    # Delta method, with the spread of p(x | c) under q by NumPy's own draws.
    c = np.random.default_rng(0).multivariate_normal(mean, covariance, 10_000)
    if "element" in world.roles:
        log_density = _marginal_given_character(world, c[:, np.newaxis])
    else:
        log_density = scipy.stats.norm.logpdf(
            world.images, (c @ loading)[:, np.newaxis], NOISE
        ).sum(axis=-1)
    density = np.exp(log_density)
    error = density.std(axis=0) / density.mean(axis=0) / np.sqrt(num_samples)
    assert np.all(NUM_ERRORS * error < 0.1)
    assert np.all(np.abs(actual - expected) < NUM_ERRORS * error)


def test_classification_is_by_the_predictive_of_each_class():
    worlds = [_flat(3), _flat(3)]
    worlds[1].images = worlds[1].images + np.float32(2.0)
    model = worlds[0].true_model()
    q = worlds[0].true_posterior("character")
    covariance = np.float64(q.scale_tril @ q.scale_tril.T)
    loading = worlds[0].loadings["character"]
    support = np.stack([w.images.reshape(3, *IMAGE_SHAPE) for w in worlds])
    query = np.random.default_rng(1).normal(size=(5, PIXELS)).astype(np.float32)
    actual = model.classify(
        tf.repeat(support[np.newaxis], 5, axis=0),
        tf.reshape(query, [5, *IMAGE_SHAPE]),
        seed=tf.constant(SEED, tf.int32),
        num_samples=5000,
    )
    expected = np.stack(
        [
            scipy.stats.multivariate_normal(
                w.images.mean(axis=0) @ q.gains[0] @ loading,
                loading.T @ covariance @ loading + NOISE**2 * np.eye(PIXELS),
            ).logpdf(query)
            for w in worlds
        ],
        axis=1,
    )
    assert actual.shape == (5, 2)
    # Queries far from a class are rare under its draws; half a nat is ten
    # times the error of those that are not.
    near = expected > expected.max(axis=1, keepdims=True) - 3.0
    np.testing.assert_allclose(
        np.asarray(actual)[near], expected[near], atol=0.5
    )
    np.testing.assert_array_equal(
        np.argmax(actual, axis=1), np.argmax(expected, axis=1)
    )


def test_generation_has_the_moments_of_the_predictive():
    world = _with_elements()
    num_draws = 20_000
    support = tf.repeat(
        world.episode()["support"]["character"][:1], num_draws, axis=0
    )
    draws = np.float64(
        world.true_model().sample(support, seed=tf.constant(SEED, tf.int32))
    ).reshape(num_draws, PIXELS)
    q = world.true_posterior("character")
    loading = (
        world.loadings["character"]
        + world.weights["element", "character"] @ world.loadings["element"]
    )
    b = world.loadings["element"]
    covariance = (
        loading.T @ (q.scale_tril @ q.scale_tril.T) @ loading
        + b.T @ b
        + NOISE**2 * np.eye(PIXELS)
    )
    mean = world.images.mean(axis=0) @ q.gains[0] @ loading
    deviations = np.sqrt(np.diag(covariance))
    # Errors of a mean and, for Gaussians, of a covariance (at most
    # sqrt(2) s_i s_j / sqrt(n)).
    assert np.all(
        np.abs(draws.mean(axis=0) - mean)
        < NUM_ERRORS * deviations / np.sqrt(num_draws)
    )
    assert np.all(
        np.abs(np.cov(draws.T) - covariance)
        < NUM_ERRORS
        * np.sqrt(2.0 / num_draws)
        * np.outer(deviations, deviations)
    )


def test_unconditional_generation_has_the_moments_of_the_prior():
    world = _hierarchical()
    num_draws = 20_000
    draws = np.float64(
        world.true_model().sample_prior(
            num_draws, seed=tf.constant(SEED, tf.int32)
        )
    ).reshape(num_draws, PIXELS)
    covariance = world.covariance(world.xs[:1], world.xs[:1])
    deviations = np.sqrt(np.diag(covariance))
    assert np.all(
        np.abs(np.cov(draws.T) - covariance)
        < NUM_ERRORS
        * np.sqrt(2.0 / num_draws)
        * np.outer(deviations, deviations)
    )


# Execution --------------------------------------------------------------------


def test_xla_gives_the_same_terms():
    world = WORLDS["hierarchical"]()
    rng = np.random.default_rng(0)
    model = world.model(
        {r: world.random_posterior(r, rng) for r in world.roles}
    )
    episode = world.episode()
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        tf.function(model, jit_compile=True)(episode),
        model(episode),
    )
