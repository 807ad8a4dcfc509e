"""A VHE whose every likelihood has a closed form, and data to ask it about.

    p(c) = N(0, I)    p(z) = N(0, I)    p(x | c, z) = N(c A + z B, NOISE**2 I)

x is a 2x2 image; without `element_size` there is no z. All closed forms are by
SciPy in float64.
"""

import contextlib
from unittest import mock

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import evaluation
from vhe_tf.data import GroupedImages
from vhe_tf.evaluation import TaskDesign
from vhe_tf.layers import spatial_transformer
from vhe_tf.layers.base import BaseLayer
from vhe_tf.layers.heads import StandardNormal

IMAGE_SHAPE = (2, 2, 1)
PIXELS = 4

# A correct estimate is further off once in 2 million runs.
NUM_ERRORS = 5.0


class GaussianPosterior(BaseLayer):
    """p(c | D), or p(z | x, c): shifted and widened as `world` demands."""

    def __init__(self, world, *, per_element):
        super().__init__(autocast=False)
        self.world = world
        self.per_element = per_element

    def call(self, observed, *parents):
        world = self.world
        if self.per_element:
            total = tf.reshape(observed, [-1, PIXELS])
            total -= _times(parents[0], world.a)
            return self._given(
                total, 1.0, world.b, world.noise_covariance, world.element_width
            )
        count = tf.cast(tf.shape(observed)[1], tf.float32)
        total = tf.reshape(tf.reduce_sum(observed, axis=1), [-1, PIXELS])
        return self._given(
            total * world.use_of_support,
            count * world.use_of_support,
            world.a,
            world.marginal_covariance,
            world.width,
            world.shift,
        )

    def _given(self, total, count, loadings, noise, width, shift=0.0):
        """Conditions on a sum of samples of N(latent @ loadings, noise)."""
        gram = np.float32(_gram(loadings, noise))
        gain = np.linalg.solve(noise, loadings.T)
        covariance = tf.linalg.inv(tf.eye(len(loadings)) + count * gram)
        return tfd.MultivariateNormalTriL(
            _times(_times(total, gain), covariance) + shift,
            width * tf.linalg.cholesky(covariance),
        )


class GaussianLikelihood(BaseLayer):
    """p(x | c, z), which counts the images that it decodes at once."""

    def __init__(self, world):
        super().__init__(autocast=False)
        self.world = world

    def call(self, character, element=None):
        loc = _times(character, self.world.a)
        if element is not None:
            loc += _times(element, self.world.b)
        leading = tf.shape(loc)[:-1]
        tf.py_function(
            lambda count: self.world.decoded.append(int(count)),
            [tf.reduce_prod(leading)],
            [],
        )
        loc = tf.reshape(loc, tf.concat([leading, IMAGE_SHAPE], axis=0))
        return tfd.Independent(tfd.Normal(loc, self.world.noise), 3)


