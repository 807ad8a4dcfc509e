"""Joint and conditional negative log likelihoods of unseen groups.

The joint estimate is that of Section 4.1: importance weighting with k samples
from q(c; X), all of X as support, normalised by the number of elements:

    -(1/n) log (1/k) sum{ p(c_s) / q(c_s; X) prod{ p(x | c_s) : x in X } }

Unlike the paper, the effective sample size is reported beside it: sums over
twenty images make the weights very peaked. Refined proposals make them less so.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.classification import PosteriorScorer
from vhe_tf.evaluation.measurement import NATS_PER_IMAGE
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.refinement import Change
from vhe_tf.evaluation.refinement import refine
from vhe_tf.evaluation.refinement import refined
from vhe_tf.evaluation.tasks import TaskDesign
from vhe_tf.evaluation.tasks import check_ready
from vhe_tf.evaluation.tasks import check_values
from vhe_tf.evaluation.tasks import checked_latent
from vhe_tf.evaluation.tasks import few_shot_tasks
from vhe_tf.models.vhe import VHE

__all__ = [
    "JointScorer",
    "conditional_nll",
    "joint_nll",
]


@dataclasses.dataclass(eq=False, repr=False)
class JointScorer:
    """Samples importance weights whose mean is p(X), for elements X of a group.

    Traced once for many groups.

    Args:
        model: `VHE`. The model; on each replica of its strategy, one group is
            scored at a time. The latents of `group` and of the groups that hold
            it are shared by all of X; any other latent (the style, where
            characters are drawn in several) belongs to each image apart.
        group: String. The grouping whose groups are the sets X.
        num_element_samples: Integer, T.
        refinement_steps: Integer. Number of gradient steps by which q(c; X) is
            refined for each group before it is sampled; see
            `evaluation.refinement`. A step takes about as long as three
            samples. Defaults to 0.
        max_decoded: Integer. The largest number of images that a device decodes
            at once, but T for one image and one sample.

    Attributes:
        num_at_once: Integer. The number of groups scored at once, that of the
            replicas.

    Raises:
        ValueError: If other groups lie within those of `group`: their latents
            would be shared by some of X; if `group` is not a group latent of
            the model, or a count is not positive.

    Example:
    >>> scorer = JointScorer(model, group="character")
    >>> log_weights = scorer(data.images[:7], 3, seed=(0, 1))
    >>> log_weights.shape
    (3,)
    """

    model: VHE
    _: dataclasses.KW_ONLY
    group: str
    num_element_samples: int = 1
    refinement_steps: int = 0
    max_decoded: int = 400

    def __post_init__(self) -> None:
        model, group = self.model, self.group
        for latent in model.latents:
            if group in latent.parents and not latent.per_element:
                raise ValueError(
                    "The joint NLL is that of groups that hold no other "
                    f"groups. Received: group={group!r}, which holds those of "
                    f"{latent.name!r}; measure {latent.name!r}."
                )
        checked_latent(model, group)
        for name in ("num_element_samples", "max_decoded"):
            validation.positive(name, getattr(self, name))
        validation.at_least(0, refinement_steps=self.refinement_steps)
        strategy = model.distribute_strategy
        self._refine = distribute.EachReplica(strategy, self._refine_piece)
        self._sample = distribute.EachReplica(strategy, self._sample_piece)
        self._score = distribute.EachReplica(strategy, self._score_piece)
        self.num_at_once = self._sample.count

    def __call__(
        self, images: np.ndarray, num_samples: int, *, seed: tuple[int, int]
    ) -> np.ndarray:
        """Returns log p(X, c_s) - log q(c_s; X), nats.

        The mean of their exponentials over the samples is p(X), also for a
        refined q(c; X): other seeds refine it than those of the samples.

        Args:
            images: `[n, H, W, C]`, X, also the support.
            num_samples: Integer, k.
            seed: Two integers.

        Returns:
            `[k]` float64.
        """
        check_values(self.model, "images", values=images)
        [log_weights] = self.each([images], num_samples, seeds=[seed])
        return log_weights

    def each(
        self,
        groups: Sequence[np.ndarray],
        num_samples: int,
        *,
        seeds: Sequence[tuple[int, int]],
    ) -> np.ndarray:
        """Returns what a call does for each of some groups of equal size.

        Args:
            groups: `[n, H, W, C]` each, at most `num_at_once` of them.
            num_samples: Integer, k.
            seeds: Sequence of pairs of integers. Random seed of each.

        Returns:
            `[R, k]` for R groups.
        """
        validation.positive("num_samples", num_samples)
        rank = len(self.model.event_shape)
        for images in groups:
            self.model.domain.check("images", images, event_rank=rank)
        size = len(groups[0])
        budget = max(1, self.max_decoded // self.num_element_samples)
        images_at_once = min(size, budget)
        samples_at_once = min(num_samples, budget // images_at_once)
        keys = [tf.constant(seed, tf.int32) for seed in seeds]
        changes: list[Change] = [{} for _ in groups]
        if self.refinement_steps:
            changes = self._refine(
                [
                    (tf.constant(images), random.fold_in(key, -1))
                    for images, key in zip(groups, keys, strict=True)
                ]
            )
        pieces = []
        for start in range(0, num_samples, samples_at_once):
            count = tf.constant(min(samples_at_once, num_samples - start))
            piece_keys = [random.fold_in(key, start) for key in keys]
            sampled = self._sample(
                [
                    (tf.constant(images), change, count, key)
                    for images, change, key in zip(
                        groups, changes, piece_keys, strict=True
                    )
                ]
            )
            samples, log_weights = zip(*sampled, strict=True)
            total = np.stack(log_weights).astype(np.float64)
            query_keys = [random.fold_in(key, 1) for key in piece_keys]
            for first in range(0, size, images_at_once):
                total += np.stack(
                    self._score(
                        [
                            (
                                of_group,
                                tf.constant(
                                    images[first : first + images_at_once]
                                ),
                                random.fold_in(key, first),
                            )
                            for of_group, images, key in zip(
                                samples, groups, query_keys, strict=True
                            )
                        ]
                    )
                )
            pieces.append(total)
        return np.concatenate(pieces, axis=1)

    def _refine_piece(self, images: tf.Tensor, seed: tf.Tensor) -> Change:
        return refine(
            self.model,
            {self.group: images[tf.newaxis]},
            log_likelihood=self._score_piece,
            num_steps=self.refinement_steps,
            max_decoded=max(1, self.max_decoded // self.num_element_samples),
            seed=seed,
        )

    def _sample_piece(
        self,
        images: tf.Tensor,
        change: Change,
        num_samples: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Returns samples `[S, 1, E...]` and log p(c) - log q(c; X), `[S]`."""
        support: dict[str, Any] = {self.group: images[tf.newaxis]}
        if change:
            support = refined(self.model.encode(support), change)
        samples, log_weight = self.model.importance_sample(
            support,
            seed=seed,
            num_samples=num_samples,
            sample_unobserved=False,
        )
        return samples, log_weight[:, 0]

    def _score_piece(
        self, samples: dict[str, tf.Tensor], images: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Returns the sum over some images of log p(x | c), `[S]`."""
        shared = {
            name: tf.repeat(value, tf.shape(images)[0], axis=1)
            for name, value in samples.items()
        }  # [S, n, E...]
        log_likelihood = self.model.log_likelihood_given(
            shared,
            images,
            seed=seed,
            num_element_samples=self.num_element_samples,
        )  # [S, n]
        return tf.reduce_sum(log_likelihood, axis=1)


def joint_nll(
    scorer: JointScorer,
    data: GroupedImages,
    *,
    num_samples: int = 500,
    num_groups: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Measurement:
    """Estimates the joint negative log likelihood of groups (Tables 3 and 4).

    In expectation it is an upper bound, tighter the more samples.

    Args:
        scorer: `JointScorer`. Gives the importance weights.
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        num_samples: Integer. k. Defaults to 500, as in the paper.
        num_groups: Integer or None. Number of groups, a random selection. None
            measures all groups.
        seed: Integer. Seed of the samples and of the selection. Defaults to 0.
        progress: Callable or None. Called with a line of text from time to
            time.

    Returns:
        Nats per image, the mean over images with an interval over groups, and
        the effective sample size.

    Raises:
        ValueError: If a count is not positive, the data have no such grouping,
            or the images are not of the model's shape.

    Example:
    >>> scorer = JointScorer(model, group="character")
    >>> nll = joint_nll(scorer, data, num_samples=3, num_groups=2)
    >>> len(nll.values), 1 <= nll.effective_sample_size <= 3
    (2, True)
    """
    group = scorer.group
    check_ready(data, scorer.model, groupings=[group])
    ids = data.group_ids(group)
    if num_groups is not None:
        validation.positive("num_groups", num_groups)
        if num_groups < len(ids):
            generator = np.random.default_rng(seed)
            ids = generator.choice(ids, num_groups, replace=False)
    members = data.members(group)
    sizes = np.array([len(members[int(i)]) for i in ids])
    nll, effective = np.zeros(len(ids)), np.zeros(len(ids))
    done: list[int] = []
    for at_once in _of_equal_size(sizes, scorer.num_at_once):
        log_weights = scorer.each(
            [data.images[members[int(ids[i])]] for i in at_once],
            num_samples,
            seeds=[(seed, int(ids[i])) for i in at_once],
        )  # [R, k]
        total = np.logaddexp.reduce(log_weights, axis=1)
        nll[at_once] = np.log(num_samples) - total
        effective[at_once] = np.exp(
            2 * total - np.logaddexp.reduce(2 * log_weights, axis=1)
        )
        done += at_once
        if progress:
            progress(
                f"joint NLL: group {len(done)} of {len(ids)}, "
                f"{nll[done].sum() / sizes[done].sum():.2f} nats per image so "
                "far"
            )
    # Per image over all groups: groups weigh by their size. A ratio of two
    # sums over groups varies as the mean of its residuals does.
    ratio = np.sum(nll) / np.sum(sizes)
    residuals = (nll - ratio * sizes) / np.mean(sizes)
    return Measurement.of(
        "joint_nll",
        ratio + residuals,
        unit=NATS_PER_IMAGE,
        num_samples=num_samples,
        num_element_samples=scorer.num_element_samples,
        effective_sample_size=float(np.mean(effective)),
    )


def conditional_nll(
    scorer: ClassScorer,
    data: GroupedImages,
    *,
    num_shots: int,
    num_queries: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Measurement:
    """Estimates -log E_q(c; D) p(x | c) of a new element after |D| shots.

    Args:
        scorer: `ClassScorer`. Gives the expected conditional likelihood.
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        num_shots: Integer. |D|.
        num_queries: Integer. The number of pairs (D, x), each of a random
            group.
        seed: Integer. Seed of the selection and of the samples. Defaults to 0.
        progress: Callable or None. Called with a line of text after each query.

    Returns:
        Nats per image.

    Raises:
        ValueError: As `few_shot_accuracy`; for a `PosteriorScorer`.

    Example:
    >>> scorer = ClassScorer(model, group="character", num_samples=2)
    >>> nll = conditional_nll(scorer, data, num_shots=1, num_queries=3)
    >>> nll.key, len(nll.values)
    ('conditional_nll.1shot', 3)
    """
    if isinstance(scorer, PosteriorScorer):
        raise ValueError(
            "The scorer must give likelihoods. "
            f"Received: {type(scorer).__name__}."
        )
    values: list[float] = []
    tasks = few_shot_tasks(
        data,
        TaskDesign(num_ways=1, num_shots=num_shots),
        group=scorer.group,
        num_tasks=num_queries,
        seed=seed,
    )
    for _, scores in scorer.each(tasks, seed=seed):
        values.append(-float(scores[0, 0]))
        if progress:
            progress(
                f"conditional NLL after {num_shots} "
                f"shot{'s' * (num_shots != 1)}: {len(values)} of "
                f"{num_queries}, {np.mean(values):.2f} nats so far"
            )
    return Measurement.of(
        "conditional_nll",
        values,
        unit=NATS_PER_IMAGE,
        shots=num_shots,
        num_samples=scorer.num_samples,
        num_element_samples=scorer.num_element_samples,
    )


def _of_equal_size(sizes: np.ndarray, count: int) -> Iterator[list[int]]:
    """Yields the groups, by index, as many at once as there are of a size."""
    waiting: dict[int, list[int]] = {}
    for index, size in enumerate(sizes.tolist()):
        same = waiting.setdefault(size, [])
        same.append(index)
        if len(same) == count:
            yield waiting.pop(size)
    yield from waiting.values()
