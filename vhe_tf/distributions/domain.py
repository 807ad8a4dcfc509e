"""The values that a likelihood models, and a check that data are such values.

A log-probability of any other value is a number without a meaning: a Bernoulli
of a pixel of 10 "has" more than a thousand nats.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions.depth_upscaling import DepthUpscaled
from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import NormalPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN

__all__ = ["Domain"]

# In place of infinity, of which bijectors make NaN.
_FAR = 1e30

# A vector that adds up to a total may miss it by what float16 rounds.
_ROUNDING = 1e-3

_COMPOSITES = (
    tfd.BatchBroadcast,
    tfd.BatchReshape,
    tfd.Independent,
    tfd.Masked,
    tfd.MixtureSameFamily,
    tfd.Sample,
)
_BITS = (tfd.Bernoulli, tfd.ProbitBernoulli)
_COUNTS = (tfd.Poisson, tfd.NegativeBinomial, tfd.Geometric)
_COUNTS_OF = (tfd.Binomial, tfd.BetaBinomial)
_VECTORS_OF = (tfd.Multinomial, tfd.DirichletMultinomial)
_SIMPLEX = (tfd.Dirichlet, tfd.RelaxedOneHotCategorical)


@dataclasses.dataclass(frozen=True)
class Domain:
    """An interval of numbers, or the integers in it.

    Attributes:
        low: Float. The smallest value.
        high: Float. The largest value.
        integer: Boolean. Whether only integers are modelled. Defaults to
            False.
        total: Float or None. What the values along the last axis of an element
            add up to. Defaults to None: to anything.
    """

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    total: float | None = None

    @classmethod
    def of(cls, likelihood: tfd.Distribution) -> "Domain":
        """Returns the values that a likelihood models.

        It may be wider than the support: any finite numbers for a
        `TransformedDistribution` of a discrete distribution, and for other
        families that are not named here; all numbers between the least and the
        largest outcome of a `FiniteDiscrete`. Mixtures and blocks have the
        domain that covers all their parts. Limits other than 0 and 1 count if
        they are Python numbers, since tensors can depend on the latents.

        Args:
            likelihood: `tfd.Distribution`. A distribution over elements.

        Example:
        >>> Domain.of(tfd.Independent(tfd.Bernoulli([0.0]), 1))
        Domain(low=0.0, high=1.0, integer=True, total=None)
        """
        base = likelihood
        while isinstance(base, _COMPOSITES):
            base = _part(base)
        if isinstance(base, PixelCNN):
            if isinstance(base.pixels, NormalPixels):
                return cls()
            return cls(0.0, 1.0, isinstance(base.pixels, BernoulliPixels))
        if isinstance(base, DepthUpscaled):
            return cls(0.0, 1.0)
        if isinstance(base, tfd.Blockwise):
            parts = [cls.of(part) for part in base.distributions]
            return dataclasses.replace(_covering(parts), total=None)
        if isinstance(base, tfd.Mixture):
            return _covering(_of_components(base))
        if isinstance(base, _BITS):
            return cls(0.0, 1.0, integer=True)
        if isinstance(base, tfd.OneHotCategorical):
            return cls(0.0, 1.0, integer=True, total=1.0)
        if isinstance(base, _SIMPLEX):
            return cls(0.0, 1.0, total=1.0)
        return _of_integers(base) or _interval(base)

    @property
    def binary(self) -> bool:
        """True if the values are 0 and 1."""
        return (self.low, self.high, self.integer) == (0.0, 1.0, True)

    @property
    def is_bounded(self) -> bool:
        """True if there are a smallest and a largest value."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def check(self, name: str, values: np.ndarray, *, event_rank: int) -> None:
        """Raises a `ValueError` for values that the likelihood does not model.

        Args:
            name: String. The argument, for the error.
            values: Floating point array, any axes and then those of an
                element.
            event_rank: Integer. The number of axes of an element.

        Raises:
            ValueError: If a value is NaN or outside of the domain. The message
                has the index of the first such element, and the range.

        Example:
        >>> Domain(0.0, 1.0).check("query", np.ones([2, 8, 8, 1]), event_rank=3)
        """
        right = self.holds(values)
        if right.all():
            return
        what = "value"
        if self._holds_each(values).all():
            what = "sum"
            values = values.sum(axis=-1, keepdims=True)
            values = np.broadcast_to(values, right.shape)
        else:
            right = self._holds_each(values)
        first = np.argwhere(~right)[0]
        index = first[: values.ndim - event_rank].tolist()
        wrong = values[tuple(first)]
        range_ = f"{np.nanmin(values):g}..{np.nanmax(values):g}" * (
            not np.isnan(values).all()
        )
        raise ValueError(
            f"The likelihood of this model is over {self}. {self._remedy()} "
            f"Received: `{name}` with the {what} {wrong:g} in the element at "
            f"index {index}; all {what}s are in {range_ or 'NaN'}."
        )

    def assertion(self, name: str, values: tf.Tensor) -> tf.Operation:
        """Returns what fails in a graph where `check` raises.

        Args:
            name: String. As in `check`.
            values: Floating point tensor.
        """
        return tf.debugging.Assert(
            tf.reduce_all(self.holds(values)),
            [
                f"The likelihood of this model is over {self}. "
                f"{self._remedy()} Received: `{name}` with values in",
                tf.reduce_min(values),
                tf.reduce_max(values),
            ],
        )

    def holds(self, values: Any) -> Any:
        """Returns which values are modelled; NaN and infinity never are.

        Args:
            values: Floating point array or tensor.

        Returns:
            Booleans of the same shape.

        Example:
        >>> Domain(0.0, 1.0).holds(np.array([0.5, 2.0, np.nan])).tolist()
        [True, False, False]
        """
        right = self._holds_each(values)
        if self.total is None:
            return right
        add = np.sum if isinstance(values, np.ndarray) else tf.reduce_sum
        excess = abs(add(values, axis=-1, keepdims=True) - self.total)
        return right & (excess < (0.5 if self.integer else _ROUNDING))

    def _holds_each(self, values: Any) -> Any:
        if self.binary:
            return (values == 0) | (values == 1)
        right = (values >= self.low) & (values <= self.high)
        if self.integer:
            floor = np.floor if isinstance(values, np.ndarray) else tf.floor
            right &= values == floor(values)
        return right & (abs(values) < math.inf)

    def _remedy(self) -> str:
        if self.binary and self.total is not None:
            return "Encode classes by `tf.one_hot`."
        if self.total is not None:
            return "Scale or repair the vectors along the last axis."
        if self.binary:
            return (
                "Scale pixels to 0..1 and binarize them, as in "
                "`(images >= 0.5)`, or pass uint8 images of 0..255."
            )
        if (self.low, self.high) == (0.0, 1.0):
            return "Divide pixels of 0..255 by 255."
        return "Scale or repair the data."

    def __str__(self) -> str:
        total = ""
        if self.total is not None:
            total = f" that add up to {self.total:g} along the last axis"
        if self.binary:
            return f"values 0 and 1{total}"
        kind = "integers" if self.integer else "finite numbers"
        if math.isinf(self.low) and math.isinf(self.high):
            return kind
        return f"{kind} from {self.low:g} to {self.high:g}{total}"


