import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_episode
from tests.conftest import tiny_vhe
from vhe_tf.objectives import Objective
from vhe_tf.objectives import elbo_terms


@pytest.mark.parametrize(
    ("objective", "resamples", "rescales"),
    [
        ("neural_statistician", False, False),
        ("resample", True, False),
        ("rescale", False, True),
        ("vhe", True, True),
    ],
)
def test_two_facts_tell_the_four_objectives_apart(
    objective, resamples, rescales
):
    assert Objective(objective).resamples is resamples
    assert Objective(objective).rescales is rescales


def test_names_and_values_agree_as_flags_need():
    assert [m.name.lower() for m in Objective] == [m.value for m in Objective]


def test_each_kl_is_divided_by_its_own_group_scale():
    terms = elbo_terms(
        log_likelihood=tf.constant([-10.0, -20.0]),
        kl={
            "character": tf.constant([6.0, 8.0]),
            "alphabet": tf.constant([30.0, 5.0]),
            "element": tf.constant([1.0, 2.0]),
        },
        group_scale={
            "character": tf.constant([3, 4]),
            "alphabet": tf.constant(10),
            "element": tf.constant(1),
        },
    )
    # -10 - 6/3 - 30/10 - 1 and -20 - 8/4 - 5/10 - 2.
    np.testing.assert_allclose(terms.elbo, [-16.0, -24.5], rtol=1e-6)
    np.testing.assert_allclose(terms.scaled_kl["character"], [2.0, 2.0])
    np.testing.assert_allclose(terms.scaled_kl["alphabet"], [3.0, 0.5])
    np.testing.assert_allclose(terms.scaled_kl["element"], [1.0, 2.0])
    np.testing.assert_allclose(terms.kl["alphabet"], [30.0, 5.0])
    np.testing.assert_allclose(terms.log_likelihood, [-10.0, -20.0])


def test_the_bound_keeps_the_dtype_of_its_terms():
    terms = elbo_terms(
        log_likelihood=tf.constant([-1.0], tf.float64),
        kl={"character": tf.constant([1.0], tf.float64)},
        group_scale={"character": tf.constant([3], tf.int32)},
    )
    assert terms.elbo.dtype == tf.float64


def _terms_by_objective(model, episode):
    terms = {}
    for objective in Objective:
        model.objective = objective
        terms[objective] = model(episode)
    return terms


@pytest.fixture(scope="module")
def terms():
    """The four bounds of one model on one episode, |D| = 2, |X| = 7."""
    return _terms_by_objective(tiny_vhe("flat"), tiny_episode(group_size=7))


@pytest.mark.parametrize(
    ("objective", "group_scale"),
    [
        ("neural_statistician", 2.0),  # Eq. 6
        ("resample", 2.0),  # Eq. 19
        ("rescale", 7.0),  # Eq. 20
        ("vhe", 7.0),  # Eq. 16
    ],
)
def test_the_kl_of_a_group_is_shared_as_its_equation_says(
    terms, objective, group_scale
):
    t = terms[objective]
    by_hand = (
        t.log_likelihood - t.kl["element"] - t.kl["character"] / group_scale
    )
    np.testing.assert_allclose(t.elbo, by_hand, rtol=1e-6)


def test_the_kl_of_an_element_is_never_divided(terms):
    for t in terms.values():
        np.testing.assert_array_equal(t.scaled_kl["element"], t.kl["element"])


def test_the_objective_changes_nothing_but_the_group_scale(terms):
    for t in terms.values():
        np.testing.assert_array_equal(
            t.log_likelihood, terms["vhe"].log_likelihood
        )
        np.testing.assert_array_equal(
            t.kl["character"], terms["vhe"].kl["character"]
        )


@pytest.mark.parametrize("structure", ["flat", "hierarchical", "factorial"])
def test_rescaling_is_vacuous_when_the_support_is_the_group(structure):
    model = tiny_vhe(structure)
    groups = [v.name for v in model.latents if not v.per_element]
    episode = tiny_episode(groups, support_size=3, group_size=3)
    terms = _terms_by_objective(model, episode)
    for t in terms.values():
        np.testing.assert_allclose(t.elbo, terms["vhe"].elbo, rtol=1e-6)


def test_without_rescaling_the_size_of_the_group_is_not_needed():
    model = tiny_vhe("flat", objective="neural_statistician")
    episode = tiny_episode()
    del episode["group_size"]
    assert model(episode).elbo.shape == (3,)
    with pytest.raises(ValueError, match="an episode without group_size"):
        model.test_step(episode)  # which reports it
