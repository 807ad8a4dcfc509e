"""Does a model notice that a query is of none of the given classes?"""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import tasks
from vhe_tf.evaluation.classification import ClassScorer
from vhe_tf.evaluation.evaluators import Evaluator
from vhe_tf.evaluation.evaluators import Progress
from vhe_tf.evaluation.evaluators import Sampling
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.models import open_set
from vhe_tf.models.vhe import VHE

__all__ = ["NoveltyScorer", "OpenSet", "auroc"]

# The share of the queries of the given classes that a threshold accepts.
_RECALL = 0.95

_NUM_RESAMPLES = 2000
_SUMMARIES = ("auroc", "threshold_at_95", "accuracy_at_95")


class NoveltyScorer(ClassScorer):
    """Scores queries under classes, and under none of them.

    Args:
        *args: As in `ClassScorer`.
        **kwargs: As in `ClassScorer`.

    Returns:
        The scores of `ClassScorer`, and in a last column the novelty, see
        `VHE.novelty`: `[Q, K + 1]`, nats.

    Example:
    >>> scorer = NoveltyScorer(model, group="character", num_samples=2)
    >>> support = data.images.reshape(6, 7, 8, 8, 1)[:, :1]
    >>> scorer(support, data.images[:3], seed=(0, 1)).shape
    (3, 7)
    """

    def _score_task(
        self, support: tf.Tensor, queries: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        scores = super()._score_task(support, queries, seed)

        def novelty(row: tuple[tf.Tensor, ...]) -> tf.Tensor:
            query, log_likelihood, seed = row
            return open_set.novelty(
                self.model,
                {self.group: support[tf.argmax(log_likelihood)]},
                query=query,
                log_likelihood=log_likelihood,
                seed=seed,
                num_element_samples=self.num_element_samples,
                max_decoded=self.max_decoded,
            )

        each = tf.map_fn(
            novelty,
            (
                queries,
                scores,
                random.fold_in(seed, tf.range(tf.shape(queries)[0])),
            ),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return tf.concat([scores, each[:, tf.newaxis]], axis=1)


@dataclasses.dataclass(frozen=True)
class _Answers:
    """The answers of a model to the queries of one task.

    Attributes:
        novelty: `[K]`, of the queries of the given classes.
        outside: `[K]`, the novelty of the others.
        correct: `[K]` Boolean. Whether the first would be classified correctly.
    """

    novelty: np.ndarray
    outside: np.ndarray
    correct: np.ndarray


class OpenSet(Evaluator):
    """Tells queries of the given classes from queries of none of them.

    A task has K classes with N support images each, and 2 K queries: one of
    each class, and one of each of K other classes.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The group latent, and grouping, whose groups are the
            classes.
        num_ways: Integer, K. Lowered to half of the classes. Defaults to 20.
        shots: Sequence of integers, each N. Lowered where the smallest class
            has fewer images beside a query. Defaults to `(1,)`.
        num_tasks: Integer. Defaults to 20.
        sampling: `Sampling`. How to sample. Defaults to `Sampling()`.

    Returns:
        For each N measurements of these factors. Intervals of the first three
        are from a bootstrap over tasks.

        - `auroc`: the probability that the novelty of a query of none of the
          classes exceeds that of a query of one of them.
        - `threshold_at_95`: the novelty, in nats, that 5% of the queries of the
          classes exceed.
        - `accuracy_at_95`: the share of all queries that are answered
          correctly if a novelty above that means "none".
        - `accuracy`: of the queries of the classes, without this answer.
        - `known_rejected`: the share of these whose novelty is above 0.
        - `outside_rejected`: the share of the others whose novelty is above 0.

    Example:
    >>> evaluator = OpenSet(
    ...     data, group="character", num_ways=3, num_tasks=2,
    ...     sampling=Sampling(num_samples=2))
    >>> [measurement.key for measurement in evaluator(model)][:2]
    ['open_set.3way_1shot.auroc', 'open_set.3way_1shot.threshold_at_95']
    """

    def __init__(
        self,
        data: GroupedImages,
        *,
        group: str,
        num_ways: int = 20,
        shots: Sequence[int] = (1,),
        num_tasks: int = 20,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        tasks.check_ready(data, groupings=[group])
        self.data = data
        self.group = group
        self.num_ways = min(num_ways, len(data.group_ids(group)) // 2)
        self.shots = tuple(
            tasks.lowered_shots(shots, tasks.most_shots(data, group))
        )
        self.num_tasks = num_tasks
        self.sampling = sampling or Sampling()
        self._wanted = num_ways

    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """See base class."""
        tasks.check_ready(self.data, model)
        scorer = self._scorers.get(
            NoveltyScorer,
            model,
            group=self.group,
            num_samples=self.sampling.num_samples,
            num_element_samples=self.sampling.num_element_samples,
            max_decoded=self.sampling.max_decoded,
        )
        return [
            measurement
            for num_shots in self.shots
            for measurement in self._measured(scorer, num_shots, progress)
        ]

    def left_out(self, model: VHE) -> list[str]:
        """See base class."""
        if self.num_ways == self._wanted:
            return []
        return [
            f"{self._wanted}-way tasks with queries of none of the classes: "
            f"there are {len(self.data.group_ids(self.group))} classes, so "
            f"{self.num_ways}-way instead"
        ]

    def _tasks(self, num_shots: int) -> Iterator[tasks.Task]:
        """Yields tasks whose labels from K on are of none of the classes."""
        for task in tasks.few_shot_tasks(
            self.data,
            tasks.TaskDesign(2 * self.num_ways, num_shots),
            group=self.group,
            num_tasks=self.num_tasks,
            seed=self.sampling.seed,
        ):
            yield task._replace(support=task.support[: self.num_ways])

    def _measured(
        self, scorer: NoveltyScorer, num_shots: int, progress: Progress
    ) -> list[Measurement]:
        answers: list[_Answers] = []
        for task, values in scorer.each(
            self._tasks(num_shots), seed=self.sampling.seed
        ):
            inside = task.labels < self.num_ways
            labels = values[:, :-1].argmax(axis=1)
            answers.append(
                _Answers(
                    values[inside, -1],
                    values[~inside, -1],
                    (labels == task.labels)[inside],
                )
            )
            if progress:
                progress(
                    f"none of the classes, {num_shots}-shot: task "
                    f"{len(answers)} of {self.num_tasks}, AUROC "
                    f"{_summary(answers)[0]:.3f} so far"
                )
        return self._measurements(answers, num_shots=num_shots)

    def _measurements(
        self, answers: Sequence[_Answers], *, num_shots: int
    ) -> list[Measurement]:
        fields: dict[str, Any] = {
            "ways": self.num_ways,
            "shots": num_shots,
            "num_samples": self.sampling.num_samples,
            "num_element_samples": self.sampling.num_element_samples,
        }
        by_task = np.array([_summary([each]) for each in answers])
        means = _summary(answers)
        intervals = _bootstrap(answers, seed=self.sampling.seed)
        shares = {
            "accuracy": [each.correct.mean() for each in answers],
            "known_rejected": [(each.novelty > 0).mean() for each in answers],
            "outside_rejected": [(each.outside > 0).mean() for each in answers],
        }
        return [
            Measurement(
                "open_set",
                float(means[index]),
                intervals[index],
                tuple(by_task[:, index].tolist()),
                unit="nats" if factor == "threshold_at_95" else "fraction",
                factor=factor,
                num_queries=2 * self.num_ways * len(answers),
                **fields,
            )
            for index, factor in enumerate(_SUMMARIES)
        ] + [
            Measurement.of(
                "open_set",
                values,
                factor=factor,
                num_queries=self.num_ways * len(answers),
                **fields,
            )
            for factor, values in shares.items()
        ]


def auroc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Returns the area under the receiver operating characteristic.

    Args:
        negative: Array of shape `[M]`, scores that should be low.
        positive: Array of shape `[N]`, scores that should be high.

    Returns:
        The probability that a positive score exceeds a negative one; ties count
        half.

    Example:
    >>> auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).mean() / (2 * len(negative)))


def _summary(answers: Sequence[_Answers]) -> np.ndarray:
    """Returns AUROC, threshold and accuracy at 95% recall over tasks."""
    novelty = np.concatenate([each.novelty for each in answers])
    outside = np.concatenate([each.outside for each in answers])
    correct = np.concatenate([each.correct for each in answers])
    threshold = np.quantile(novelty, _RECALL)
    right = (correct & (novelty <= threshold)).sum()
    right += (outside > threshold).sum()
    accuracy = right / (len(novelty) + len(outside))
    return np.array([auroc(novelty, outside), threshold, accuracy])


def _bootstrap(
    answers: Sequence[_Answers], *, seed: int
) -> list[tuple[float, float] | None]:
    """Returns 95% intervals of `_summary`; None of a single task."""
    if len(answers) < 2:
        return [None] * len(_SUMMARIES)
    generator = np.random.default_rng(seed)
    resampled = [
        _summary([answers[index] for index in chosen])
        for chosen in generator.integers(
            len(answers), size=(_NUM_RESAMPLES, len(answers))
        )
    ]
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
