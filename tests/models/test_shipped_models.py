import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from vhe_tf.models import loading
from vhe_tf.models.presets import presets

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(ROOT.glob("saved_models/*/best.keras"))
RECORDED = pathlib.Path(__file__).with_name("shipped_log_likelihoods.json")


def log_densities(model):
    """Returns densities of a fixed input, in nats; nothing is sampled."""
    random = np.random.default_rng(7)
    images = random.uniform(size=(2, 3, *model.image_shape)) < 0.3
    images = tf.constant(images, tf.float32)
    values, results = {}, {}
    for latent in model.latents:
        parents = [values[name] for name in latent.parents]
        observed = images[:, 0] if latent.per_element else images
        posterior, prior = latent(observed, *parents)
        noise = random.normal(size=(2, *posterior.event_shape))
        values[latent.name] = tf.constant(noise, tf.float32)
        for kind, density in (("prior", prior), ("posterior", posterior)):
            log_density = density.log_prob(values[latent.name])
            results[f"{kind}_{latent.name}"] = log_density.numpy().tolist()
    likelihood = model.likelihood(**values).log_prob(images[:, 0])
    return {**results, "likelihood": likelihood.numpy().tolist()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_shipped_weights_give_the_recorded_densities(path):
    recorded = json.loads(RECORDED.read_text())[path.parent.name]
    model = loading.load_model(path)
    preset = presets()[path.parent.name]
    assert model.count_params() == preset.num_parameters
    densities = log_densities(model)
    assert densities.keys() == recorded.keys()
    for name, values in recorded.items():
        np.testing.assert_allclose(
            densities[name], values, rtol=1e-5, err_msg=name
        )


def test_densities_are_recorded_for_every_shipped_model():
    recorded = json.loads(RECORDED.read_text())
    assert sorted(recorded) == [path.parent.name for path in FILES]