class GaussianWorld:
    """The model and its closed forms.

    Args:
        group_size: Latent size of c.
        element_size: Latent size of z; 0 for none.
        noise: Standard deviation of a pixel.
        width: By how much q(c; D) is wider than the true posterior.
        shift: By how much its mean is off.
        element_width: By how much q(z; c, x) is wider than the true one.
        use_of_support: 1 for the true posterior, 0 for one that is the prior.
        loadings: A, drawn if None.
    """

    def __init__(
        self,
        group_size=2,
        element_size=0,
        *,
        noise=0.5,
        width=1.0,
        shift=0.0,
        element_width=1.0,
        use_of_support=1.0,
        loadings=None,
    ):
        rng = np.random.default_rng(5)
        self.group_size, self.element_size = group_size, element_size
        self.noise = noise
        self.width, self.shift = width, shift
        self.element_width = element_width
        self.use_of_support = use_of_support
        self.a = rng.normal(size=(group_size, PIXELS))
        if loadings is not None:
            self.a = np.asarray(loadings, np.float64)
        self.b = rng.normal(size=(element_size, PIXELS))
        self.noise_covariance = noise**2 * np.eye(PIXELS)
        self.marginal_covariance = self.noise_covariance + self.b.T @ self.b
        self.decoded = []  # the sizes of the batches of images decoded
        self.model = self._make_model()
        self.decoded.clear()

    def _make_model(self):
        latents = [
            Latent(
                "character",
                prior=StandardNormal(self.group_size),
                posterior=GaussianPosterior(self, per_element=False),
            )
        ]
        if self.element_size:
            latents.append(
                Latent(
                    "element",
                    prior=StandardNormal(self.element_size),
                    posterior=GaussianPosterior(self, per_element=True),
                    parents=["character"],
                    per_element=True,
                )
            )
        return VHE(latents, GaussianLikelihood(self), event_shape=IMAGE_SHAPE)

    def posterior(self, support):
        """Returns mean and covariance of the model's q(c; D)."""
        support = np.float64(support).reshape(-1, PIXELS) * self.use_of_support
        count = len(support) * self.use_of_support
        covariance = np.linalg.inv(
            np.eye(self.group_size)
            + count * _gram(self.a, self.marginal_covariance)
        )
        gain = np.linalg.solve(self.marginal_covariance, self.a.T) @ covariance
        return support.sum(0) @ gain + self.shift, self.width**2 * covariance

    def log_predictive(self, support, queries):
        """Returns log E_q(c; D) p(x | c) for each query."""
        mean, covariance = self.posterior(support)
        values = scipy.stats.multivariate_normal(
            mean @ self.a,
            self.a.T @ covariance @ self.a + self.marginal_covariance,
        ).logpdf(np.float64(queries).reshape(-1, PIXELS))
        return np.reshape(values, [len(queries)])

    def log_likelihood(self, queries, c):
        """Returns log p(x | c), for broadcasting queries and c."""
        return scipy.stats.multivariate_normal(
            np.zeros(PIXELS), self.marginal_covariance
        ).logpdf(np.float64(queries) - c @ self.a)

    def log_predictive_error(self, support, queries, num_samples):
        """Returns the standard error of an estimate of `log_predictive`.

        By the delta method: that of the mean of p(x | c), over its mean, with
        the spread of p(x | c) under q from NumPy's own samples.
        """
        mean, covariance = self.posterior(support)
        c = np.random.default_rng(0).multivariate_normal(mean, covariance, 4000)
        flat = np.reshape(queries, (-1, PIXELS))
        density = np.exp(self.log_likelihood(flat, c[:, np.newaxis]))
        spread = density.std(axis=0) / density.mean(axis=0)
        return np.reshape(spread, [len(queries)]) / np.sqrt(num_samples)

    def log_evidence(self, images):
        """Returns log p(X) of images that share c."""
        count = len(images)
        covariance = np.kron(
            np.ones((count, count)), self.a.T @ self.a
        ) + np.kron(np.eye(count), self.marginal_covariance)
        return scipy.stats.multivariate_normal(
            np.zeros(count * PIXELS), covariance
        ).logpdf(np.float64(images).ravel())


def _times(vectors, matrix):
    """Returns `[..., I]` times `[I, J]`."""
    # TensorFlow 2.21's own batched `matmul` corrupts memory on CPUs where the
    # last batch axis has size 1 and the matrix has no batch axes.
    return tf.tensordot(vectors, tf.cast(matrix, tf.float32), axes=1)


def _gram(loadings, covariance):
    return loadings @ np.linalg.solve(covariance, loadings.T)


def grouped(images_by_class, **labels):
    """Makes data of a list of `[n, 4]` or `[n, 2, 2, 1]`, one a class."""
    sizes = [len(images) for images in images_by_class]
    images = np.concatenate(images_by_class).reshape(-1, *IMAGE_SHAPE)
    character = np.repeat(np.arange(len(sizes)), sizes)
    return GroupedImages(
        images.astype(np.float32),
        {
            "character": character,
            **{
                name: np.asarray(ids)[character] for name, ids in labels.items()
            },
        },
    )


