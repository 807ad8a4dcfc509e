"""All that is measured of a model: a report, in JSON and for people."""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Self

from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import tasks
from vhe_tf.evaluation.elbo import Elbo
from vhe_tf.evaluation.evaluators import ConditionalLikelihood
from vhe_tf.evaluation.evaluators import Evaluator
from vhe_tf.evaluation.evaluators import FewShotClassification
from vhe_tf.evaluation.evaluators import JointLikelihood
from vhe_tf.evaluation.evaluators import Sampling
from vhe_tf.evaluation.measurement import NATS_PER_IMAGE
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.models.vhe import VHE

__all__ = ["EvaluationSettings", "Report", "evaluate", "summary_lines"]

# Numbers of ways in classification by the other latents of a model.
_OTHER_WAYS = (10, 20)

_DRAWING_FACTORS = {
    "recognizability": ".1%",
    "diversity": ".3f",
    "connected": ".1%",
    "ink": ".4f",
    "blank": ".1%",
    "precision": ".1%",
    "recall": ".1%",
    "frechet": ".1f",
}


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """The settings of `evaluate`.

    Args:
        ways: Sequence of integers. Numbers of classes in a task. Defaults to
            `(20,)`.
        shots: Sequence of integers. Numbers of support images per class in a
            task. Defaults to `(1, 5)`.
        within: String or None. If given, classification within its groups
            (`"alphabet"`) is measured as well.
        num_tasks: Integer. Few-shot tasks of each kind. There are ten times as
            many queries for the conditional NLL, and four times as many
            batches for the ELBO. Defaults to 50.
        num_groups: Integer or None. Groups in the joint NLL. None measures all.
        num_samples: Integer. Number of samples of the group latent. Defaults
            to 20.
        num_element_samples: Integer. Number of samples of the per-element
            latents for each of these. Defaults to 1.
        joint_num_samples: Integer or None. Number of samples of the group
            latent in the joint NLL. None means `num_samples`.
        refinement_steps: Integer. Number of gradient steps that refine the
            proposal of the joint NLL for each group. Defaults to 0.
        max_decoded: Integer. The largest number of images that a device
            decodes at once. Defaults to 400.
        seed: Integer. Seed of all that is random. Defaults to 0.

    Example:
    >>> EvaluationSettings(num_samples=5).shots
    (1, 5)
    """

    ways: Sequence[int] = (20,)
    shots: Sequence[int] = (1, 5)
    within: str | None = None
    num_tasks: int = 50
    num_groups: int | None = None
    num_samples: int = 20
    num_element_samples: int = 1
    joint_num_samples: int | None = None
    refinement_steps: int = 0
    max_decoded: int = 400
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        """The sampling of classification and conditional likelihoods."""
        return Sampling(
            self.num_samples,
            self.num_element_samples,
            self.max_decoded,
            self.seed,
        )

    @property
    def joint_sampling(self) -> Sampling:
        """The sampling of the joint likelihood."""
        num_samples = self.joint_num_samples
        if num_samples is None:
            return self.sampling
        return dataclasses.replace(self.sampling, num_samples=num_samples)


