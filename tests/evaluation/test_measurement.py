import json

import numpy as np
import pytest
import scipy.stats

from tests.evaluation.conftest import NUM_ERRORS
from vhe_tf.evaluation.measurement import Measurement


def estimate(values):
    return Measurement.of("elbo", values, unit="nats per image")


def test_an_estimate_is_the_mean_with_the_interval_of_student():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=500)
    result = estimate(values)
    assert result.num_values == 500
    np.testing.assert_allclose(result.mean, np.mean(values))
    expected = scipy.stats.t.interval(
        0.95, 499, loc=np.mean(values), scale=scipy.stats.sem(values)
    )
    np.testing.assert_allclose(result.interval, expected)


def test_intervals_cover_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        result = estimate(rng.uniform(size=100))
        covered += abs(result.mean - 0.5) <= result.half_width
    # The standard error of a count of 950 in 1000 is 7.
    assert abs(covered - 950) < NUM_ERRORS * 7


def test_a_single_value_has_no_interval():
    result = estimate(np.array([0.25]))
    assert result.mean == 0.25
    assert result.num_values == 1
    assert result.half_width is None


def test_an_estimate_is_of_plain_numbers_in_double_precision():
    result = estimate(np.full(10**5, 0.1, np.float32))
    assert type(result.mean) is type(result.half_width) is float
    assert abs(result.mean - np.float32(0.1)) < 1e-12


def test_values_are_kept():
    result = estimate(np.float32([0.5, 1.0]))
    assert result.values == (0.5, 1.0)
    assert [type(value) for value in result.values] == [float, float]


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"ways": 20, "shots": 1}, "accuracy.20way_1shot"),
        (
            {"ways": 20, "shots": 5, "within": "alphabet"},
            "accuracy.20way_5shot_within_alphabet",
        ),
        (
            {"ways": 10, "shots": 5, "by": "alphabet"},
            "accuracy.10way_5shot_by_alphabet",
        ),
        (
            {"ways": 20, "shots": 1, "tasks": "lake_runs"},
            "accuracy.20way_1shot_lake_runs",
        ),
        ({"metric": "joint_nll"}, "joint_nll"),
        ({"metric": "elbo"}, "elbo"),
        ({"metric": "conditional_nll", "shots": 19}, "conditional_nll.19shot"),
        (
            {"metric": "training_kl", "latent": "character"},
            "training_kl.character",
        ),
        (
            {"metric": "probe", "latent": "alphabet", "factor": "drawer"},
            "probe.alphabet.drawer",
        ),
        ({"metric": "transfer", "factor": "style"}, "transfer.style"),
    ],
)
def test_keys_are_those_of_the_kept_results(fields, key):
    assert Measurement(**{"metric": "accuracy", "mean": 0.5, **fields}).key == (
        key
    )


def test_a_measurement_survives_json():
    full = Measurement.of(
        "training_kl",
        [1.0, 2.0],
        unit="nats",
        latent="character",
        support_sizes=(1, 5),
        num_samples=3,
    )
    for one in (full, estimate([0.5]), Measurement("elbo", -1.0)):
        text = json.dumps(one.to_json(), allow_nan=False)
        assert Measurement.from_json(json.loads(text)) == one


def test_an_unknown_field_is_rejected():
    with pytest.raises(ValueError, match=r"Received: \['half_width_95'\]"):
        Measurement.from_json(
            {"metric": "elbo", "mean": 0.0, "half_width_95": 1.0}
        )


def test_bits_are_nats_over_dimensions():
    nats = 24 * np.log(2.0)
    one = Measurement.of(
        "elbo", [-nats, -3 * nats], unit="nats per image", num_dimensions=24
    )
    bits = one.bits_per_dimension
    np.testing.assert_allclose(bits.mean, -2.0)
    np.testing.assert_allclose(bits.values, [-1.0, -3.0])
    np.testing.assert_allclose(bits.half_width, scipy.stats.t.ppf(0.975, 1))
    assert bits.unit == "bits per dimension"
    assert estimate([1.0]).bits_per_dimension is None
