"""Alphabets above the characters of a trained model, in closed form.

    python -m tools.alphabet_hierarchy --data_dir=DIR --picture=new.png

In a model of characters alone, the mean of q(c; x) of an image is taken as an
observation of c. An alphabet a shifts the characters in it: c = m + a + e, a
from N(0, B) and e from N(0, W) (Ioffe 2006, "Probabilistic linear discriminant
analysis"). B and W are moments of the training alphabets, each in its eight
symmetries, in the first principal components of the means. Nothing is trained.

Given images of N characters, p(a | D) is a Gaussian, and so is that of the next
image, by which images of other characters are classified. New characters of an
alphabet are sampled from p(c | D)^(1 + w) / p(c)^w, guidance for c as for
pixels, in the first components, keep its mean in the others, and have the noise
of q(c; x). The model draws them, and `evaluation.NewGroups` says how many show
their alphabet. The test alphabets are unseen.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import vhe_tf
from vhe_tf import evaluation
from vhe_tf import visualization
from vhe_tf.data import GroupedImages
from vhe_tf.data.augmentation import symmetry
from vhe_tf.data.datasets import ready
from vhe_tf.data.datasets.omniglot import load_omniglot

_SYMMETRIES = 8
_IMAGES = 2  # of a character to fit to
_SHOTS = 5
# Of the mean variance: keeps covariances invertible.
_FLOOR = 1e-3
_RANK = 100  # principal components of c
# Those in which new characters differ from the mean of their alphabet.
_DRAWN_RANK = 16
_GUIDANCE = 4.0  # of c


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """Gaussians of alphabets and of the characters within them.

    Attributes:
        mean: `[D]`, m.
        components: `[R, D]`, orthonormal rows.
        between: `[R, R]`, B.
        within: `[R, R]`, W.
        scale: `[D]`, standard deviations of q(c; x).
    """

    mean: np.ndarray
    components: np.ndarray
    between: np.ndarray
    within: np.ndarray
    scale: np.ndarray

    def next_character(
        self, given: np.ndarray, *, guidance: float = 0.0
    ) -> tuple[np.ndarray, ...]:
        """Returns mean and covariance of the next c, in the components.

        Args:
            given: `[N, R]`, of N characters of an alphabet.
            guidance: Float, w. The Gaussian is p(c | D)^(1 + w) / p(c)^w.
        """
        precision = np.linalg.inv(self.within)
        covariance = np.linalg.inv(
            np.linalg.inv(self.between) + len(given) * precision
        )
        mean = covariance @ precision @ given.sum(axis=0)
        precision = (1.0 + guidance) * np.linalg.inv(covariance + self.within)
        prior = np.linalg.inv(self.between + self.within)
        guided = np.linalg.inv(precision - guidance * prior)
        return guided @ precision @ mean, guided

    def project(self, means: np.ndarray) -> np.ndarray:
        """Returns `[M, R]` of means `[M, D]`."""
        return (means - self.mean) @ self.components.T


def main(argv: Sequence[str]) -> None:
    """Fits, classifies and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="omniglot_pixel_cnn_small")
    parser.add_argument("--data_dir", help="TensorFlow Datasets folder")
    parser.add_argument("--picture", help="PNG of new characters")
    parser.add_argument("--num_tasks", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=_GUIDANCE)
    asked = parser.parse_args(argv[1:])
    model = vhe_tf.load_model(asked.model)
    data = load_omniglot(recipe="binary", data_dir=asked.data_dir)
    train, test = ready(data.train, "binary"), ready(data.test, "binary")
    hierarchy = fit(*_training_means(model, train))
    means, _ = _encoded(model, test.images)
    for ways in (10, 20):
        for shots in (1, _SHOTS):
            found = accuracy(
                hierarchy,
                test,
                hierarchy.project(means),
                ways=ways,
                shots=shots,
                num_tasks=asked.num_tasks,
            )
            print(_line(found))
    drawing = Drawing(model, hierarchy, guidance=asked.guidance)
    judge: Any = evaluation.NewGroups(test, num_shots=_SHOTS)
    for found in judge(drawing):
        print(_line(found))
    if asked.picture:
        visualization.save_png(asked.picture, _grid(drawing, test))


