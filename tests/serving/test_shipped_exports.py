"""The exports in saved_models/ are those of the models beside them."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

import vhe_tf

ROOT = pathlib.Path(__file__).parents[2]
SERVED = re.findall(
    r'name: "(.*)"', (ROOT / "deploy/models.config").read_text()
)
NUM_SAMPLES = 20  # of the exports


def test_exports_are_kept_of_the_served_models_alone():
    exports = ROOT.glob("saved_models/*/*/saved_model.pb")
    assert sorted(p.parents[1].name for p in exports) == sorted(SERVED)


@pytest.fixture(scope="module", params=SERVED)
def shipped(request):
    """A model, and the signatures of its export."""
    (folder,) = ROOT.glob(f"saved_models/{request.param}/[0-9]*")
    signatures = tf.saved_model.load(str(folder)).signatures
    return vhe_tf.load_model(request.param), signatures


def test_an_export_gives_the_log_likelihoods_of_its_model(shipped):
    model, signatures = shipped
    generator = np.random.default_rng(0)
    images = generator.uniform(size=(2, 3, *model.image_shape)) < 0.2
    support, query = images[:, :2].astype("f4"), images[:, 2].astype("f4")
    seeds = np.arange(2, dtype=np.int64)
    served = signatures["log_likelihood"](
        support=tf.constant(support),
        query=tf.constant(query),
        seed=tf.constant(seeds),
    )["log_likelihood"]
    expected = model.log_likelihood(
        support,
        query,
        seed=tf.bitcast(tf.constant(seeds), tf.int32),
        num_samples=NUM_SAMPLES,
    )
    np.testing.assert_allclose(served, expected, rtol=1e-4)


def test_an_export_samples_new_groups_as_its_model(shipped):
    model, signatures = shipped
    seeds = tf.range(4, dtype=tf.int64)
    served = signatures["sample_prior"](seed=seeds)["images"]
    expected = model.sample_prior(4, seed=tf.bitcast(seeds, tf.int32))
    equal = np.all(np.equal(served, expected), axis=(1, 2, 3))
    # Rounding may flip a pixel, on which all later ones depend.
    assert np.mean(equal) >= 0.5
