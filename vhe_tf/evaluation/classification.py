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

import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.tasks import Task
from vhe_tf.evaluation.tasks import TaskDesign
from vhe_tf.evaluation.tasks import check_shape
from vhe_tf.evaluation.tasks import check_values
from vhe_tf.evaluation.tasks import checked_latent
from vhe_tf.evaluation.tasks import few_shot_tasks
from vhe_tf.models.vhe import VHE

__all__ = ["ClassScorer", "few_shot_accuracy"]


class ClassScorer:
    """Scores queries under classes, in pieces of bounded memory.

    A query is scored with the same noise under every class (common random
    numbers): each score is an estimate as good as any, and much of their
    errors is the same and cancels between classes.

    Args:
        model: The model; on each replica of its strategy, one task is scored
            at a time. Latents above `group` are inferred from the same
            supports, any other is integrated out for each query (see
            `VHE.log_likelihood_given`).
        group: String. The group latent whose groups are the classes.
        num_samples: Integer. S, the number of samples of q(c; D).
        num_element_samples: Integer. T, the number of samples of the
            per-element latents for each.
        max_decoded: The largest number of images that a device decodes at
            once, whatever S and Q: what bounds the memory. (T images are
            decoded at once even if that is more.)

    Raises:
        ValueError: If `group` is no group latent of the model, or a count is
            not positive.

    Example:
    >>> scorer = ClassScorer(model, group="character", num_samples=2)
    >>> support = data.images.reshape(6, 7, 8, 8, 1)[:, :1]
    >>> scorer(support, data.images[:3], seed=(0, 1)).shape
    (3, 6)
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
        images = [None, *model.event_shape]
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
            seed: Two integers. The only source of randomness.
        """
        [scores] = self._scores([support], [queries], [seed])
        return scores

    def each(
        self, tasks: Iterable[Task], *, seed: int
    ) -> Iterator[tuple[Task, np.ndarray]]:
        """Scores tasks, as many at once as the model has replicas.

        Args:
            tasks: The tasks, of equal shapes.
            seed: Task i is scored with the seed `(seed, i)`.

        Yields:
            Each task, in their order, and what a call returns for it.
        """
        remaining = iter(tasks)
        first = 0
        while at_once := list(itertools.islice(remaining, self._score.count)):
            scores = self._scores(
                [task.support for task in at_once],
                [task.queries for task in at_once],
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
        for of_task, of_queries in zip(supports, queries, strict=True):
            check_values(self.model, "support", values=of_task)
            check_values(self.model, "queries", values=of_queries)
        piece = max(1, self.max_decoded // self.num_element_samples)
        samples_at_once = min(self.num_samples, piece)
        queries_at_once = max(1, piece // samples_at_once)
        scores = []
        for index, count in enumerate(
            _pieces(self.num_samples, samples_at_once)
        ):
            sample_seeds = [random.fold_in(seed, index) for seed in seeds]
            rows = [
                self._score(
                    [
                        (
                            tf.constant(support),
                            tf.constant(
                                of_task[start : start + queries_at_once]
                            ),
                            tf.constant(count),
                            sample_seed,
                            random.fold_in(sample_seed, start),
                        )
                        for support, of_task, sample_seed in zip(
                            supports, queries, sample_seeds, strict=True
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
        sample_seed: tf.Tensor,
        query_seed: tf.Tensor,
    ) -> tf.Tensor:
        """Returns log of the sum over S of p(x | c_s), `[K, Q]`, nats."""
        num_queries = tf.shape(queries)[0]

        def score(of_class: tf.Tensor) -> tf.Tensor:
            samples = self.model.infer(
                {self.group: of_class[tf.newaxis]},
                seed=sample_seed,
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


def few_shot_accuracy(
    scorer: ClassScorer,
    data: GroupedImages,
    *,
    design: TaskDesign,
    num_tasks: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Measurement:
    """Estimates the accuracy of few-shot classification.

    Args:
        scorer: The classifier.
        data: Images of unseen classes, ready for the model.
        design: The shape of the tasks.
        num_tasks: Integer. The number of tasks, over which the interval is.
        seed: Integer. Seed of the tasks and of the samples. Defaults to 0.
        progress: Called with a line of text after each task.

    Returns:
        The fraction of queries that are classified correctly. `by` is set if
        `design.spread` is.

    Raises:
        ValueError: As `few_shot_tasks`; if the images do not have the shape
            that the model was made for.

    Example:
    >>> scorer = ClassScorer(model, group="character", num_samples=2)
    >>> design = TaskDesign(num_ways=5, num_shots=1)
    >>> accuracy = few_shot_accuracy(scorer, data, design=design, num_tasks=2)
    >>> accuracy.key, accuracy.num_queries
    ('accuracy.5way_1shot', 10)
    """
    correct: list[float] = []
    num_queries = 0
    by = scorer.group if design.spread else None
    tasks = few_shot_tasks(
        data, design, group=scorer.group, num_tasks=num_tasks, seed=seed
    )
    name = f"{design.num_ways}-way {design.num_shots}-shot"
    for task, scores in scorer.each(tasks, seed=seed):
        correct.append(float((scores.argmax(axis=1) == task.labels).mean()))
        num_queries += len(task.labels)
        if progress:
            progress(
                f"{name}{f' by {by}' if by else ''}: task {len(correct)} of "
                f"{num_tasks}, {np.mean(correct):.1%} so far"
            )
    return Measurement.of(
        "accuracy",
        correct,
        ways=design.num_ways,
        shots=design.num_shots,
        within=design.within,
        by=by,
        chance=1 / design.num_ways,
        num_samples=scorer.num_samples,
        num_element_samples=scorer.num_element_samples,
        num_queries=num_queries,
    )


def _pieces(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
