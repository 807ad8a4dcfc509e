"""The values that a likelihood models, and a check that data are such values.

A log-probability of any other value is a number without a meaning: a Bernoulli
of a pixel of 10 "has" more than a thousand nats.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import NormalPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN

__all__ = ["Domain"]

# In place of infinity, of which bijectors make NaN.
_FAR = 1e30

_COMPOSITES = (
    tfd.BatchBroadcast,
    tfd.BatchReshape,
    tfd.Independent,
    tfd.Masked,
    tfd.Mixture,
    tfd.MixtureSameFamily,
    tfd.Sample,
)
_COUNTS = (tfd.Poisson, tfd.NegativeBinomial, tfd.Geometric, tfd.Binomial)


@dataclasses.dataclass(frozen=True)
class Domain:
    """An interval of numbers, or the integers in it.

    Attributes:
        low: Float. The smallest value.
        high: Float. The largest value.
        integer: Boolean. Whether only integers are modelled. Defaults to
            False.
    """

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False

    @classmethod
    def of(cls, likelihood: tfd.Distribution) -> "Domain":
        """Returns the values that a likelihood models.

        Args:
            likelihood: `tfd.Distribution`. A distribution over elements.
                Independent copies, mixtures and masked distributions have the
                domain of their first part. Blocks have the domain that all of
                them share, or else any numbers.

        Example:
        >>> Domain.of(tfd.Independent(tfd.Bernoulli([0.0]), 1))
        Domain(low=0.0, high=1.0, integer=True)
        """
        base = likelihood
        while isinstance(base, _COMPOSITES):
            base = _parts(base)[0]
        if isinstance(base, PixelCNN):
            if isinstance(base.pixels, NormalPixels):
                return cls()
            return cls(0.0, 1.0, isinstance(base.pixels, BernoulliPixels))
        if isinstance(base, tfd.Blockwise):
            domains = {cls.of(part) for part in base.distributions}
            return domains.pop() if len(domains) == 1 else cls()
        if isinstance(base, tfd.Categorical):
            classes = base.logits_parameter().shape[-1]
            high = math.inf if classes is None else classes - 1.0
            return cls(0.0, high, integer=True)
        if isinstance(base, tfd.Bernoulli | tfd.OneHotCategorical):
            return cls(0.0, 1.0, integer=True)
        if isinstance(base, _COUNTS):
            return cls(0.0, integer=True)
        return _interval(base)

    @property
    def binary(self) -> bool:
        """True if the values are 0 and 1."""
        return self == Domain(0.0, 1.0, integer=True)

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
        first = np.argwhere(~right)[0]
        index = first[: values.ndim - event_rank].tolist()
        wrong = values[tuple(first)]
        range_ = f"{np.nanmin(values):g}..{np.nanmax(values):g}" * (
            not np.isnan(values).all()
        )
        raise ValueError(
            f"The likelihood of this model is over {self}. {self._remedy()} "
            f"Received: `{name}` with the value {wrong:g} in the element at "
            f"index {index}; all values are in {range_ or 'NaN'}."
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
        if self.binary:
            return (values == 0) | (values == 1)
        right = (values >= self.low) & (values <= self.high)
        if self.integer:
            floor = np.floor if isinstance(values, np.ndarray) else tf.floor
            right &= values == floor(values)
        return right & (abs(values) < math.inf)

    def _remedy(self) -> str:
        if self.binary:
            return (
                "Scale pixels to 0..1 and binarize them, as in "
                "`(images >= 0.5)`, or pass uint8 images of 0..255."
            )
        if (self.low, self.high) == (0.0, 1.0):
            return "Divide pixels of 0..255 by 255."
        return "Scale or repair the data."

    def __str__(self) -> str:
        if self.binary:
            return "values 0 and 1"
        kind = "integers" if self.integer else "finite numbers"
        if math.isinf(self.low) and math.isinf(self.high):
            return kind
        return f"{kind} from {self.low:g} to {self.high:g}"


def _parts(composite: tfd.Distribution) -> Sequence[tfd.Distribution]:
    if isinstance(composite, tfd.Mixture):
        return composite.components
    if isinstance(composite, tfd.MixtureSameFamily):
        return [composite.components_distribution]
    return [composite.distribution]


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
