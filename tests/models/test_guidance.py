"""Guidance of models with several group latents."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import vhe_tf
from tests.conftest import tiny_alphabet_pixel_cnn_vhe
from tests.conftest import tiny_episode
from tests.conftest import tiny_style_vhe
from tests.conftest import tiny_vhe
from vhe_tf import random
from vhe_tf.models import _graph

SEED = (5, 6)
COLD = 1e-6
NUM_LEVELS = 3
ONE = tf.constant(1.0)


@pytest.fixture(scope="module")
def model():
    return tiny_style_vhe(num_levels=NUM_LEVELS, guidance=0.5)


@pytest.fixture(scope="module")
def support():
    rng = np.random.default_rng(1)
    return {
        name: tf.constant(
            rng.integers(0, NUM_LEVELS, (3, 2, 8, 8, 3)) / (NUM_LEVELS - 1.0),
            tf.float32,
        )
        for name in ("character", "style")
    }


def _log_probs(model, samples, images):
    """Returns log p(level | what is before) of channel 0, `[L, B, H, W]`."""
    conditioning = model.likelihood.conditioning(**samples)
    parameters = model.likelihood.network(images, conditioning)
    found = []
    for level in range(NUM_LEVELS):
        changed = images.numpy()
        changed[..., 0] = level / (NUM_LEVELS - 1.0)
        log_probs = model.likelihood.pixels.log_prob(
            parameters, tf.constant(changed), temperature=ONE
        )
        found.append(np.float64(log_probs)[..., 0])
    return np.stack(found)


def test_the_contrasts_are_other_characters_in_the_same_style(model, support):
    samples = model.infer(support, seed=random.fold_in(SEED, 0))
    samples, _ = model._complete(
        samples, query=None, seed=random.fold_in(SEED, 1)
    )
    samples = {name: value[0] for name, value in samples.items()}
    images = model.sample(support, seed=SEED, guidance=2.0, temperature=COLD)
    others = model.infer({}, seed=0, num_samples=6, batch_size=1)["character"]
    sets = [_log_probs(model, samples, images)]
    for other in others:
        contrast = samples | {"character": tf.repeat(other, 3, axis=0)}
        sets.append(_log_probs(model, contrast, images))
    mean = scipy.special.logsumexp(sets, axis=0)
    best = np.argmax(3.0 * sets[0] - 2.0 * mean, axis=0)
    levels = np.rint((NUM_LEVELS - 1.0) * images.numpy()[..., 0])
    assert np.all(levels == best)
    assert np.any(levels != np.argmax(sets[0], axis=0))


def test_the_default_guidance_is_stored_with_the_model(
    model, support, tmp_path
):
    images = model.sample(support, seed=SEED)
    np.testing.assert_array_equal(
        images, model.sample(support, seed=SEED, guidance=0.5)
    )
    plain = model.sample(support, seed=SEED, guidance=0.0)
    assert np.any(images != plain)
    model.save(tmp_path / "model.keras")
    again = vhe_tf.load_model(tmp_path / "model.keras")
    assert again.guidance == 0.5
    np.testing.assert_array_equal(images, again.sample(support, seed=SEED))


def test_a_guided_row_depends_on_its_own_seed_alone(model, support):
    seeds = random.fold_in(SEED, tf.range(3))
    one = {name: value[1:2] for name, value in support.items()}
    together = model.sample(support, seed=seeds, best_of=2)
    alone = model.sample(one, seed=seeds[1:2], best_of=2)
    np.testing.assert_array_equal(together[1:2], alone)


def test_the_best_sample_explains_the_content_best():
    model = tiny_vhe("factorial")
    support = tiny_episode(["character", "style"], support_size=1)["support"]
    seeds = random.fold_in(SEED, tf.range(3))
    candidates, scores = [], []
    for index in range(4):
        seed = random.fold_in(seeds, index)
        made = model.sample(support, seed=seed)
        candidates.append(made.numpy())
        scores.append(
            model.log_likelihood(
                {"character": made[:, tf.newaxis]},
                support["character"][:, 0],
                seed=random.fold_in(seed, 3),
                num_samples=4,
            ).numpy()
        )
    best = np.argmax(scores, axis=0)
    assert np.any(best != 0)
    np.testing.assert_array_equal(
        model.sample(support, seed=seeds, best_of=4),
        np.stack([candidates[k][row] for row, k in enumerate(best)]),
    )


def test_a_latent_temperature_is_that_of_the_pose(model, support):
    samples = model.infer(support, seed=random.fold_in(SEED, 0))
    seed = random.fold_in(SEED, 1)
    warm, _ = model._complete(samples, query=None, seed=seed)
    samples["pose"] = 0.5 * warm["pose"]  # of N(0, I) to the power 4
    likelihood = model.likelihood(**samples)
    np.testing.assert_array_equal(
        model.sample(support, seed=SEED, latent_temperature=0.25, guidance=0.0),
        random.sample(likelihood, seed=random.fold_in(SEED, 2))[0],
    )
    options = {"best_of": 2, "guidance": 0.0}
    cold = model.sample(support, seed=SEED, latent_temperature=0.25, **options)
    assert np.any(cold != model.sample(support, seed=SEED, **options))
    with pytest.raises(ValueError, match=r"Received: temperature=0\.0"):
        model.sample(support, seed=SEED, latent_temperature=0.0)


def test_relatives_of_the_first_group_latent():
    style = tiny_style_vhe().latents
    assert _graph.related_to_first(style) == ["character"]
    alphabets = tiny_alphabet_pixel_cnn_vhe().latents
    assert _graph.related_to_first(alphabets) == ["alphabet", "character"]


def test_the_shipped_model_of_styles_is_guided():
    assert vhe_tf.load_model("omniglot_styles_small").guidance == 1.0
