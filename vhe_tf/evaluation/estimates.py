"""What every evaluation reports: a mean with its uncertainty."""

from typing import NamedTuple

import numpy as np

__all__ = ["Estimate", "estimate"]

_NORMAL_QUANTILE = 1.96  # two-sided 95%


class Estimate(NamedTuple):
    """A mean over independent trials.

    Attributes:
        mean: The mean.
        half_width: Half the width of its 95% confidence interval, by the
            normal approximation; NaN for a single trial.
        num_trials: The number of independent trials.
    """

    mean: float
    half_width: float
    num_trials: int


def estimate(values: np.ndarray) -> Estimate:
    """Summarises independent trials.

    Args:
        values: `[n]`, one value a trial.

    Returns:
        Their mean and its 95% interval.
    """
    values = np.asarray(values, np.float64)
    half_width = (
        _NORMAL_QUANTILE * values.std(ddof=1) / np.sqrt(len(values))
        if len(values) > 1
        else np.nan
    )
    return Estimate(float(values.mean()), float(half_width), len(values))