def _part(composite: tfd.Distribution) -> tfd.Distribution:
    if isinstance(composite, tfd.MixtureSameFamily):
        return composite.components_distribution
    return composite.distribution


def _of_components(mixture: tfd.Mixture) -> list[Domain]:
    if not isinstance(mixture, tfd.Inflated):
        return [Domain.of(part) for part in mixture.components]
    _, rest = mixture.components
    where = _number(mixture, "inflated_loc")
    if where is None:
        return [Domain()]
    return [Domain.of(rest), Domain(where, where, where.is_integer())]


def _covering(domains: Sequence[Domain]) -> Domain:
    """Returns the least domain that has all values of several."""
    totals = {domain.total for domain in domains}
    return Domain(
        min(domain.low for domain in domains),
        max(domain.high for domain in domains),
        integer=all(domain.integer for domain in domains),
        total=totals.pop() if len(totals) == 1 else None,
    )


def _number(distribution: tfd.Distribution, name: str) -> float | None:
    """Returns a parameter that is a number, and no function of the latents."""
    value = distribution.parameters.get(name)
    return float(value) if isinstance(value, numbers.Real) else None


def _of_integers(base: tfd.Distribution) -> Domain | None:
    """Returns the domain of families of integers, None for others."""
    if isinstance(base, tfd.Categorical):
        classes = base.logits_parameter().shape[-1]
        high = math.inf if classes is None else classes - 1.0
        return Domain(0.0, high, integer=True)
    if isinstance(base, tfd.OrderedLogistic):
        cuts = base.cutpoints.shape[-1]
        high = math.inf if cuts is None else float(cuts)
        return Domain(0.0, high, integer=True)
    if isinstance(base, _COUNTS):
        return Domain(0.0, integer=True)
    if isinstance(base, (*_COUNTS_OF, *_VECTORS_OF)):
        count = _number(base, "total_count")
        total = count if isinstance(base, _VECTORS_OF) else None
        high = math.inf if count is None else count
        return Domain(0.0, high, integer=True, total=total)
    if isinstance(base, tfd.Skellam):
        return Domain(integer=True)
    if isinstance(base, tfd.QuantizedDistribution):
        low, high = _number(base, "low"), _number(base, "high")
        return Domain(
            -math.inf if low is None else low,
            math.inf if high is None else high,
            integer=True,
        )
    if isinstance(base, tfd.FiniteDiscrete):
        outcomes = base.parameters["outcomes"]
        if not tf.is_tensor(outcomes):
            outcomes = np.asarray(outcomes, np.float64)
            whole = bool((outcomes == np.floor(outcomes)).all())
            return Domain(float(outcomes.min()), float(outcomes.max()), whole)
    return None


def _interval(base: tfd.Distribution) -> Domain:
    """Returns the image of the real line under the bijector onto a support.

    Limits other than 0 and 1 can depend on the latents, and do not count.
    """
    try:
        bijector = base.experimental_default_event_space_bijector()
    except (AttributeError, NotImplementedError, TypeError):
        return Domain()
    if bijector is None or bijector.forward_min_event_ndims != 0:
        return Domain()
    low = tf.reduce_max(bijector.forward(tf.fill([1], -_FAR)))
    high = tf.reduce_min(bijector.forward(tf.fill([1], _FAR)))
    return Domain(
        0.0 if low == 0.0 else -math.inf, 1.0 if high == 1.0 else math.inf
    )
