"""Linear probes: which known factor of the data a latent holds.

If the true factors of the images are known (alphabet, character, drawer,
style), the right latent predicts its factor by a linear map, and the wrong one
does not.

The classifier is linear discriminant analysis with a ridge, in closed form: it
scores class k by the features' inner product with S^-1 m_k, where m_k is the
mean of the class and S the covariance within classes plus the ridge. For two
classes that is ridge regression on indicators. For more it is better than a
regression of each class against the rest, which hides classes that lie between
others (Hastie, Tibshirani and Friedman, 2009, Section 4.2): six features that
separate thirty classes seem to know two thirds of them.

A probe asks what can be read off the means of the posteriors, however small
they are: a latent that has gone back to its prior may still be read. Its KL
shows this.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.tasks import check_ready
from vhe_tf.models.vhe import VHE

__all__ = ["linear_probe", "posterior_means"]

# Relative to the variance of a standardised feature, 1. Of equally good ones
# the first is taken.
_RIDGES = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-6)
# One to fit, one to choose the ridge, one to test.
_MIN_GROUPS = 3
# Of the groups of each class to test on, and of the others to choose the ridge
# on; at least one.
_TEST_SHARE = 0.3
# Orders in which to deal groups that hold several classes each.
_NUM_DEALS = 100
_IMAGES_AT_ONCE = 256


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Measurement:
    """Measures how well a linear classifier predicts labels from features.

    Args:
        features: `[M, F]`, the features of each example.
        labels: `[M]`, the class ids, any integers; an example whose label is
            negative, not known, is left out, and so are classes in fewer than
            three groups.
        groups: `[M]` integers. Examples of one group are all trained on or all
            tested on, so that nothing is gained by recognising a group: the
            character, where alphabets are the classes. Each example is a group
            of its own if None.
        seed: Integer. Random seed of the parts.

    Returns:
        The accuracy on the test part, three tenths of the groups of each
        class, with an interval over its groups. The `chance` is the share of
        the most frequent class in the test part. Every class is in each part.

    Raises:
        ValueError: If shapes do not agree, features are not finite, or there
            are fewer than two classes that can be in each part.

    Example:
    >>> labels = np.arange(40) % 2
    >>> linear_probe(labels[:, None].astype(float), labels).mean
    1.0
    """
    if groups is None:
        groups = np.arange(len(labels))
    _check(features, labels, groups)
    usable = np.isin(labels, _usable_classes(labels, groups))
    features = np.asarray(features[usable], np.float64)
    _, classes = np.unique(labels[usable], return_inverse=True)
    _, groups = np.unique(groups[usable], return_inverse=True)
    test, choice = _parts(classes, groups, seed)
    right = (
        _predictions(features, classes, ~test & ~choice, choice, _RIDGES)
        == classes[choice]
    )
    ridge = _RIDGES[right.mean(axis=1).argmax()]
    [answers] = _predictions(features, classes, ~test, test, [ridge])
    return Measurement.of(
        "probe",
        _mean_by_group(answers == classes[test], groups[test]),
        chance=float(np.bincount(classes[test]).max() / test.sum()),
        num_queries=int(test.sum()),
    )


def posterior_means(
    model: VHE,
    data: GroupedImages,
    *,
    latent: str,
    num_shots: int = 1,
    seed: int = 0,
    max_images: int = 5000,
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes many supports, each of one group.

    No image is in two supports. All groups have equally many supports, as far
    as their images and `max_images` go; images of no known group, and groups
    of fewer than `num_shots` images, are left out.

    Args:
        model: `VHE`. The model.
        data: `GroupedImages`. Images ready for the model.
        latent: String. The group latent to infer, and the grouping of the data
            whose groups the supports are from.
        num_shots: Integer. N, the number of images in a support. If it is 1,
            all labels of the image are those of the support. If it is larger,
            images of a support may differ in other labels.
        seed: Integer. Random seed of the supports.
        max_images: Integer. The largest number of images to encode.

    Returns:
        The means of q(latent; D), flattened, `[M, F]` float32; and the indices
        of the images of each D, `[M, N]`: `data.labels[name][indices]` are
        their labels.

    Raises:
        ValueError: If the model has no such group latent or the data no such
            grouping, or there is no support of `num_shots` images.

    Example:
    >>> means, indices = posterior_means(model, data, latent="character")
    >>> means.shape, indices.shape
    ((42, 2), (42, 1))
    """
    check_ready(data, model)
    indices = _supports(data, latent, num_shots, max_images, seed)
    encode = tf.function(
        lambda support: model.encode({latent: support})[latent].mean(),
        reduce_retracing=True,
        autograph=False,
    )
    at_once = max(1, _IMAGES_AT_ONCE // num_shots)
    means = [
        encode(tf.constant(data.images[indices[start : start + at_once]]))
        for start in range(0, len(indices), at_once)
    ]
    flat = np.concatenate(means).reshape(len(indices), -1)
    return flat.astype(np.float32), indices


# The classifier --------------------------------------------------------------


def _predictions(
    features: np.ndarray,
    classes: np.ndarray,
    train: np.ndarray,
    on: np.ndarray,
    ridges: Sequence[float],
) -> np.ndarray:
    """Returns the classes that discriminant analysis finds.

    Args:
        features: `[M, F]` float64, the features of each example.
        classes: `[M]`, the class of each example, in 0..K-1.
        train: `[M]` bool, the examples to learn from, some of each class.
        on: `[M]` bool, the examples to classify.
        ridges: For each answer, what to add to the variances within classes.

    Returns:
        `[R, m]`, one row per ridge, for the m examples of `on`.
    """
    own, others = _standardised(features[train], features[on])
    classes = classes[train]
    counts = np.bincount(classes)
    one_hot = np.eye(len(counts))[classes]
    means = one_hot.T @ own / counts[:, np.newaxis]  # [K, F]
    within = own - means[classes]
    covariance = within.T @ within / len(own)
    answers = []
    for ridge in ridges:
        weights = np.linalg.solve(
            covariance + ridge * np.eye(len(covariance)), means.T
        )  # [F, K]
        bias = np.log(counts) - 0.5 * np.sum(means.T * weights, axis=0)
        answers.append(np.argmax(others @ weights + bias, axis=1))
    return np.stack(answers)


def _standardised(
    own: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns features that have mean 0 and variance 1 over `own`.

    Where there are more features than examples, they are expressed in a basis
    of what `own` spans: directions beyond have no weight.
    """
    mean, spread = own.mean(axis=0), own.std(axis=0)
    spread = np.where(spread > 0.0, spread, 1.0)
    own, others = (own - mean) / spread, (others - mean) / spread
    if own.shape[1] > len(own):
        basis, _ = np.linalg.qr(own.T)
        own, others = own @ basis, others @ basis
    return own, others


def _mean_by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns a value per group; their mean is the mean over examples."""
    _, groups = np.unique(groups, return_inverse=True)
    # A ratio of two sums over groups varies as the mean of its residuals does.
    mean = values.mean()
    sizes = np.bincount(groups)
    residuals = np.bincount(groups, values) - mean * sizes
    return mean + residuals / sizes.mean()


# The parts -------------------------------------------------------------------


def _usable_classes(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the ids of the classes that can be in each part."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    ids, num_groups = np.unique(pairs[0], return_counts=True)
    usable = ids[(num_groups >= _MIN_GROUPS) & (ids >= 0)]
    if len(usable) < 2:
        raise ValueError(
            f"A probe needs two classes in at least {_MIN_GROUPS} groups each "
            "(without `groups`, examples): one to fit, one to choose the ridge "
            "and one to test. Have more examples, or probe another factor. "
            f"Received: {np.sum(ids >= 0)} classes, {len(usable)} of them in "
            "so many groups."
        )
    return usable


def _parts(
    classes: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which examples to test on and to choose on, `[M]` bool each."""
    holds = np.zeros((groups.max() + 1, classes.max() + 1), bool)
    holds[groups, classes] = True
    rng = np.random.default_rng(seed)
    test = _deal(holds, rng, num_kept=2)
    choice = np.zeros(len(holds), bool)
    choice[~test] = _deal(holds[~test], rng, num_kept=1)
    return test[groups], choice[groups]


def _deal(
    holds: np.ndarray,
    rng: np.random.Generator,
    *,
    num_kept: int,
) -> np.ndarray:
    """Takes a random part of the groups that has a share of every class.

    Args:
        holds: `[G, K]` bool, which groups hold which classes.
        rng: Decides which.
        num_kept: How many groups of each class to leave at least.

    Returns:
        `[G]` bool, the groups taken.

    Raises:
        ValueError: If no such part is found.
    """
    total = holds.sum(axis=0)
    wanted = np.clip(np.round(_TEST_SHARE * total), 1, total - num_kept)
    for _ in range(_NUM_DEALS):
        taken = np.zeros(len(holds), bool)
        count = np.zeros(len(total))
        for group in rng.permutation(len(holds)):
            # Whether |wanted - count|^2 becomes no larger.
            if np.sum(2.0 * (wanted - count)[holds[group]] - 1.0) >= 0.0:
                taken[group] = True
                count += holds[group]
        if np.all((count >= 1) & (count <= total - num_kept)):
            return taken
    raise ValueError(
        "No split of the groups has every class in the training and in the "
        "test part; have more groups, or leave out classes of few groups. "
        f"Received: {len(holds)} groups of {len(total)} classes, the rarest in "
        f"{total.min()} groups."
    )


def _supports(
    data: GroupedImages,
    grouping: str,
    num_shots: int,
    max_images: int,
    seed: int,
) -> np.ndarray:
    """Samples disjoint supports, `[M, N]` indices, in turn from every group."""
    if grouping not in data.labels:
        raise ValueError(
            "`latent` must be a grouping of the data, one of "
            f"{sorted(data.labels)}. Received: latent={grouping!r}."
        )
    if num_shots < 1:
        raise ValueError(
            "A support holds at least one image. "
            f"Received: num_shots={num_shots}."
        )
    rng = np.random.default_rng(seed)
    ids = data.labels[grouping]
    supports = []
    by_group = data.members(grouping)
    for group in rng.permutation(list(by_group)):
        members = rng.permutation(by_group[group])
        whole = len(members) // num_shots * num_shots
        supports += list(enumerate(members[:whole].reshape(-1, num_shots)))
    supports.sort(key=lambda turn_and_support: turn_and_support[0])
    chosen = [support for _, support in supports[: max_images // num_shots]]
    if not chosen:
        raise ValueError(
            f"There must be a {grouping} of at least `num_shots` images, and "
            "`max_images` at least that. Received: "
            f"num_shots={num_shots}, max_images={max_images}, and at most "
            f"{np.bincount(ids[ids >= 0], minlength=1).max()} images of one "
            f"{grouping}."
        )
    return np.stack(chosen)


def _check(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
) -> None:
    num_examples = len(features)
    if (
        features.ndim != 2
        or labels.shape != (num_examples,)
        or groups.shape != (num_examples,)
    ):
        raise ValueError(
            "A probe takes features [M, F], labels [M] and groups [M]; flatten "
            "a latent with `reshape(len(latent), -1)`. Received: shapes "
            f"{features.shape}, {labels.shape} and {groups.shape}."
        )
    if not np.isfinite(features).all():
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        raise ValueError(
            "Features must be finite; leave out the examples that are not. "
            f"Received: {len(bad)} such examples, the first at index {bad[0]}."
        )