def fit(
    means: np.ndarray,
    scale: np.ndarray,
    alphabets: np.ndarray,
    *,
    rank: int = _RANK,
) -> Hierarchy:
    """Fits a hierarchy by moments.

    Args:
        means: `[M, D]`, of q(c; x) of images.
        scale: `[D]`, its standard deviations.
        alphabets: `[M]` integers.
        rank: Integer, R.
    """
    mean = means.mean(axis=0)
    centred = means - mean
    some = np.random.default_rng(0).permutation(len(means))[:2048]
    _, _, components = np.linalg.svd(centred[some], full_matrices=False)
    components = components[:rank]
    values = centred @ components.T
    ids, which, counts = np.unique(
        alphabets, return_inverse=True, return_counts=True
    )
    centres = np.stack([values[which == k].mean(0) for k in range(len(ids))])
    within = np.cov((values - centres[which]).T)
    floor = _FLOOR * np.trace(within) / rank * np.eye(rank)
    between = np.cov(centres.T) - within / counts.mean()
    eigenvalues, vectors = np.linalg.eigh(between)
    eigenvalues = np.maximum(eigenvalues, _FLOOR * eigenvalues.max())
    between = (vectors * eigenvalues) @ vectors.T
    return Hierarchy(mean, components, between, within + floor, scale)


def accuracy(
    hierarchy: Hierarchy,
    data: GroupedImages,
    values: np.ndarray,
    *,
    ways: int,
    shots: int,
    num_tasks: int,
) -> evaluation.Measurement:
    """Classifies images of other characters by their alphabet.

    Args:
        hierarchy: `Hierarchy`.
        data: `GroupedImages`. Images of unseen alphabets.
        values: `[M, R]`, their means in the components.
        ways: Integer. Alphabets in a task.
        shots: Integer. Characters given of each.
        num_tasks: Integer.
    """
    rng = np.random.default_rng(0)
    characters = {
        int(alphabet): [
            np.flatnonzero(data.labels["character"] == character)
            for character in np.unique(data.labels["character"][members])
        ]
        for alphabet, members in data.members("alphabet").items()
    }
    shares = []
    for _ in range(num_tasks):
        chosen = rng.choice(list(characters), ways, replace=False)
        given, queries = [], []
        for alphabet in chosen:
            of = characters[alphabet]
            places = rng.permutation(len(of))[: shots + 1]
            images = [rng.choice(of[place]) for place in places]
            given.append(values[images[:-1]])
            queries.append(values[images[-1]])
        scores = np.stack(
            [_log_density(queries, *hierarchy.next_character(d)) for d in given]
        )
        shares.append(np.mean(scores.argmax(axis=0) == np.arange(ways)))
    return evaluation.Measurement.of(
        "accuracy",
        shares,
        ways=ways,
        shots=shots,
        by="alphabet",
        chance=1 / ways,
        num_queries=ways * num_tasks,
    )


