"""K-way N-shot classification by expected conditional likelihood.

"We classify an example x by Monte Carlo estimation of the expected conditional
likelihood under the variational posterior E_q(c; D) p(x | c), with 20 samples
from q(c; D). x is then classified to class with support set D that maximises
this" (Section 4.1). A per-element latent z is integrated out by importance
weighting with q(z; c, x).
"""

import dataclasses
import itertools
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

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
from vhe_tf.models import classification
from vhe_tf.models.vhe import VHE

__all__ = [
    "ClassScorer",
    "PosteriorScorer",
    "few_shot_accuracy",
    "kind_of_scores",
]


@dataclasses.dataclass(eq=False, repr=False)
class ClassScorer:
    """Scores queries under classes, in pieces of bounded memory.

    A query is scored with the same noise under every class (common random
    numbers): each score is an estimate as good as any, and much of their
    errors is the same and cancels between classes.

    Args:
        model: `VHE`. The model; on each replica of its strategy, one task is
            scored at a time. Latents above `group` are inferred from the same
            supports, any other is integrated out for each query (see
            `VHE.log_likelihood_given`).
        group: String. The group latent whose groups are the classes.
        num_samples: Integer. S, the number of samples of q(c; D).
        num_element_samples: Integer. T, the number of samples of the
            per-element latents for each.
        max_decoded: Integer. The largest number of images that a device decodes
            at once, whatever S and Q: what bounds the memory. (T images are
            decoded at once even if that is more.)
        max_error: Float. Probability of losing the best class, see
            `VHE.classify`. Defaults to 0.001.

    Raises:
        ValueError: If `group` is not a group latent of the model, a count is
            not positive, or `max_error` is not from 0 to below 1.

    Example:
    >>> scorer = ClassScorer(model, group="character", num_samples=2)
    >>> support = data.images.reshape(6, 7, 8, 8, 1)[:, :1]
    >>> scorer(support, data.images[:3], seed=(0, 1)).shape
    (3, 6)
    """

    model: VHE
    _: dataclasses.KW_ONLY
    group: str
    num_samples: int = 20
    num_element_samples: int = 1
    max_decoded: int = 400
    max_error: float = 0.001

    def __post_init__(self) -> None:
        checked_latent(self.model, self.group)
        for name in ("num_samples", "num_element_samples", "max_decoded"):
            validation.positive(name, getattr(self, name))
        classification.check_max_error(self.max_error)
        images = [None, *self.model.event_shape]
        self._score = distribute.EachReplica(
            self.model.distribute_strategy,
            self._score_task,
            input_signature=[
                tf.TensorSpec([None, *images]),
                tf.TensorSpec(images),
                tf.TensorSpec([2], tf.int32),
            ],
        )

    def __call__(
        self, support: np.ndarray, queries: np.ndarray, *, seed: tuple[int, int]
    ) -> np.ndarray:
        """Returns log E_q(c; D_k) p(x | c), `[Q, K]`, nats.

        Args:
            support: `[K, N, H, W, C]`, N images of each class.
            queries: `[Q, H, W, C]`, the images to classify.
            seed: Two integers. The only source of randomness.
        """
        check_values(self.model, "support", values=support)
        check_values(self.model, "queries", values=queries)
        [scores] = self._scores([support], [queries], [seed])
        return scores

    def each(
        self, tasks: Iterable[Task], *, seed: int
    ) -> Iterator[tuple[Task, np.ndarray]]:
        """Scores tasks, as many at once as the model has replicas.

        Args:
            tasks: Iterable of `Task`s. The tasks, of equal shapes.
            seed: Integer. Task i is scored with the seed `(seed, i)`.

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
        rank = len(self.model.event_shape)
        for of_task, of_queries in zip(supports, queries, strict=True):
            self.model.domain.check("support", of_task, event_rank=rank)
            self.model.domain.check("queries", of_queries, event_rank=rank)
        return np.stack(
            self._score(
                [
                    (
                        tf.constant(support),
                        tf.constant(of_task),
                        random.as_seed(seed),
                    )
                    for support, of_task, seed in zip(
                        supports, queries, seeds, strict=True
                    )
                ]
            )
        )

    def _score_task(
        self, support: tf.Tensor, queries: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Returns log E_q(c; D_k) p(x | c), `[Q, K]`, nats."""
        samples = classification.infer_class_by_class(
            self.model,
            {self.group: support},
            seed=seed,
            num_samples=self.num_samples,
        )

        def score(query: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            return classification.class_scores(
                self.model,
                samples,
                query=query[0],
                seed=query[1],
                num_element_samples=self.num_element_samples,
                max_error=self.max_error,
                max_decoded=self.max_decoded,
            )

        return tf.map_fn(
            score,
            (queries, random.fold_in(seed, tf.range(tf.shape(queries)[0]))),
            fn_output_signature=tf.TensorSpec([None], tf.float32),
            parallel_iterations=1,
        )


class PosteriorScorer(ClassScorer):
    """Scores queries by their posterior, as the Neural Statistician does.

    Edwards and Storkey (2017, "Towards a Neural Statistician") classify without
    the decoder: by the class whose q(c; D_k) has the smallest KL to q(c; {x}).
    The score is -KL[q(c; D_k) || q(c; {x})], nats. It needs no samples.

    Args:
        *args: As in `ClassScorer`.
        **kwargs: As in `ClassScorer`.

    Raises:
        ValueError: As `ClassScorer`; if the group latent has parents, or the KL
            of its posteriors has no closed form.

    Example:
    >>> scorer = PosteriorScorer(model, group="character")
    >>> support = data.images.reshape(6, 7, 8, 8, 1)[:, :1]
    >>> scores = scorer(support, support[:, 0], seed=(0, 1))
    >>> bool(np.all(np.diag(scores) == 0.0))
    True
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        [latent] = [v for v in self.model.latents if v.name == self.group]
        if latent.parents:
            raise ValueError(
                "Posteriors are compared of a latent without parents. "
                f"Received: group={self.group!r}, parents={latent.parents!r}."
            )
        self._latent = latent
        one = self._latent.posterior(tf.zeros([1, 1, *self.model.event_shape]))
        try:
            tfd.kl_divergence(one, one)
        except NotImplementedError as error:
            raise ValueError(
                "Posteriors are compared by a KL in closed form, see "
                f"`tfd.RegisterKL`. Received: {one}."
            ) from error

    def _score_task(
        self, support: tf.Tensor, queries: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        of_class = self._latent.posterior(support)
        of_query = self._latent.posterior(queries[:, tf.newaxis])
        return -tfd.kl_divergence(of_class, of_query[:, tf.newaxis])


def kind_of_scores(scorer: ClassScorer) -> dict[str, Any]:
    """Returns the attributes of a `Measurement` that describe the scores."""
    if isinstance(scorer, PosteriorScorer):
        return {"factor": "posterior"}
    return {
        "num_samples": scorer.num_samples,
        "num_element_samples": scorer.num_element_samples,
    }


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
        scorer: `ClassScorer`. The classifier.
        data: `GroupedImages`. Images of unseen classes, ready for the model.
        design: `TaskDesign`. The shape of the tasks.
        num_tasks: Integer. The number of tasks, over which the interval is.
        seed: Integer. Seed of the tasks and of the samples. Defaults to 0.
        progress: Callable or None. Called with a line of text after each task.

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
        num_queries=num_queries,
        **kind_of_scores(scorer),
    )
