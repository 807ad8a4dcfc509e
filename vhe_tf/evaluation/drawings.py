"""Measures of drawings of characters, by people and by models.

Diversity, recognizability and the originality curve are those of Boutin et al.
(2022), "Diversity vs. Recognizability" (arXiv 2205.10370); precision and recall
those of Kynkäänniemi et al. (2019), "Improved Precision and Recall Metric".
"""

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import evaluators
from vhe_tf.evaluation import tasks
from vhe_tf.evaluation.drawing_critics import DrawingCritics
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.models.vhe import VHE

__all__ = [
    "Drawings",
    "are_connected",
    "diversity",
    "drawing_classes",
    "frechet_distance",
    "originality",
    "precision_and_recall",
    "recognizability",
]

_WAYS = 20
_NEIGHBOURS = 3
_FIFTHS = 5
_CLASSES_PER_GROUP = 3
# Samples, of which `best_of` make a drawing: 3 GiB for the small PixelCNN.
_SAMPLED_AT_ONCE = 100
# All are compared with all: this bounds the memory.
_MOST_COMPARED = 3000


@dataclasses.dataclass(eq=False, repr=False)
class Drawings(evaluators.Evaluator):
    """Drawings by a model beside those by people, as critics judge them.

    The support of a character are the N drawings nearest to the mean of all in
    the features of `DrawingCritics.recognition`. The model samples the
    character from its support alone. People's drawings are all but the nearest
    one. The measurements have `tasks` `"people"`, `"1shot"` and so on, and
    `"unconditional"` for characters that do not exist. Their factors:

    - `recognizability`, `diversity`, and `originality1` to `originality5`;
    - `connected`, `ink`, `blank`: shares of drawings that are one figure, of
      pixels that are ink, and of drawings without ink;
    - `precision` and `recall` against people's drawings, and for unconditional
      drawings also `frechet`, in the features of `DrawingCritics.variation`.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model, of
            one channel. `drawing_classes` selects the usual ones of Omniglot.
        group: String. The group latent, and grouping, that is drawn.
        shots: Sequence of integers, each N. Those for which the smallest class
            has too few images are omitted. Defaults to `(1,)`.
        num_drawings: Integer. Drawings of each class. Defaults to 20.
        num_unconditional: Integer. Drawings of new characters; 0 for none.
            Defaults to 0.
        critics: `DrawingCritics`. Defaults to those of the package.
        options: Mapping. Arguments of `VHE.sample`, such as `guidance`. All but
            `best_of` are also those of unconditional drawings.
        seed: Integer. Seed of the drawings. Defaults to 0.

    Raises:
        ValueError: If `num_drawings` is below 5 or a class has fewer than 6
            images: each fifth of the originality curve needs a drawing.

    Example:
    >>> drawings = Drawings(data, group="character", num_drawings=5)
    >>> {measurement.tasks for measurement in drawings(model)} == {
    ...     "people", "1shot"}
    True
    """

    data: GroupedImages
    _: dataclasses.KW_ONLY
    group: str
    shots: Sequence[int] = (1,)
    num_drawings: int = 20
    num_unconditional: int = 0
    critics: DrawingCritics = dataclasses.field(
        default_factory=DrawingCritics.load
    )
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        data, num_drawings = self.data, self.num_drawings
        tasks.check_ready(data, groupings=[self.group])
        members = data.members(self.group)
        ids, counts = np.unique(data.labels[self.group], return_counts=True)
        ids, counts = ids[ids >= 0], counts[ids >= 0]
        self._most_shots = int(counts.min()) - 1
        if num_drawings < _FIFTHS or self._most_shots < _FIFTHS:
            raise ValueError(
                f"Drawings are judged in {_FIFTHS} parts: `num_drawings` must "
                f"be {_FIFTHS} or more, and each class have at least "
                f"{_FIFTHS + 1} images. Received: num_drawings={num_drawings}, "
                f"a class of {counts.min()} images."
            )
        true = np.stack(
            [data.images[members[int(i)][: counts.min()]] for i in ids]
        )  # [K, M, H, W, 1]
        features = self._features(self.critics.recognition, true)
        distance = np.linalg.norm(
            features - features.mean(axis=1, keepdims=True), axis=-1
        )
        order = np.argsort(distance, axis=1)[..., None, None, None]
        self._true = np.take_along_axis(true, order, axis=1)  # typical first

    def __call__(
        self, model: VHE, progress: evaluators.Progress = None
    ) -> list[Measurement]:
        """See base class."""
        found = self._judged(self._true[:, 1:], "people")
        for shots in self.shots:
            if shots > self._most_shots:
                continue
            supports = np.repeat(
                self._true[:, :shots], self.num_drawings, axis=0
            )
            made = self._made(model, supports, len(supports), progress)
            shape = (len(self._true), self.num_drawings, *made.shape[1:])
            found += self._judged(made.reshape(shape), f"{shots}shot")
        if self.num_unconditional:
            made = self._made(model, None, self.num_unconditional, progress)
            found += self._figures(made[:, np.newaxis], "unconditional")
        return found

    def left_out(self, model: VHE) -> list[str]:
        """See base class."""
        return [
            f"drawings from {shots} images: the smallest class has "
            f"{self._true.shape[1]}"
            for shots in self.shots
            if shots > self._most_shots
        ]

    def _made(
        self,
        model: VHE,
        supports: np.ndarray | None,
        count: int,
        progress: evaluators.Progress,
    ) -> np.ndarray:
        """Returns `[count, H, W, 1]` for supports `[count, N, H, W, 1]`."""
        pieces = []
        at_once = max(1, _SAMPLED_AT_ONCE // self.options.get("best_of", 1))
        of_prior = {k: v for k, v in self.options.items() if k != "best_of"}
        for start in range(0, count, at_once):
            rows = range(start, min(start + at_once, count))
            seeds = random.fold_in(self.seed, tf.range(rows.start, rows.stop))
            if supports is None:
                made = model.sample_prior(len(rows), seed=seeds, **of_prior)
            else:
                made = model.sample(
                    {self.group: tf.constant(supports[rows.start : rows.stop])},
                    seed=seeds,
                    **self.options,
                )
            pieces.append(made.numpy())
            if progress:
                progress(f"drawings: {rows.stop} of {count}")
        return np.concatenate(pieces)

    def _judged(self, drawings: np.ndarray, by: str) -> list[Measurement]:
        """Measures drawings `[K, M, H, W, 1]` of the classes."""
        exemplars = self._true[:, :1]
        recognition, variation = (
            self.critics.recognition,
            self.critics.variation,
        )
        recognized = recognizability(
            self._features(recognition, drawings),
            self._features(recognition, exemplars)[:, 0],
        )
        features = self._features(variation, drawings)
        fifths = originality(
            features,
            self._features(variation, exemplars)[:, 0],
            recognized=recognized,
        )
        return [
            _share(by, "recognizability", recognized),
            _measurement(by, "diversity", diversity(features)),
            *(
                _measurement(
                    by,
                    f"originality{part + 1}",
                    fifths[:, part],
                    num_queries=recognized.size // _FIFTHS,
                )
                for part in range(_FIFTHS)
            ),
            *self._figures(drawings, by),
        ]

    def _figures(self, drawings: np.ndarray, by: str) -> list[Measurement]:
        """Measures figures, and features against those of people."""
        flat = drawings.reshape(-1, *drawings.shape[2:])
        inked = drawings > 0.5
        connected = are_connected(flat).reshape(drawings.shape[:2])
        found = [
            _share(by, "connected", connected),
            _share(by, "ink", inked),
            _share(by, "blank", ~np.any(inked, axis=(2, 3, 4))),
        ]
        if by == "people":
            return found
        features = [
            self._features(self.critics.variation, v).reshape(
                v[..., 0, 0, 0].size, -1
            )
            for v in (self._true[:, 1:], drawings)
        ]
        precise, recalled = precision_and_recall(
            *(each[:: -(-len(each) // _MOST_COMPARED)] for each in features)
        )
        found += [
            _measurement(by, "precision", precise),
            _measurement(by, "recall", recalled),
        ]
        if by == "unconditional":
            distance = frechet_distance(*features)
            found.append(_measurement(by, "frechet", [distance]))
        return found

    def _features(self, critic: Any, drawings: np.ndarray) -> np.ndarray:
        """Returns `[K, M, F]` of `[K, M, H, W, 1]`."""
        flat = drawings.reshape(-1, *drawings.shape[2:])
        return critic(flat).reshape(*drawings.shape[:2], -1)


def _share(by: str, factor: str, each: np.ndarray) -> Measurement:
    """Measures a share of drawings, or of pixels, `[K, ...]` of K classes."""
    return _measurement(
        by,
        factor,
        each.reshape(len(each), -1).mean(axis=1),
        num_queries=each.size,
    )


def _measurement(
    by: str, factor: str, values: Any, num_queries: int | None = None
) -> Measurement:
    unit = {"diversity": "standard deviations", "frechet": "squared distance"}
    return Measurement.of(
        "drawings",
        values,
        tasks=by,
        factor=factor,
        unit=unit.get(factor, "fraction"),
        num_queries=num_queries,
    )


def drawing_classes(
    data: GroupedImages, *, group: str, within: str | None = None
) -> GroupedImages:
    """Returns the images of the first three classes of each coarser group.

    With `within="alphabet"`, these are the 60 characters of Omniglot's
    evaluation set that the published map also holds out.

    Args:
        data: `GroupedImages`. Images of unseen groups.
        group: String. The grouping whose groups are the classes.
        within: String or None. The coarser grouping. None returns all classes.

    Example:
    >>> columns = {"character": np.arange(8), "alphabet": np.arange(8) // 4}
    >>> eight = GroupedImages(data.images[:8], columns)
    >>> drawing_classes(
    ...     eight, group="character", within="alphabet").labels["character"]
    array([0, 1, 2, 4, 5, 6])
    """
    if within is None:
        return data
    classes = data.labels[group]
    chosen = [
        np.unique(classes[indices])[:_CLASSES_PER_GROUP]
        for indices in data.members(within).values()
    ]
    return data.where(np.isin(classes, np.concatenate(chosen)))


def diversity(features: np.ndarray) -> np.ndarray:
    """Returns how much the drawings of each character differ.

    Args:
        features: Array of shape `[K, M, F]` of a `DrawingCritics.variation`,
            M drawings of each of K characters.

    Returns:
        Array of shape `[K]`: the unbiased standard deviation over the drawings
        of a character, in units of that over all drawings, mean over features.

    Example:
    >>> diversity(np.array([[[0.0], [0.0]], [[1.0], [1.0]]]))
    array([0., 0.])
    """
    flat = features.reshape(-1, features.shape[-1])
    spread = flat.std(axis=0)
    scaled = features / np.where(spread > 0, spread, 1.0)
    return scaled.std(axis=1, ddof=1).mean(axis=-1)


def recognizability(
    features: np.ndarray, exemplars: np.ndarray, *, ways: int = _WAYS
) -> np.ndarray:
    """Returns how surely each drawing differs from random other characters.

    A drawing is recognised if the exemplar of its character is nearest among
    `ways`, the others of which are a random choice. The result is exact, not
    estimated from such choices.

    Args:
        features: Array of shape `[K, M, F]` of a `DrawingCritics.recognition`,
            M drawings of each of K characters.
        exemplars: Array of shape `[K, F]`, one true drawing of each.
        ways: Integer. Number of characters, its own included; K if that is
            fewer. Defaults to 20.

    Returns:
        Array of shape `[K, M]`, probabilities.

    Example:
    >>> exemplars = np.array([[0.0], [1.0], [2.0]])
    >>> recognizability(exemplars[:, None] + 0.6, exemplars, ways=2)
    array([[0.5],
           [0.5],
           [1. ]])
    """
    number = len(exemplars)
    others = min(ways, number) - 1
    squares = (
        np.square(features).sum(axis=-1)[..., np.newaxis]
        - 2.0 * features @ exemplars.T
        + np.square(exemplars).sum(axis=-1)
    )  # [K, M, K]
    own = squares[np.arange(number), :, np.arange(number)]
    nearer = (squares < own[..., np.newaxis]).sum(axis=-1)
    choices = math.comb(number - 1, others)
    probability = np.array(
        [math.comb(n, others) / choices for n in range(number)]
    )
    return probability[number - 1 - nearer]


def originality(
    variation: np.ndarray, exemplars: np.ndarray, *, recognized: np.ndarray
) -> np.ndarray:
    """Returns recognizability by distance from the exemplar, in fifths.

    Args:
        variation: Array of shape `[K, M, F]`, features of M drawings of each
            character, by `DrawingCritics.variation`.
        exemplars: Array of shape `[K, F]`, features of the exemplars, by the
            same critic.
        recognized: Array of shape `[K, M]`, whether each drawing is recognized,
            see `recognizability`.

    Returns:
        Array of shape `[K, 5]`: of each character the mean over the fifth of
        its drawings that are nearest to the exemplar, then over the others.
    """
    distance = np.linalg.norm(variation - exemplars[:, np.newaxis], axis=-1)
    ranked = np.take_along_axis(
        recognized, np.argsort(distance, axis=1), axis=1
    )
    return np.stack(
        [part.mean(axis=1) for part in np.array_split(ranked, _FIFTHS, axis=1)],
        axis=1,
    )


def precision_and_recall(
    true: np.ndarray, made: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which drawings lie among those of the other set.

    A drawing lies among others if it is nearer to one of them than that one's
    third neighbour of its own set.

    Args:
        true: Array of shape `[M, F]`, features of true drawings.
        made: Array of shape `[N, F]`, features of those of a model.

    Returns:
        Boolean arrays `[N]`, whose mean is the precision, and `[M]`, whose
        mean is the recall.
    """
    return _are_among(made, true), _are_among(true, made)


def _are_among(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    radius = np.sort(_distances(others, others), axis=1)[:, _NEIGHBOURS]
    return np.any(_distances(features, others) <= radius, axis=1)


def frechet_distance(true: np.ndarray, made: np.ndarray) -> float:
    """Returns the squared Fréchet distance of Gaussians fitted to features.

    Args:
        true: Array of shape `[M, F]`, features of true images.
        made: Array of shape `[N, F]`, features of samples.

    Example:
    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]]))
    1.0
    """
    covariances = [np.atleast_2d(np.cov(v, rowvar=False)) for v in (true, made)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariances[1] @ root)
    shift = np.square(true.mean(axis=0) - made.mean(axis=0)).sum()
    traces = sum(np.trace(covariance) for covariance in covariances)
    return float(shift + traces - 2.0 * np.sqrt(np.maximum(product, 0.0)).sum())


def are_connected(images: np.ndarray) -> np.ndarray:
    """Returns which drawings are one connected figure.

    Args:
        images: Array of shape `[M, H, W, 1]`, ink where above 0.5. Pixels that
            touch by a side or a corner are connected.

    Returns:
        Boolean array of shape `[M]`, False for blank images.

    Example:
    >>> are_connected(np.array([[1, 0, 1], [1, 1, 0]])[:, None, :, None])
    array([False,  True])
    """
    ink = images[..., 0] > 0.5
    flat = ink.reshape(len(ink), -1)
    reached = np.zeros_like(flat)
    reached[np.arange(len(flat)), flat.argmax(axis=1)] = True
    reached = reached.reshape(ink.shape) & ink
    while True:
        padded = np.pad(reached, [(0, 0), (1, 1), (1, 1)])
        height, width = ink.shape[1:]
        grown = ink & np.any(
            [
                padded[:, i : i + height, j : j + width]
                for i in range(3)
                for j in range(3)
            ],
            axis=0,
        )
        if (grown == reached).all():
            break
        reached = grown
    return (reached == ink).all(axis=(1, 2)) & ink.any(axis=(1, 2))


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distances, `[M, N]`."""
    squares = (
        np.square(first).sum(axis=1)[:, np.newaxis]
        - 2.0 * first @ second.T
        + np.square(second).sum(axis=1)
    )
    return np.sqrt(np.maximum(squares, 0.0))