def uniform_data(sizes=(6,) * 8, seed=0, **labels):
    """Makes data of uniform noise, classes with a brightness of their own."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.2, 0.8, size=(len(sizes), PIXELS))
    return grouped(
        [
            centre + rng.uniform(-0.2, 0.2, size=(size, PIXELS))
            for centre, size in zip(centres, sizes, strict=True)
        ],
        **labels,
    )


def assert_alike(value, wanted, *, rtol=2e-5):
    """Checks that floats are equal to rounding, and all else is equal."""
    if isinstance(wanted, dict):
        assert list(value) == list(wanted)
        for name, item in wanted.items():
            assert_alike(value[name], item, rtol=rtol)
    elif isinstance(wanted, list):
        assert len(value) == len(wanted)
        for item, wanted_item in zip(value, wanted, strict=True):
            assert_alike(item, wanted_item, rtol=rtol)
    elif isinstance(wanted, float):
        np.testing.assert_allclose(value, wanted, rtol=rtol, atol=1e-6)
    else:
        assert value == wanted


def few_shot_tasks(data, *, group, num_tasks, seed=0, **design):
    return evaluation.few_shot_tasks(
        data, TaskDesign(**design), group=group, num_tasks=num_tasks, seed=seed
    )


def few_shot_accuracy(
    scorer, data, *, num_tasks, seed=0, progress=None, **design
):
    return evaluation.few_shot_accuracy(
        scorer,
        data,
        design=TaskDesign(**design),
        num_tasks=num_tasks,
        seed=seed,
        progress=progress,
    )


class OneByOne:
    """A scorer that has no replicas."""

    num_samples = None
    num_element_samples = None

    def each(self, tasks, *, seed):
        for index, task in enumerate(tasks):
            scores = self(task.support, task.queries, seed=(seed, index))
            yield task, scores


class NearestNeighbour(OneByOne):
    """A scorer without a model: minus the mean distance to the support."""

    group = "character"

    def __init__(self):
        self.num_scored = 0

    def __call__(self, support, queries, *, seed):
        del seed
        self.num_scored += len(queries)
        away = np.abs(queries[:, np.newaxis, np.newaxis] - support)
        return -away.mean(axis=(-3, -2, -1)).min(axis=-1)  # [Q, K]


@contextlib.contextmanager
def latents_seen(model):
    """Lists the latents, by name, of every call of a model's likelihood."""
    seen = []
    call = model.likelihood.call

    def spy(**latents):
        seen.append({name: value.numpy() for name, value in latents.items()})
        return call(**latents)

    tf.config.run_functions_eagerly(True)
    try:
        with mock.patch.object(model.likelihood, "call", spy):
            yield seen
    finally:
        tf.config.run_functions_eagerly(False)


def pixel_cnn_log_weight(model, image, c, z):
    """Returns log p(x | c, z) p(z) / q(z; x, c) of one image, nats.

    By the networks of a small `pixel_cnn_vhe`, NumPy and SciPy, without any
    distribution or leading axis of the package.
    """
    image, c, z = (tf.constant(v[np.newaxis]) for v in (image, c, z))
    likelihood, pose = model.likelihood, model.latents[1].posterior
    conditioning = spatial_transformer.affine_transform(
        c, likelihood.affine_map(z)
    )
    logits = np.float64(likelihood.network(image, conditioning))
    log_p = scipy.special.log_expit((2.0 * image.numpy() - 1.0) * logits).sum()
    features = pose.encoder(tf.concat([image, c], axis=-1))
    loc, raw_scale = np.split(np.float64(pose.head.parameters(features))[0], 2)
    q = scipy.stats.norm(loc, np.logaddexp(0.0, raw_scale) + 1e-5)
    z = z.numpy()[0]
    return log_p + (scipy.stats.norm.logpdf(z) - q.logpdf(z)).sum()
