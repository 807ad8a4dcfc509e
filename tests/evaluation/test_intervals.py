import numpy as np
import pytest
import scipy.stats

from vhe_tf.evaluation import Measurement
from vhe_tf.evaluation.intervals import fraction_interval
from vhe_tf.evaluation.intervals import mean_interval
from vhe_tf.evaluation.intervals import p_of_difference


def accuracy(values, num_queries):
    return Measurement.of("accuracy", values, num_queries=num_queries)


@pytest.mark.parametrize("right", [0, 1, 30, 57, 60])
def test_independent_queries_have_the_interval_of_wilson(right):
    expected = scipy.stats.binomtest(right, 60).proportion_ci(method="wilson")
    found = fraction_interval(
        right / 60, standard_error=0.0, num_tasks=3, num_queries=60
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("count", [2, 5, 50])
def test_nats_have_the_interval_of_student(count):
    values = np.random.default_rng(0).normal(60.0, 5.0, count)
    error = scipy.stats.sem(values)
    expected = scipy.stats.t.interval(0.95, count - 1, values.mean(), error)
    found = mean_interval(values.mean(), standard_error=error, num_values=count)
    np.testing.assert_allclose(found, expected)


def test_tasks_that_vary_widen_the_interval_by_their_design_effect():
    alike = accuracy([0.5] * 20, 400)
    apart = accuracy([0.0, 1.0] * 10, 400)
    # Each task counts as one query then, but for 19 degrees of freedom.
    z, n = scipy.stats.t.ppf(0.975, 19), 0.25 / apart.standard_error**2
    half = z * np.sqrt(0.25 / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert apart.half_width == pytest.approx(half)
    assert apart.half_width > 4 * alike.half_width


@pytest.mark.parametrize("num_tasks", [3, 20, 60])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("correlation", [0.0, 0.03])
def test_accuracies_are_covered_nineteen_times_in_twenty(
    num_tasks, share, correlation
):
    """1.96 standard errors of 3 tasks of 99% cover 40 to 46%."""
    rng = np.random.default_rng(0)
    chances = np.full((500, num_tasks), share)
    if correlation:
        scale = 1 / correlation - 1
        chances = rng.beta(share * scale, (1 - share) * scale, chances.shape)
    values = rng.binomial(20, chances) / 20
    low, high = np.transpose(
        [accuracy(each, 20 * num_tasks).interval for each in values]
    )
    covered = np.mean((low <= share) & (share <= high))
    error = np.sqrt(0.95 * 0.05 / 500)
    # Wilson's interval itself covers 94% for some shares.
    assert covered > 0.935 - 3 * error
    assert np.all((low >= 0) & (high <= 1) & (low < high))


@pytest.mark.parametrize("count", [3, 20])
def test_nats_are_covered_nineteen_times_in_twenty(count):
    rng = np.random.default_rng(0)
    intervals = [
        Measurement.of("elbo", values, unit="nats").interval
        for values in rng.normal(size=(500, count))
    ]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 500)


def test_means_are_compared_by_the_test_of_welch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=8), rng.normal(0.8, 2.0, size=30)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False).pvalue
    found = p_of_difference(
        [a.mean(), b.mean()],
        standard_errors=[scipy.stats.sem(a), scipy.stats.sem(b)],
        sizes=[8, 30],
    )
    assert found == pytest.approx(expected)


def test_proportions_are_compared_by_the_score_test():
    right, queries = np.array([57, 372]), np.array([60, 400])
    table = np.stack([right, queries - right])
    expected = scipy.stats.chi2_contingency(table, correction=False).pvalue
    found = p_of_difference(
        right / queries,
        standard_errors=[0.0, 0.0],
        sizes=[3, 20],
        queries=queries,
    )
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("share", "num_tasks"), [(0.5, (3, 20)), (0.99, (6, 60))]
)
def test_a_table_raises_no_false_alarm(share, num_tasks):
    """Fewer than 5 are expected of 2,000 comparisons at one in 5,000."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        each = [rng.binomial(20, share, n) / 20 for n in num_tasks]
        alarms += (
            p_of_difference(
                [values.mean() for values in each],
                standard_errors=[scipy.stats.sem(values) for values in each],
                sizes=num_tasks,
                queries=[20 * n for n in num_tasks],
            )
            < 0.01 / 50
        )
    assert alarms < 5
