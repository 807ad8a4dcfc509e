"""K-way N-shot classification by expected conditional likelihood.

"We classify an example x by Monte Carlo estimation of the expected conditional
likelihood under the variational posterior E_q(c; D) p(x | c), with 20 samples
from q(c; D). x is then classified to class with support set D that maximises
this" (Section 4.1). A per-element latent z is integrated out by importance
weighting with q(z; c, x).
"""

import itertools
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation.estimates import Estimate
from vhe_tf.evaluation.estimates import estimate
from vhe_tf.models.vhe import VHE

__all__ = [
    "ClassScorer",
    "Trial",
    "few_shot_accuracy",
    "few_shot_trials",
    "lowered_shots",
    "most_shots",
]


def lowered_shots(shots: Sequence[int], most: int) -> list[int]:
    """Lowers numbers of shots to the most that small classes leave.

    Args:
        shots: Numbers of support images.
        most: The largest that leaves a query of every class.

    Returns:
        The numbers, each once, none above `most`; none at all if that is 0.
    """
    return sorted({min(num_shots, most) for num_shots in shots if most > 0})


def most_shots(
    data: GroupedImages, group: str, *, spread: str | None = None
) -> int:
    """Returns the number of shots that leaves one query of every class.

    Args:
        data: The images.
        group: The grouping whose groups are the classes.
        spread: As in `few_shot_trials`: shots and query are of different
            groups of this grouping.

    Returns:
        At least 0; -1 where a class has no image with a label of `spread`.
    """
    labels = data.labels[group]
    if spread:
        pairs = np.stack([labels, data.labels[spread]], axis=1)
        labels = np.unique(pairs[pairs[:, 1] != MISSING], axis=0)[:, 0]
    counts = [np.sum(labels == class_id) for class_id in data.group_ids(group)]
    return int(min(counts)) - 1


class Trial(NamedTuple):
    """One K-way N-shot task.

    Attributes:
        support: `[K, N, H, W, C]`.
        queries: `[Q, H, W, C]`.
        labels: `[Q]`, for each query its class, in 0..K-1.
    """

    support: np.ndarray
    queries: np.ndarray
    labels: np.ndarray


