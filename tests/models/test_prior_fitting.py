import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests.conftest import perturb
from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.layers import GaussianMixturePrior
from vhe_tf.layers import LowRankGaussianPrior

SEED = (3, 4)


def _data(*groups):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (48, 8, 8, 1)).astype(np.float32)
    sizes = {"character": 6, "alphabet": 12, "style": 8}
    return GroupedImages(
        images, {name: np.arange(48) // sizes[name] for name in groups}
    )


@pytest.fixture(scope="module")
def flat():
    model = tiny_vhe("flat")
    perturb(model, scale=0.5)
    return model


@pytest.fixture(scope="module")
def fitted(flat):
    return vhe_tf.fit_prior(flat, _data("character"), num_steps=12)


@pytest.fixture(scope="module")
def templates():
    """A tiny PixelCNN, and the same with a fitted prior."""
    model = tiny_pixel_cnn_vhe("small")
    data = _data("character")
    return model, vhe_tf.fit_prior(model, data, num_steps=60, rank=8)


def _training_samples(model, *, count=10):
    episodes = Episodes.for_model(model, _data("character"), seed=9)
    return tf.concat(
        [
            model.latents[0]
            .posterior(episode["support"]["character"])
            .sample(seed=(k, 0))
            for k, episode in enumerate(episodes.dataset().take(count))
        ],
        axis=0,
    )


def _densities(model):
    episode = tiny_episode()
    support, query = episode["support"], episode["query"]
    elbo = model(episode).elbo
    likelihood = model.log_likelihood(support, query, seed=SEED)
    _, weights = model.importance_sample(support, seed=SEED, num_samples=3)
    return [elbo, likelihood, weights]


def test_new_groups_have_the_moments_of_the_posteriors(flat, fitted):
    true = _training_samples(flat).numpy()
    made = fitted.infer({}, seed=SEED, batch_size=2000)["character"][0].numpy()
    # 320 and 384 samples of 8 groups.
    scale = true.std(axis=0)
    np.testing.assert_allclose(
        made.mean(axis=0) / scale, true.mean(axis=0) / scale, atol=0.4
    )
    np.testing.assert_allclose(made.std(axis=0), scale, rtol=0.3)
    before = flat.infer({}, seed=SEED, batch_size=2000)["character"][0].numpy()
    shift = (before.mean(axis=0) - true.mean(axis=0)) / scale
    assert np.any(np.abs(shift) > 0.6)


def test_a_fitted_prior_changes_no_density(flat, fitted, templates):
    for before, after in ((flat, fitted), templates):
        for old, new in zip(_densities(before), _densities(after), strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)


def test_samples_given_a_support_do_not_change(templates):
    before, after = templates
    support = tiny_episode()["support"]
    np.testing.assert_array_equal(
        after.sample(support, seed=SEED), before.sample(support, seed=SEED)
    )


def test_templates_become_more_likely(templates):
    before, after = templates
    assert isinstance(after.latents[0].fitted_prior, LowRankGaussianPrior)
    values = _training_samples(before, count=4)
    gain = after.latents[0].fitted_prior().log_prob(values)
    gain -= before.latents[0].prior().log_prob(values)
    assert np.mean(gain) > 1.0


def test_new_templates_have_the_moments_of_the_posteriors(templates):
    before, after = templates
    true = _training_samples(before, count=60).numpy()
    made = after.infer({}, seed=SEED, batch_size=1000)["character"][0].numpy()
    scale = true.std(axis=0)
    np.testing.assert_allclose(
        made.mean(axis=0) / scale, true.mean(axis=0) / scale, atol=0.3
    )
    np.testing.assert_allclose(made.std(axis=0), scale, rtol=0.3)


def test_one_template_is_too_few():
    data = _data("character").where(np.arange(48) == 0)
    episodes = Episodes(data, batch_size=1, support_size=1, resamples=True)
    with pytest.raises(ValueError, match="1 images with a label in 1 batches"):
        vhe_tf.fit_prior(tiny_pixel_cnn_vhe("small"), episodes, num_steps=1)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_gaussian_is_of_float32_in_mixed_precision(policy):
    layer = LowRankGaussianPrior((2, 3), rank=2, dtype=policy)
    assert layer().dtype == tf.float32


def test_few_templates_have_few_components():
    model = tiny_pixel_cnn_vhe("small")
    fitted = vhe_tf.fit_prior(model, _data("character"), num_steps=1)
    # A batch has 32 templates.
    assert fitted.latents[0].fitted_prior.rank == 3


@pytest.mark.parametrize("kind", ["vector", "template"])
def test_a_fitted_prior_is_saved_with_the_model(
    kind, fitted, templates, tmp_path
):
    model = fitted if kind == "vector" else templates[1]
    vhe_tf.save_model(model, tmp_path / "model.keras")
    loaded = vhe_tf.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.sample_prior(3, seed=SEED), model.sample_prior(3, seed=SEED)
    )
    assert loaded.latents[0].fitted_prior.trainable is False


def test_a_fitted_prior_is_not_trained(fitted):
    names = [v.path for v in fitted.trainable_variables]
    assert len(names) == len(tiny_vhe("flat").trainable_variables)
    before = fitted.latents[0].fitted_prior.get_weights()
    fitted.compile("adam")
    fitted.fit(_data("character"), steps_per_epoch=1, verbose=0)
    for old, new in zip(
        before, fitted.latents[0].fitted_prior.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_rows_of_a_fitted_prior_have_seeds_of_their_own(fitted):
    seeds = vhe_tf.random.fold_in(0, tf.range(4))
    np.testing.assert_array_equal(
        fitted.sample_prior(4, seed=seeds)[2:],
        fitted.sample_prior(2, seed=seeds[2:]),
    )
    cold = fitted.sample_prior(2, seed=seeds[:2], latent_temperature=0.5)
    assert cold.shape == [2, 8, 8, 1]


@pytest.mark.parametrize(
    ("structure", "groups", "expected"),
    [
        ("hierarchical", ("character", "alphabet"), ["alphabet"]),
        ("factorial", ("character", "style"), ["character", "style"]),
    ],
)
def test_only_group_latents_without_parents_are_fitted(
    structure, groups, expected
):
    model = tiny_vhe(structure)
    fitted = vhe_tf.fit_prior(model, _data(*groups), num_steps=2)
    with_prior = [v.name for v in fitted.latents if v.fitted_prior is not None]
    assert with_prior == expected


def test_images_without_a_label_are_omitted():
    data = _data("character", "style")
    data.labels["style"][:40] = -1
    model = tiny_vhe("factorial")
    fitted = vhe_tf.fit_prior(model, data, num_steps=4)
    style = fitted.latents[1].fitted_prior
    # A third of 128 samples at most have a style.
    assert 1 <= style.num_components <= 4


def test_a_latent_with_parents_has_no_fitted_prior():
    latent = tiny_vhe("hierarchical").latents[1]
    config = latent.get_config()
    with pytest.raises(ValueError, match="Received: latent 'character'"):
        vhe_tf.Latent(
            "character",
            prior=latent.prior,
            posterior=latent.posterior,
            parents=config["parents"],
            fitted_prior=GaussianMixturePrior(2, num_components=1),
        )


def test_a_number_of_steps_that_is_not_positive_is_rejected(flat):
    with pytest.raises(ValueError, match="num_steps=0"):
        vhe_tf.fit_prior(flat, _data("character"), num_steps=0)
