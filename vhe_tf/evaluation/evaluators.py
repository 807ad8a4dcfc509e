"""Evaluators: each measures one thing of a model, as often as it is called.

    evaluator = FewShotClassification(data, group="character", shots=(1, 5))
    measurements = evaluator(model)

An evaluator holds its data and settings, and keeps what it compiles for a
model, so that a callback can call it after every epoch. Tasks for which the
data are too small are lowered or omitted; `left_out` gives the reasons.
"""

import abc
import dataclasses
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from vhe_tf.data.datasets import omniglot
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import classification
from vhe_tf.evaluation import likelihood
from vhe_tf.evaluation import probes
from vhe_tf.evaluation import tasks
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.models.vhe import VHE

__all__ = [
    "ConditionalLikelihood",
    "Evaluator",
    "FewShotClassification",
    "JointLikelihood",
    "LakeRuns",
    "Probes",
    "Sampling",
    "lake_run_accuracy",
]

Progress = Callable[[str], None] | None


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Settings by which an evaluator samples from a model.

    Args:
        num_samples: Integer. Number of samples of the group latent. Defaults
            to 20.
        num_element_samples: Integer. Number of samples of the per-element
            latents for each of these. Defaults to 1.
        max_decoded: Integer. The largest number of images that a device
            decodes at once, which bounds the memory. Defaults to 400.
        seed: Integer. Seed of the tasks and of the samples. Defaults to 0.

    Example:
    >>> Sampling(num_samples=5).num_element_samples
    1
    """

    num_samples: int = 20
    num_element_samples: int = 1
    max_decoded: int = 400
    seed: int = 0


class _Scorers:
    """The compiled scorers of the last model, by what they depend on."""

    def __init__(self) -> None:
        self._model: VHE | None = None
        self._kept: dict[tuple[Any, ...], Any] = {}

    def get(self, make: Callable[..., Any], model: VHE, **settings: Any) -> Any:
        if model is not self._model:
            self._model, self._kept = model, {}
        key = (make, *settings.items())
        if key not in self._kept:
            self._kept[key] = make(model, **settings)
        return self._kept[key]


class Evaluator(abc.ABC):
    """Measures something of a model.

    Example:
    >>> class Ink(Evaluator):
    ...     def __call__(self, model, progress=None):
    ...         images = model.sample_prior(4, seed=0).numpy()
    ...         return [Measurement.of("ink", images.mean(axis=(1, 2, 3)))]
    >>> [measurement] = Ink()(model)
    >>> len(measurement.values)
    4
    """

    def __init__(self) -> None:
        self._scorers = _Scorers()

    def share_scorers(self, other: "Evaluator") -> None:
        """Uses what another evaluator compiles, where settings are equal."""
        self._scorers = other._scorers

    @abc.abstractmethod
    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """Returns the measurements.

        Args:
            model: The model. Compiled functions are kept for the last one.
            progress: Called with a line of text from time to time.
        """

    def left_out(self, model: VHE) -> list[str]:
        """Returns what is lowered or not measured, each with its reason."""
        return []

    def _class_scorer(
        self, model: VHE, group: str, sampling: Sampling
    ) -> classification.ClassScorer:
        return self._scorers.get(
            classification.ClassScorer,
            model,
            group=group,
            num_samples=sampling.num_samples,
            num_element_samples=sampling.num_element_samples,
            max_decoded=sampling.max_decoded,
        )


@dataclasses.dataclass(eq=False, repr=False)
class _OfGroups(Evaluator):
    """An evaluator on the groups of a grouping.

    Args:
        data: Images of unseen groups, ready for the model.
        group: String. The group latent, and grouping, that is evaluated.
        sampling: How to sample.
    """

    data: GroupedImages
    _: dataclasses.KW_ONLY
    group: str
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        super().__init__()
        tasks.check_ready(self.data, groupings=[self.group])


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class FewShotClassification(_OfGroups):
    """Accuracy of K-way N-shot classification on unseen groups.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are the classes.
        ways: Sequence of integers, each K. Lowered to the number of classes.
            Defaults to `(20,)`.
        shots: Sequence of integers, each N. Lowered where the smallest class
            has fewer images beside a query. Defaults to `(1, 5)`.
        within: String or None. As in `TaskDesign`.
        spread: String or None. As in `TaskDesign`; the measurements then have
            `by=group`.
        num_tasks: Integer. Tasks of each kind. They have one query per class;
            without `spread`, those of a larger K have no more queries than
            those of the smallest. Defaults to 50.
        sampling: `Sampling`. How to sample. Defaults to `Sampling()`.

    Returns:
        The accuracies; of a Neural Statistician also those of its own
        classifier, `PosteriorScorer`.

    Example:
    >>> evaluator = FewShotClassification(
    ...     data, group="character", ways=[5], shots=[1], num_tasks=1,
    ...     sampling=Sampling(num_samples=2))
    >>> [measurement.key for measurement in evaluator(model)]
    ['accuracy.5way_1shot']
    """

    ways: Sequence[int] = (20,)
    shots: Sequence[int] = (1, 5)
    within: str | None = None
    spread: str | None = None
    num_tasks: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        data, within, spread = self.data, self.within, self.spread
        tasks.check_ready(data, groupings=[within, spread])
        self._most_classes = tasks.most_classes(data, self.group, within=within)
        self._most_shots = tasks.most_shots(data, self.group, spread=spread)

    @property
    def designs(self) -> list[tasks.TaskDesign]:
        """The tasks that are measured."""
        ways = sorted({min(ways, self._most_classes) for ways in self.ways})
        keep_all = self.spread is not None
        return [
            tasks.TaskDesign(
                num_ways,
                num_shots,
                num_queries=None
                if keep_all or num_ways == ways[0]
                else ways[0],
                within=self.within,
                spread=self.spread,
            )
            for num_ways in ways
            for num_shots in tasks.lowered_shots(self.shots, self._most_shots)
        ]

    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """See base class."""
        tasks.check_ready(self.data, model)
        scorers = [self._class_scorer(model, self.group, self.sampling)]
        own, _ = self._own_classifier(model)
        scorers += own
        return [
            classification.few_shot_accuracy(
                scorer,
                self.data,
                design=design,
                num_tasks=self.num_tasks,
                seed=self.sampling.seed,
                progress=progress,
            )
            for scorer in scorers
            for design in self.designs
        ]

    def _own_classifier(
        self, model: VHE
    ) -> tuple[list[classification.ClassScorer], list[str]]:
        """Returns that of a Neural Statistician, or why it has none."""
        if model.objective != "neural_statistician":
            return [], []
        make = classification.PosteriorScorer
        try:
            return [self._scorers.get(make, model, group=self.group)], []
        except ValueError as error:
            return [], [f"accuracy of {self.group} by posterior: {error}"]

    def left_out(self, model: VHE) -> list[str]:
        """See base class."""
        _, reasons = self._own_classifier(model)
        inside = f" within {self.within}" if self.within else ""
        inside += f" by {self.group}" if self.spread else ""
        most, most_shots = self._most_classes, self._most_shots
        if self.spread:
            images = f"images of {_counted(most_shots + 1, self.spread)}"
            smallest = f"the smallest {self.group} has {images}"
        else:
            images = _counted(most_shots + 1, "image")
            smallest = f"the smallest class has {images}"
        instead = f", so {most_shots}-shot instead" if most_shots > 0 else ""
        return (
            reasons
            + [
                f"{num_ways}-way tasks{inside}: there are {most} classes, so "
                f"{most}-way instead"
                for num_ways in self.ways
                if num_ways > most
            ]
            + [
                f"{num_shots}-shot tasks{inside}: {smallest}, one of them the "
                f"query{instead}"
                for num_shots in self.shots
                if num_shots > most_shots
            ]
        )


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class ConditionalLikelihood(_OfGroups):
    """Negative log likelihood of a new image after some shots.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The grouping whose groups the images are of.
        shots: Sequence of integers, each |D|. Those for which the smallest
            group has too few images are omitted. Defaults to
            `(1, 2, 5, 10, 19)`.
        num_queries: Integer. Pairs (D, x) for each. Defaults to 500.
        sampling: `Sampling`. How to sample. Defaults to `Sampling()`.

    Example:
    >>> evaluator = ConditionalLikelihood(
    ...     data, group="character", shots=[1, 10], num_queries=2,
    ...     sampling=Sampling(num_samples=2))
    >>> [measurement.shots for measurement in evaluator(model)]
    [1]
    >>> evaluator.left_out(model)
    ['NLL after 10 shots: the smallest class has 7 images...']
    """

    shots: Sequence[int] = (1, 2, 5, 10, 19)
    num_queries: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        self._most_shots = tasks.most_shots(self.data, self.group)

    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """See base class."""
        tasks.check_ready(self.data, model)
        scorer = self._class_scorer(model, self.group, self.sampling)
        return [
            likelihood.conditional_nll(
                scorer,
                self.data,
                num_shots=num_shots,
                num_queries=self.num_queries,
                seed=self.sampling.seed,
                progress=progress,
            )
            for num_shots in self.shots
            if num_shots <= self._most_shots
        ]

    def left_out(self, model: VHE) -> list[str]:
        """See base class."""
        images = _counted(self._most_shots + 1, "image")
        return [
            f"NLL after {_counted(num_shots, 'shot')}: the smallest class has "
            f"{images}, one of them the query"
            for num_shots in self.shots
            if num_shots > self._most_shots
        ]


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class JointLikelihood(_OfGroups):
    """Joint negative log likelihood of groups; see `joint_nll`.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are the sets X.
        num_groups: Integer or None. Number of groups, a random selection that
            is the same at every call. None measures all groups.
        sampling: `Sampling`. How to sample. Defaults to 500 samples, as in the
            paper.

    Example:
    >>> evaluator = JointLikelihood(
    ...     data, group="character", sampling=Sampling(num_samples=3))
    >>> [measurement] = evaluator(model)
    >>> measurement.unit, len(measurement.values)
    ('nats per image', 6)
    """

    num_groups: int | None = None
    refinement_steps: int = 0
    sampling: Sampling = Sampling(num_samples=500)

    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """See base class."""
        scorer = self._scorers.get(
            likelihood.JointScorer,
            model,
            group=self.group,
            num_element_samples=self.sampling.num_element_samples,
            refinement_steps=self.refinement_steps,
            max_decoded=self.sampling.max_decoded,
        )
        return [
            likelihood.joint_nll(
                scorer,
                self.data,
                num_samples=self.sampling.num_samples,
                num_groups=self.num_groups,
                seed=self.sampling.seed,
                progress=progress,
            )
        ]


@dataclasses.dataclass(eq=False, repr=False)
class LakeRuns(Evaluator):
    """Accuracy in the 20 one-shot runs of Lake et al. (2015), 400 queries.

    20-way 1-shot within an alphabet, support and query by different drawers.

    Args:
        path: String. `all_runs.zip`, or the unpacked folder.
        group: String. The group latent of characters. Defaults
            to `"character"`.
        sampling: `Sampling`. How to sample; its `seed` is not used. Defaults to
            `Sampling()`.

    Raises:
        FileNotFoundError: If there is a file missing.
        ValueError: If a file is not as published.

    Example:
    >>> try:
    ...     LakeRuns("missing/all_runs.zip")
    ... except FileNotFoundError:
    ...     print("Get all_runs.zip from github.com/brendenlake/omniglot.")
    Get all_runs.zip from github.com/brendenlake/omniglot.
    """

    path: str | os.PathLike[str]
    _: dataclasses.KW_ONLY
    group: str = "character"
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        super().__init__()
        omniglot.lake_runs(self.path)  # Any mistake is found before measuring.

    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """See base class."""
        scorer = self._class_scorer(model, self.group, self.sampling)
        return [lake_run_accuracy(scorer, self.path, progress=progress)]


@dataclasses.dataclass(eq=False, repr=False)
class Probes(Evaluator):
    """Accuracy of a linear map from each group latent to known factors.

    A latent is inferred from one image, all of whose labels are then known.
    The right latent should predict its factor, and the wrong one not.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The innermost grouping (`"character"`). Any factor but
            this is learned from some of its groups and tested on others: an
            alphabet could otherwise be recognised by its characters.
        max_images: Integer. The largest number of images to encode. Defaults
            to 2,000.
        seed: Integer. Seed of the selection of images and of the test part.
            Defaults to 0.

    Example:
    >>> [measurement] = Probes(data, group="character")(model)
    >>> measurement.latent, measurement.factor
    ('character', 'character')
    """

    data: GroupedImages
    _: dataclasses.KW_ONLY
    group: str
    max_images: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        tasks.check_ready(self.data, groupings=[self.group])

    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """See base class."""
        if progress:
            progress("linear probes")
        return [
            measurement
            for latent in model.latents
            if not latent.per_element
            for measurement in self._of_latent(model, latent.name)
        ]

    def _of_latent(self, model: VHE, latent: str) -> list[Measurement]:
        means, indices = probes.posterior_means(
            model,
            self.data,
            latent=latent,
            seed=self.seed,
            max_images=self.max_images,
        )
        first = indices[:, 0]
        found = []
        for factor, ids in self.data.labels.items():
            groups = None
            if factor != self.group:
                groups = self.data.labels[self.group][first]
            probe = probes.linear_probe(
                means, ids[first], groups=groups, seed=self.seed
            )
            found.append(
                dataclasses.replace(probe, latent=latent, factor=factor)
            )
        return found


def lake_run_accuracy(
    scorer: classification.ClassScorer,
    path: str | os.PathLike[str],
    *,
    progress: Progress = None,
) -> Measurement:
    """Returns the accuracy of a classifier in Lake's one-shot runs.

    Args:
        scorer: `ClassScorer`. The classifier of 28x28 binary images.
        path: String. `all_runs.zip`, or the unpacked folder.
        progress: Callable or None. Called with a line of text after each run.
    """
    each = (
        tasks.Task(
            support=_binary(run.support)[:, np.newaxis],
            queries=_binary(run.queries),
            labels=run.labels,
        )
        for run in omniglot.lake_runs(path)
    )
    correct: list[float] = []
    num_queries = 0
    for task, scores in scorer.each(each, seed=0):
        correct.append((scores.argmax(axis=1) == task.labels).mean())
        num_queries += len(task.labels)
        if progress:
            progress(
                f"Lake's runs: {len(correct)}, {np.mean(correct):.1%} so far"
            )
    return Measurement.of(
        "accuracy",
        correct,
        ways=20,
        shots=1,
        tasks="lake_runs",
        chance=1 / 20,
        num_queries=num_queries,
        **classification.kind_of_scores(scorer),
    )


def _binary(images: np.ndarray) -> np.ndarray:
    return omniglot.binary_recipe(images).astype(np.float32) / 255


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