class ClassScorer:
    """Scores queries under classes, in pieces of bounded memory.

    A query is scored with the same chance under every class (common random
    numbers): each score is an estimate as good as any, and much of their
    errors is the same and cancels between classes.

    Args:
        model: The model; on each replica of its strategy, one task is scored
            at a time. Latents above `group` are inferred from the same
            supports, any other is integrated out for each query (see
            `VHE.log_likelihood_given`).
        group: The group latent that tells the classes apart.
        num_samples: S, draws from q(c; D).
        num_element_samples: T, draws of the per-element latents for each.
        max_decoded: The largest number of images that a device decodes at
            once, whatever S and Q: what bounds the memory. (T images are
            decoded at once even if that is more.)

    Raises:
        ValueError: If `group` is no group latent of the model, or a count is
            not positive.
    """

    def __init__(
        self,
        model: VHE,
        *,
        group: str,
        num_samples: int = 20,
        num_element_samples: int = 1,
        max_decoded: int = 2000,
    ) -> None:
        self.model = model
        self.group = checked_latent(model, group)
        self.num_samples = validation.positive("num_samples", num_samples)
        self.num_element_samples = validation.positive(
            "num_element_samples", num_element_samples
        )
        self.max_decoded = validation.positive("max_decoded", max_decoded)
        images = [None, *model.image_shape]
        seed = tf.TensorSpec([2], tf.int32)
        self._score = distribute.EachReplica(
            model.distribute_strategy,
            self._score_piece,
            input_signature=[
                tf.TensorSpec([None, *images]),
                tf.TensorSpec(images),
                tf.TensorSpec([], tf.int32),
                seed,
                seed,
            ],
        )

    def __call__(
        self, support: np.ndarray, queries: np.ndarray, *, seed: tuple[int, int]
    ) -> np.ndarray:
        """Returns log E_q(c; D_k) p(x | c), `[Q, K]`, nats.

        Args:
            support: `[K, N, H, W, C]`.
            queries: `[Q, H, W, C]`.
            seed: Two ints, all the chance that is used.
        """
        [scores] = self._scores([support], [queries], [seed])
        return scores

    def each(
        self, trials: Iterable[Trial], *, seed: int
    ) -> Iterator[tuple[Trial, np.ndarray]]:
        """Scores tasks, as many at once as the model has replicas.

        Args:
            trials: The tasks, of equal shapes.
            seed: Task i is scored with the seed `(seed, i)`.

        Yields:
            Each task, in their order, and what a call returns for it.
        """
        trials = iter(trials)
        first = 0
        while at_once := list(itertools.islice(trials, self._score.count)):
            scores = self._scores(
                [trial.support for trial in at_once],
                [trial.queries for trial in at_once],
                [(seed, first + index) for index in range(len(at_once))],
            )
            yield from zip(at_once, scores, strict=True)
            first += len(at_once)

    def _scores(
        self,
        supports: Sequence[np.ndarray],
        queries: Sequence[np.ndarray],
        seeds: Sequence[tuple[int, int]],
    ) -> np.ndarray:
        """Returns `[R, Q, K]`, for R tasks at once."""
        check_shape(self.model, supports[0].shape[2:])
        piece = max(1, self.max_decoded // self.num_element_samples)
        samples_at_once = min(self.num_samples, piece)
        queries_at_once = max(1, piece // samples_at_once)
        scores = []
        for index, count in enumerate(
            _pieces(self.num_samples, samples_at_once)
        ):
            draw_seeds = [random.fold_in(seed, index) for seed in seeds]
            rows = [
                self._score(
                    [
                        (
                            tf.constant(support),
                            tf.constant(
                                of_task[start : start + queries_at_once]
                            ),
                            tf.constant(count),
                            draw_seed,
                            random.fold_in(draw_seed, start),
                        )
                        for support, of_task, draw_seed in zip(
                            supports, queries, draw_seeds, strict=True
                        )
                    ]
                )
                for start in range(0, len(queries[0]), queries_at_once)
            ]
            # Sums over S, [R, K, Q].
            scores.append(np.concatenate(rows, axis=2))
        total = np.logaddexp.reduce(np.stack(scores), axis=0)
        return np.swapaxes(total - np.log(self.num_samples), 1, 2)

    def _score_piece(
        self,
        support: tf.Tensor,
        queries: tf.Tensor,
        num_samples: tf.Tensor,
        draw_seed: tf.Tensor,
        query_seed: tf.Tensor,
    ) -> tf.Tensor:
        """Returns log of the sum over S of p(x | c_s), `[K, Q]`, nats."""
        num_queries = tf.shape(queries)[0]

        def score(of_class: tf.Tensor) -> tf.Tensor:
            samples = self.model.infer(
                {self.group: of_class[tf.newaxis]},
                seed=draw_seed,
                num_samples=num_samples,
                sample_unobserved=False,
            )
            log_likelihood = self.model.log_likelihood_given(
                {
                    name: tf.repeat(value, num_queries, axis=1)
                    for name, value in samples.items()
                },  # [S, Q, E...]
                queries,
                seed=query_seed,
                num_element_samples=self.num_element_samples,
            )  # [S, Q]
            return tf.reduce_logsumexp(log_likelihood, axis=0)

        return tf.map_fn(
            score,
            support,
            fn_output_signature=tf.TensorSpec([None], tf.float32),
            parallel_iterations=1,
        )


def few_shot_trials(
    data: GroupedImages,
    *,
    group: str,
    num_ways: int,
    num_shots: int,
    num_trials: int,
    queries_per_class: int = 1,
    num_queries: int | None = None,
    within: str | None = None,
    spread: str | None = None,
    seed: int = 0,
) -> Iterator[Trial]:
    """Draws few-shot tasks; support and queries never overlap.

    Args:
        data: Images ready for the model: floating point, of its size.
        group: The grouping whose groups are the classes.
        num_ways: K.
        num_shots: N.
        num_trials: The number of tasks.
        queries_per_class: Queries of each class in a task.
        num_queries: A random choice of so many of these; all if None.
        within: A coarser grouping (`"alphabet"`) from one group of which all
            classes of a task are drawn, or None to draw from all classes.
        spread: Another grouping (`"character"` where alphabets are the
            classes): the images of a class in a task, support and queries,
            are of different groups of it.
        seed: Decides the tasks.

    Yields:
        The tasks.

    Raises:
        ValueError: If there are too few classes, or a class has too few
            images, for such tasks; if `num_queries` is more than there are, a
            count is not positive, or the data have no such grouping.
    """
    check_ready(data, groupings=[group, within, spread])
    for name, value in (
        ("num_ways", num_ways),
        ("num_shots", num_shots),
        ("num_trials", num_trials),
        ("queries_per_class", queries_per_class),
    ):
        validation.positive(name, value)
    if num_queries is not None and num_queries > num_ways * queries_per_class:
        raise ValueError(
            f"{num_ways}-way tasks have {num_ways * queries_per_class} queries "
            "to choose from; give more `queries_per_class`. "
            f"Received: num_queries={num_queries}."
        )
    generator = np.random.default_rng(seed)
    ids = data.group_ids(group)
    usable = data.labels[spread] != MISSING if spread else np.True_
    members = {
        int(i): np.flatnonzero((data.labels[group] == i) & usable) for i in ids
    }
    pools = _pools(data, group, within, num_ways)
    needed = num_shots + queries_per_class
    for class_id in {int(i) for pool in pools for i in pool}:
        available = members[class_id]
        if spread:
            available = np.unique(data.labels[spread][available])
        if len(available) < needed:
            what = f"images of different {spread}s" if spread else "images"
            raise ValueError(
                f"{num_shots}-shot tasks with {queries_per_class} queries need "
                f"{needed} {what} a class; ask for fewer shots. Received: "
                f"{group} {class_id} with {len(available)} {what}."
            )
    for _ in range(num_trials):
        pool = pools[generator.integers(len(pools))]
        classes = generator.choice(pool, num_ways, replace=False)
        chosen = np.stack(
            [
                _spread_choice(
                    members[int(i)],
                    data.labels[spread] if spread else None,
                    needed,
                    generator,
                )
                for i in classes
            ]
        )
        queries = chosen[:, num_shots:].reshape(-1)
        labels = np.repeat(np.arange(num_ways), queries_per_class)
        if num_queries is not None:
            kept = generator.choice(len(labels), num_queries, replace=False)
            queries, labels = queries[kept], labels[kept]
        yield Trial(
            support=data.images[chosen[:, :num_shots]],
            queries=data.images[queries],
            labels=labels,
        )


def few_shot_accuracy(
    scorer: ClassScorer,
    data: GroupedImages,
    *,
    num_ways: int,
    num_shots: int,
    num_trials: int,
    queries_per_class: int = 1,
    num_queries: int | None = None,
    within: str | None = None,
    spread: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Estimate:
    """Estimates the accuracy of few-shot classification.

    Args:
        scorer: The classifier.
        data: Images of unseen classes, ready for the model.
        num_ways: K.
        num_shots: N.
        num_trials: The number of tasks, the independent trials of the
            interval.
        queries_per_class: Queries of each class in a task.
        num_queries: A random choice of so many of these; all if None.
        within: A coarser grouping that all classes of a task share.
        spread: As in `few_shot_trials`.
        seed: Decides tasks and draws.
        progress: Called with a line of text from time to time.

    Returns:
        The fraction of queries classified right.

    Raises:
        ValueError: As `few_shot_trials`; if the images do not have the shape
            that the model was made for.
    """
    correct: list[float] = []
    by = f" by {scorer.group}" if spread else ""
    trials = few_shot_trials(
        data,
        group=scorer.group,
        num_ways=num_ways,
        num_shots=num_shots,
        num_trials=num_trials,
        queries_per_class=queries_per_class,
        num_queries=num_queries,
        within=within,
        spread=spread,
        seed=seed,
    )
    for trial, scores in scorer.each(trials, seed=seed):
        correct.append(float((scores.argmax(axis=1) == trial.labels).mean()))
        if progress:
            progress(
                f"{num_ways}-way {num_shots}-shot{by}: task {len(correct)} of "
                f"{num_trials}, {np.mean(correct):.1%} so far"
            )
    return estimate(np.array(correct))


def _spread_choice(
    members: np.ndarray,
    labels: np.ndarray | None,
    count: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Chooses images of a class, of different groups where labels say which."""
    if labels is None:
        return generator.choice(members, count, replace=False)
    groups = generator.choice(np.unique(labels[members]), count, replace=False)
    return np.stack(
        [generator.choice(members[labels[members] == g]) for g in groups]
    )


def check_ready(
    data: GroupedImages,
    model: VHE | None = None,
    *,
    groupings: Sequence[str | None] = (),
) -> None:
    """Raises a ValueError for data that cannot be evaluated.

    Args:
        data: Stored images are refused: they are not ready for a model.
        model: The images must have its shape.
        groupings: What the data must have labels of; None is passed over.
    """
    for name in groupings:
        if name is not None and name not in data.labels:
            raise ValueError(
                f"The data have the groupings {sorted(data.labels)}. "
                f"Received: {name!r}."
            )
    if model is not None:
        check_shape(model, data.image_shape)
    if data.images.dtype != np.float32:
        raise ValueError(
            "Evaluation needs images as a model sees them, float32; see "
            "`vhe_tf.data.ready`. "
            f"Received: images of dtype {data.images.dtype}."
        )


def check_shape(model: VHE, image_shape: Sequence[int]) -> None:
    """Raises a ValueError for images of another shape than the model's."""
    if tuple(image_shape) != model.image_shape:
        raise ValueError(
            "Images must have the shape that the model was made for, "
            f"{model.image_shape}. Received: {tuple(image_shape)}."
        )


def checked_latent(model: VHE, group: str) -> str:
    """Returns the name of a group latent; a ValueError for any other."""
    known = [v.name for v in model.latents if not v.per_element]
    if group not in known:
        raise ValueError(
            f"`group` must be a group latent of the model, one of {known}. "
            f"Received: group={group!r}."
        )
    return group


def _pools(
    data: GroupedImages, group: str, within: str | None, num_ways: int
) -> list[np.ndarray]:
    """Returns the sets of classes from which a task may be drawn."""
    if within is None:
        pools = [data.group_ids(group)]
    else:
        pools = [
            data.with_groups(within, [int(i)]).group_ids(group)
            for i in data.group_ids(within)
        ]
    large = [pool for pool in pools if len(pool) >= num_ways]
    if not large:
        raise ValueError(
            f"{num_ways}-way tasks need {num_ways} classes"
            f"{f' in one {within}' if within else ''}. Received: at most "
            f"{max(len(pool) for pool in pools)}."
        )
    return large


def _pieces(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
