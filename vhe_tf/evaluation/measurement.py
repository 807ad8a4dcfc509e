"""Measurements of a model: records with an interval and per-task values."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Self

import numpy as np

from vhe_tf.distributions.discretized import bits_per_dimension
from vhe_tf.evaluation.intervals import fraction_interval
from vhe_tf.evaluation.intervals import mean_interval

__all__ = ["NATS_PER_IMAGE", "Measurement"]

NATS_PER_IMAGE = "nats per image"

_TUPLES = ("interval", "values", "support_sizes")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A mean over independent tasks, images, groups or batches.

    >>> measurement = Measurement.of("accuracy", [1.0, 0.5], ways=20, shots=1)
    >>> measurement.mean
    0.75
    >>> measurement.key
    'accuracy.20way_1shot'

    Attributes:
        metric: String. `"accuracy"`, `"elbo"`, `"joint_nll"`,
            `"conditional_nll"`, `"training_kl"`, `"probe"`, `"transfer"`,
            `"drawings"`, `"open_set"` or `"new_groups"`.
        mean: Float.
        interval: Pair of floats or None. The 95% confidence interval of the
            mean, see `evaluation.intervals`. None for a single value.
        values: Tuple of floats. One value per task, or per image, group or
            batch.
        unit: String. `"fraction"`, `"nats per image"` or `"nats"`.
        ways: Integer or None. Classes in a task.
        shots: Integer or None. Support images per class.
        within: String or None. The grouping of which one group holds all
            classes of a task.
        by: String or None. The grouping whose groups are classified, if it is
            not the one that the model is evaluated by.
        tasks: String or None. The name of a fixed set of tasks,
            `"lake_runs"`; or whose drawings, see `Drawings`; or the style in
            which images are redrawn, see `StyleTransfer`.
        latent: String or None. The group latent that is measured.
        factor: String or None. What a probe reads, an oracle classifier finds
            in redrawn images, or `Drawings`, `OpenSet` or `NewGroups` measures;
            `"posterior"`, the accuracy of a `PosteriorScorer`.
        chance: Float or None. The accuracy of guessing.
        num_samples: Integer or None. Number of samples of the group latent.
        num_element_samples: Integer or None. Number of samples of the
            per-element latents for each of these.
        effective_sample_size: Float or None. Mean effective number of the
            `num_samples` importance samples.
        support_sizes: Pair of integers or None. The smallest and the largest
            support.
        num_queries: Integer or None. The number of queries in all tasks. None
            means one per value.
        num_dimensions: Integer or None. Number of pixel channels per image, if
            likelihoods are also reported in bits per dimension.
    """

    metric: str
    mean: float
    interval: tuple[float, float] | None = None
    values: tuple[float, ...] = ()
    unit: str = "fraction"
    ways: int | None = None
    shots: int | None = None
    within: str | None = None
    by: str | None = None
    tasks: str | None = None
    latent: str | None = None
    factor: str | None = None
    chance: float | None = None
    num_samples: int | None = None
    num_element_samples: int | None = None
    effective_sample_size: float | None = None
    support_sizes: tuple[int, int] | None = None
    num_dimensions: int | None = None
    num_queries: int | None = None

    @classmethod
    def of(
        cls, metric: str, values: Sequence[float] | np.ndarray, **fields: Any
    ) -> Self:
        """Returns the measurement of independent values.

        Args:
            metric: String.
            values: `[n]`, one value per task, image, group or batch.
            **fields: Passed on to `Measurement`.
        """
        each = np.asarray(values, np.float64)
        values = tuple(each.tolist())
        found = cls(metric, float(each.mean()), values=values, **fields)
        error = found.standard_error
        if error is None:
            return found
        if found.unit == "fraction":
            interval = fraction_interval(
                found.mean,
                standard_error=error,
                num_tasks=len(each),
                num_queries=found.num_queries or len(each),
            )
        else:
            interval = mean_interval(
                found.mean, standard_error=error, num_values=len(each)
            )
        return dataclasses.replace(found, interval=interval)

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean; None for fewer than two values."""
        count = len(self.values)
        if count < 2:
            return None
        return float(np.std(self.values, ddof=1) / np.sqrt(count))

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval, or None."""
        if self.interval is None:
            return None
        low, high = self.interval
        return (high - low) / 2

    @property
    def num_values(self) -> int:
        """The number of independent values."""
        return len(self.values)

    @property
    def key(self) -> str:
        """A name that is unique among the measurements of one model."""
        if self.metric == "accuracy":
            name = f"accuracy.{self.ways}way_{self.shots}shot"
            name += f"_within_{self.within}" if self.within else ""
            name += f"_by_{self.by}" if self.by else ""
            name += f"_by_{self.factor}" if self.factor else ""
            return name + (f"_{self.tasks}" if self.tasks else "")
        if self.metric == "conditional_nll":
            return f"conditional_nll.{self.shots}shot"
        design = f"{self.ways}way_{self.shots}shot" if self.ways else None
        parts = (self.metric, design, self.latent, self.tasks, self.factor)
        return ".".join(part for part in parts if part)

    @property
    def bits_per_dimension(self) -> Self | None:
        """The same measurement in bits per dimension, of the same sign.

        None if the number of dimensions is not known.
        """
        size = self.num_dimensions
        if size is None:
            return None
        return dataclasses.replace(
            self,
            mean=bits_per_dimension(self.mean, [size]),
            interval=self.interval
            and (
                bits_per_dimension(self.interval[0], [size]),
                bits_per_dimension(self.interval[1], [size]),
            ),
            values=tuple(bits_per_dimension(v, [size]) for v in self.values),
            unit="bits per dimension",
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes that are not None, ready for JSON."""
        return {
            field.name: list(value) if field.name in _TUPLES else value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is not None
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Returns the measurement that `to_json` wrote.

        Raises:
            ValueError: If a field is unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields).difference(known))
        if unknown:
            raise ValueError(
                f"A measurement has the fields {sorted(known)}. "
                f"Received: {unknown}."
            )
        attributes: dict[str, Any] = {
            name: tuple(value) if name in _TUPLES else value
            for name, value in fields.items()
        }
        return cls(**attributes)