@dataclasses.dataclass(frozen=True)
class Report:
    """The measurements of a model, and what they depend on.

    Attributes:
        measurements: Tuple of `Measurement`.
        left_out: Tuple of strings. What was lowered or not measured, each with
            its reason.
        settings: Mapping. The settings that the measurements depend on.
        groups: Tuple of integers. The ids of the groups that are measured.
        caveat: String or None. What must stand beside the numbers.
        model: String or None. The file of the model.

    Example:
    >>> elbo = Measurement.of("elbo", [-75.0, -73.0], unit=NATS_PER_IMAGE)
    >>> report = Report((elbo,))
    >>> report["elbo"].mean
    -74.0
    >>> Report.from_json(report.to_json()) == report
    True
    """

    measurements: tuple[Measurement, ...]
    left_out: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    groups: tuple[int, ...] = ()
    caveat: str | None = None
    model: str | None = None

    def __getitem__(self, key: str) -> Measurement:
        """Returns the measurement of this `Measurement.key`."""
        return self.by_key()[key]

    def by_key(self) -> dict[str, Measurement]:
        """Returns the measurements by their keys."""
        return {each.key: each for each in self.measurements}

    def in_bits(self, image_shape: Sequence[int]) -> Self:
        """Returns the report with likelihoods also in bits per dimension.

        Args:
            image_shape: `(H, W, C)` of a model of pixels with levels.
        """
        return dataclasses.replace(
            self,
            measurements=tuple(
                dataclasses.replace(each, num_dimensions=math.prod(image_shape))
                if each.unit == NATS_PER_IMAGE
                else each
                for each in self.measurements
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the report, ready for JSON."""
        return {
            "measurements": [each.to_json() for each in self.measurements],
            "left_out": list(self.left_out),
            "settings": dict(self.settings),
            "groups": list(self.groups),
            "caveat": self.caveat,
            "model": self.model,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Returns the report that `to_json` wrote."""
        known = {f.name: fields[f.name] for f in dataclasses.fields(cls)}
        each = map(Measurement.from_json, fields["measurements"])
        sequences = {n: tuple(fields[n]) for n in ("left_out", "groups")}
        return cls(**{**known, **sequences, "measurements": tuple(each)})


def evaluate(
    model: VHE,
    data: GroupedImages,
    *,
    group: str,
    settings: EvaluationSettings = EvaluationSettings(),
    more: Sequence[Evaluator] = (),
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Measures accuracy, ELBO, joint and conditional NLL on unseen groups.

    If a model has several group latents, few-shot accuracy on the groups of the
    others (alphabets, styles) is measured as well, by images of different
    groups of `group`.

    Args:
        model: `VHE`. The model.
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are classes and sets.
        settings: `EvaluationSettings`. The settings. Defaults to
            `EvaluationSettings()`.
        more: Sequence of evaluators to call as well.
        progress: Callable or None. Called with a line of text from time to
            time.

    Returns:
        The report.

    Raises:
        ValueError: If `group` or `settings.within` is not a grouping of the
            data, or `group` is not a group latent of the model; if the images
            are not of the model's shape, or a count is not positive.

    Example:
    >>> settings = EvaluationSettings(
    ...     ways=[5], shots=[1], num_tasks=1, num_groups=1, num_samples=2)
    >>> report = evaluate(model, data, group="character", settings=settings)
    >>> sorted({measurement.metric for measurement in report.measurements})
    ['accuracy', 'conditional_nll', 'elbo', 'joint_nll']
    """
    tasks.check_ready(data, model, groupings=[group, settings.within])
    evaluators: list[Evaluator] = [
        *_classifications(model, data, group, settings),
        Elbo(data, num_batches=4 * settings.num_tasks, seed=settings.seed),
        ConditionalLikelihood(
            data,
            group=group,
            num_queries=10 * settings.num_tasks,
            sampling=settings.sampling,
        ),
        JointLikelihood(
            data,
            group=group,
            num_groups=settings.num_groups,
            refinement_steps=settings.refinement_steps,
            sampling=settings.joint_sampling,
        ),
        *more,
    ]
    measurements: list[Measurement] = []
    left_out: list[str] = []
    for evaluator in evaluators:
        evaluator.share_scorers(evaluators[0])
        left_out += evaluator.left_out(model)
        measurements += evaluator(model, progress)
    return Report(
        tuple(measurements),
        tuple(left_out),
        dataclasses.asdict(settings),
        tuple(data.group_ids(group).tolist()),
    )


def _classifications(
    model: VHE,
    data: GroupedImages,
    group: str,
    settings: EvaluationSettings,
) -> list[FewShotClassification]:
    """Returns the evaluators of classification, by every group latent."""
    shared: dict[str, Any] = {
        "shots": settings.shots,
        "num_tasks": settings.num_tasks,
        "sampling": settings.sampling,
    }
    coarser = [None] if settings.within is None else [None, settings.within]
    by_group = [
        FewShotClassification(
            data, group=group, ways=settings.ways, within=within, **shared
        )
        for within in coarser
    ]
    others = [
        latent.name
        for latent in model.latents
        if not latent.per_element
        and latent.name != group
        and latent.name in data.labels
    ]
    return by_group + [
        FewShotClassification(
            data,
            group=other,
            ways=[
                min(ways, len(data.group_ids(other))) for ways in _OTHER_WAYS
            ],
            spread=group,
            **shared,
        )
        for other in others
    ]


def summary_lines(report: Report) -> list[str]:
    """Returns a report as a few lines for a person.

    Example:
    >>> elbo = Measurement.of("elbo", [-75.0, -73.0], unit=NATS_PER_IMAGE)
    >>> summary_lines(Report((elbo,)))
    ['ELBO: -74.00 ± 12.71 nats per image']
    """
    found: dict[str, list[Measurement]] = {}
    for each in report.measurements:
        found.setdefault(each.metric, []).append(each)
    lines = [_accuracy_line(each) for each in found.get("accuracy", [])]
    lines += [f"ELBO: {_likelihood(each)}" for each in found.get("elbo", [])]
    lines += [
        f"joint NLL <= {_likelihood(each)} (k = {each.num_samples}, effective "
        f"sample size {each.effective_sample_size:.1f})"
        for each in found.get("joint_nll", [])
    ]
    lines += _conditional_lines(found.get("conditional_nll", []))
    lines += [
        f"KL of {each.latent}, training set: {_with_interval(each, '.2f')} nats"
        for each in found.get("training_kl", [])
    ]
    lines += _probe_lines(found.get("probe", []))
    lines += _transfer_lines(found.get("transfer", []))
    lines += _drawing_lines(found.get("drawings", []))
    lines += _open_set_lines(found.get("open_set", []))
    lines += _new_group_lines(found.get("new_groups", []))
    lines += [f"left out: {reason}" for reason in report.left_out]
    if report.caveat:
        lines.append(report.caveat)
    return lines


def _accuracy_line(accuracy: Measurement) -> str:
    kind = f"{accuracy.ways}-way {accuracy.shots}-shot"
    kind += f" within {accuracy.within}" if accuracy.within else ""
    kind += f" by {accuracy.by}" if accuracy.by else ""
    kind += f" by {accuracy.factor}" if accuracy.factor else ""
    kind += " in Lake's runs" if accuracy.tasks == "lake_runs" else ""
    return (
        f"{kind} accuracy: {_with_interval(accuracy, '.1%')} "
        f"(chance {accuracy.chance:.1%})"
    )


def _conditional_lines(measurements: Sequence[Measurement]) -> list[str]:
    if not measurements:
        return []
    nats = [f"{each.shots}: {each.mean:.1f}" for each in measurements]
    lines = [f"NLL of a new image, by shots: {', '.join(nats)} nats"]
    bits = [
        f"{each.shots}: {in_bits.mean:.3f}"
        for each in measurements
        if (in_bits := each.bits_per_dimension)
    ]
    if bits:
        lines.append(f"the same in bits per dimension: {', '.join(bits)}")
    return lines


def _probe_lines(measurements: Sequence[Measurement]) -> list[str]:
    by_latent: dict[str | None, list[str]] = {}
    for each in measurements:
        by_latent.setdefault(each.latent, []).append(
            f"{each.factor} {each.mean:.1%} (chance {each.chance:.1%})"
        )
    return [
        f"linear probe of {latent}, from one image: {', '.join(factors)}"
        for latent, factors in by_latent.items()
    ]


def _transfer_lines(measurements: Sequence[Measurement]) -> list[str]:
    if not measurements:
        return []
    form = {
        each.factor: _with_interval(each, ".1%")
        for each in measurements
        if each.tasks is None
    }
    lowest = [
        min(of_factor, key=lambda each: each.mean)
        for factor in ("style", "content")
        if (
            of_factor := [
                each
                for each in measurements
                if each.factor == factor and each.tasks is not None
            ]
        )
    ]
    return [
        f"redrawn in another style: right style {form['style']} (true images "
        f"{form['style_of_true']}), right content {form['content']} (true "
        f"images {form['content_of_true']}), by oracle classifiers",
        f"another style keeps the content {form['content_kept']} and changes "
        f"the style {form['style_changed']}; another content keeps the style "
        f"{form['style_kept']}",
        *(
            f"the style with the lowest share of the right {each.factor}: "
            f"{each.tasks}, {_with_interval(each, '.1%')}"
            for each in lowest
        ),
    ]


def _new_group_lines(measurements: Sequence[Measurement]) -> list[str]:
    if not measurements:
        return []
    samples, true = measurements
    return [
        f"new groups, {samples.shots} support images: right group above them "
        f"{_with_interval(samples, '.1%')} (true images "
        f"{_with_interval(true, '.1%')}, chance {samples.chance:.1%}), by an "
        "oracle classifier"
    ]


def _drawing_lines(measurements: Sequence[Measurement]) -> list[str]:
    by_whom: dict[str | None, dict[str | None, Measurement]] = {}
    for each in measurements:
        by_whom.setdefault(each.tasks, {})[each.factor] = each
    lines = []
    for name, found in by_whom.items():
        parts = [
            f"{factor} {_with_interval(found[factor], form)}"
            for factor, form in _DRAWING_FACTORS.items()
            if factor in found
        ]
        fifths = [
            f"{each.mean:.1%}"
            for factor, each in found.items()
            if (factor or "").startswith("originality")
        ]
        parts += [f"by originality {', '.join(fifths)}"] if fifths else []
        lines.append(f"drawings, {name}: {'; '.join(parts)}")
    return lines


def _open_set_lines(measurements: Sequence[Measurement]) -> list[str]:
    by_design: dict[str, dict[str | None, Measurement]] = {}
    for each in measurements:
        design = f"{each.ways}-way {each.shots}-shot"
        by_design.setdefault(design, {})[each.factor] = each
    lines = []
    for design, found in by_design.items():
        share = {
            factor: _with_interval(each, ".1%")
            for factor, each in found.items()
            if each.unit == "fraction"
        }
        threshold = found["threshold_at_95"].mean
        lines += [
            f"{design}, half of the queries of none of the classes: AUROC of "
            f"the novelty {share['auroc']}, accuracy of the other half "
            f"{share['accuracy']}",
            f"  novelty above 0: {share['outside_rejected']} of the queries of "
            f"no class, {share['known_rejected']} of the others",
            f"  right if none means a novelty above {threshold:.1f} nats, "
            f"which 5% of the others exceed: {share['accuracy_at_95']}",
        ]
    return lines


def _likelihood(measurement: Measurement) -> str:
    text = f"{_with_interval(measurement, '.2f')} nats per image"
    bits = measurement.bits_per_dimension
    if bits is None:
        return text
    return f"{text} = {_with_interval(bits, '.3f')} bits per dimension"


def _with_interval(measurement: Measurement, form: str) -> str:
    text = f"{measurement.mean:{form}}"
    if measurement.interval is None:
        return text
    if form.endswith("%"):
        low, high = measurement.interval
        return f"{text} [{low:{form}}, {high:{form}}]"
    return f"{text} ± {measurement.half_width:{form}}"
