"""95% confidence intervals of means, and tests whether two means differ.

Accuracies have the score interval of Wilson (1927) over queries. Queries of a
task share supports and samples: where tasks vary by more than independent
queries would, their number is divided by that ratio, the design effect (Korn
and Graubard 1998, "Confidence Intervals for Proportions with Small Expected
Number of Positive Counts Estimated from Survey Data"). Other means have the
interval of Student's t.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = ["fraction_interval", "mean_interval", "p_of_difference"]

_UPPER = 0.975  # of a two-sided 95% interval


def fraction_interval(
    mean: float,
    *,
    standard_error: float,
    num_tasks: int,
    num_queries: int,
) -> tuple[float, float]:
    """Returns the interval of a fraction of queries; within 0 and 1.

    Args:
        mean: Float. The fraction of all queries.
        standard_error: Float. Standard error of the mean over tasks.
        num_tasks: Integer. The number of tasks, 2 or more.
        num_queries: Integer. The number of queries in all tasks.

    Example:
    >>> low, high = fraction_interval(
    ...     1.0, standard_error=0.0, num_tasks=3, num_queries=60)
    >>> round(low, 3), high
    (0.94, 1.0)
    """
    variance = mean * (1 - mean) / num_queries
    z, count = _normal_quantile(), float(num_queries)
    if variance > 0 and standard_error**2 > variance:
        count *= variance / standard_error**2
        z = _t_quantile(num_tasks - 1)
    centre = mean + z**2 / (2 * count)
    spread = z * math.sqrt(mean * (1 - mean) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return (0.0 if mean == 0 else low), (1.0 if mean == 1 else high)


def mean_interval(
    mean: float, *, standard_error: float, num_values: int
) -> tuple[float, float]:
    """Returns the interval of Student's t.

    Args:
        mean: Float.
        standard_error: Float. Standard error of the mean over values.
        num_values: Integer. The number of values, 2 or more.

    Example:
    >>> low, high = mean_interval(0.0, standard_error=1.0, num_values=5)
    >>> round(high, 3)
    2.776
    """
    half = _t_quantile(num_values - 1) * standard_error
    return mean - half, mean + half


def p_of_difference(
    means: Sequence[float],
    *,
    standard_errors: Sequence[float],
    sizes: Sequence[int],
    queries: Sequence[int] | None = None,
) -> float:
    """Returns how probable so large a difference of two equal means is.

    Accuracies are compared by the score test of two proportions, with numbers
    of queries as in `fraction_interval`; other means by Welch's t test.

    Args:
        means: Two floats.
        standard_errors: Two floats, over tasks or values.
        sizes: Two integers, the numbers of tasks or values, 2 or more.
        queries: Two integers or None. The numbers of queries of accuracies.
            Defaults to None.

    Example:
    >>> p_of_difference([0.0, 0.0], standard_errors=[1.0, 1.0], sizes=[5, 9])
    1.0
    """
    difference = means[0] - means[1]
    if difference == 0.0:
        return 1.0
    squares = np.square(standard_errors)
    degrees = np.array(sizes) - 1.0
    if queries is not None:
        pooled = np.dot(means, queries) / np.sum(queries)
        binomial = pooled * (1 - pooled) / np.array(queries)
        # If queries are independent, the variance is known.
        degrees = np.where(squares > binomial, degrees, math.inf)
        squares = np.maximum(squares, binomial)
    error = math.sqrt(squares.sum())
    if error == 0.0:
        return 0.0
    statistic = abs(difference) / error
    of_error = np.sum(squares**2 / degrees) / squares.sum() ** 2
    if of_error < 1e-9:
        return math.erfc(statistic / math.sqrt(2))
    df = np.float64(1 / of_error)
    return float(
        tf.math.betainc(df / 2, np.float64(0.5), df / (df + statistic**2))
    )


@functools.cache
def _normal_quantile() -> float:
    return float(tfd.Normal(np.float64(0), np.float64(1)).quantile(_UPPER))


@functools.cache
def _t_quantile(degrees: int) -> float:
    zero, one = np.float64(0), np.float64(1)
    return float(tfd.StudentT(np.float64(degrees), zero, one).quantile(_UPPER))