class Drawing:
    """Draws new characters of alphabets, as `VHE.sample` of such a model.

    Args:
        model: `VHE`. The model of characters.
        hierarchy: `Hierarchy`.
        guidance: Float, w. That of c.
    """

    def __init__(
        self,
        model: vhe_tf.VHE,
        hierarchy: Hierarchy,
        *,
        guidance: float = _GUIDANCE,
    ) -> None:
        self.model = model
        self.hierarchy = hierarchy
        self.guidance = guidance
        self.image_shape = self.event_shape = model.image_shape
        self.domain = model.domain

    def sample(self, support: dict[str, Any], *, seed: Any) -> tf.Tensor:
        """Returns a new character of each alphabet, `[B, H, W, C]`."""
        images = np.asarray(support["alphabet"])
        seeds = np.asarray(seed)
        shape = self.model.latents[0].prior().event_shape
        each = []
        for given, (a, b) in zip(images, seeds.tolist(), strict=True):
            rng = np.random.default_rng([a % 2**32, b % 2**32])
            means, _ = _encoded(self.model, given)
            h = self.hierarchy
            mean, covariance = h.next_character(
                h.project(means), guidance=self.guidance
            )
            value = rng.multivariate_normal(mean, covariance)
            value[_DRAWN_RANK:] = mean[_DRAWN_RANK:]
            noise = h.scale * rng.normal(size=len(h.scale))
            each.append(h.mean + value @ h.components + noise)
        c = tf.reshape(tf.constant(np.stack(each), tf.float32), [-1, *shape])
        return self.model.render({"character": c}, seed=tf.constant(seeds))


def _training_means(
    model: vhe_tf.VHE, train: GroupedImages
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns means, their standard deviation, and alphabets of the means.

    Two images of each character, in each symmetry; an alphabet in another
    symmetry is another alphabet.
    """
    rng = np.random.default_rng(0)
    chosen = np.concatenate(
        [
            rng.choice(members, _IMAGES, replace=False)
            for members in train.members("character").values()
        ]
    )
    images = train.where(np.isin(np.arange(len(train)), chosen))
    means, scales, alphabets = [], [], []
    for index in range(_SYMMETRIES):
        turned = symmetry(
            tf.constant(images.images), tf.fill([len(images)], index)
        )
        mean, scale = _encoded(model, turned.numpy())
        means.append(mean)
        scales.append(np.square(scale).mean(axis=0))
        alphabets.append(images.labels["alphabet"] * _SYMMETRIES + index)
    return (
        np.concatenate(means),
        np.sqrt(np.mean(scales, axis=0)),
        np.concatenate(alphabets),
    )


def _encoded(
    model: vhe_tf.VHE, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns means and standard deviations of q(c; x), `[M, D]` each."""
    moments = []
    for start in range(0, len(images), 256):
        batch = tf.constant(images[start : start + 256])[:, tf.newaxis]
        posterior = model.encode({"character": batch})["character"]
        moments.append((posterior.mean().numpy(), posterior.stddev().numpy()))
    mean, scale = map(np.concatenate, zip(*moments, strict=True))
    return mean.reshape(len(mean), -1), scale.reshape(len(scale), -1)


def _log_density(
    values: Sequence[np.ndarray], mean: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, (np.stack(values) - mean).T)
    return -0.5 * np.square(white).sum(0) - np.log(np.diag(factor)).sum()


def _line(measurement: evaluation.Measurement) -> str:
    low, high = measurement.interval or (np.nan, np.nan)
    return (
        f"{measurement.key}: {measurement.mean:.1%} [{low:.1%}, {high:.1%}], "
        f"chance {measurement.chance:.1%}"
    )


def _grid(drawing: Drawing, data: GroupedImages) -> np.ndarray:
    """Shows five characters of each of ten alphabets, and eight new ones."""
    rng = np.random.default_rng(0)
    rows = []
    for index, members in enumerate(data.members("alphabet").values()):
        characters = data.labels["character"][members]
        chosen = rng.permutation(np.unique(characters))[:_SHOTS]
        given = data.images[
            [rng.choice(members[characters == one]) for one in chosen]
        ]
        seeds = np.stack([np.full(8, index), np.arange(8)], axis=1)
        support = np.repeat(given[np.newaxis], 8, axis=0)
        new = drawing.sample({"alphabet": support}, seed=seeds).numpy()
        tiles = [*given, np.zeros_like(given[0, :, :4]), *new]
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows[:10], axis=0)


if __name__ == "__main__":
    main(sys.argv)
