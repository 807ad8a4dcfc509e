"""Elements that are not images: numbers, vectors, counts, sequences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests.conftest import assert_survives_round_trip
from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import layers
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages

NUM_GROUPS, GROUP_SIZE = 12, 6
# Kinds of elements: a family, a shape, and how to sample them around a mean.
KINDS = {
    "numbers": ("mixture", (), lambda rng, mean: rng.normal(30.0 * mean)),
    "vectors": ("normal", (3,), lambda rng, mean: rng.normal(30.0 * mean)),
    "counts": ("poisson", (4,), lambda rng, mean: rng.poisson(20.0 * mean)),
    "sequences": ("bernoulli", (5, 2), lambda rng, mean: mean < 0.5),
    "videos": ("normal", (2, 3, 3, 1), lambda rng, mean: rng.normal(mean)),
}


def data_of(kind):
    _, shape, sample = KINDS[kind]
    rng = np.random.default_rng(0)
    mean = rng.uniform(size=(NUM_GROUPS, 1, *shape))
    mean = np.broadcast_to(mean, (NUM_GROUPS, GROUP_SIZE, *shape))
    elements = np.asarray(sample(rng, mean)).reshape(-1, *shape)
    labels = np.arange(NUM_GROUPS).repeat(GROUP_SIZE)
    return GroupedImages(elements, {"class": labels})


def model_of(kind):
    family, shape, _ = KINDS[kind]
    keras.utils.set_random_seed(0)
    return VHE(
        [
            Latent.vector("class", 2, encoder=keras.layers.Flatten(), units=8),
            Latent.vector(
                "element",
                2,
                encoder=keras.layers.Flatten(),
                units=8,
                parents=["class"],
                per_element=True,
            ),
        ],
        layers.DenseLikelihood(shape, family, units=(8,)),
        event_shape=shape,
    )


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    """Returns data, a model that was trained on them, and its losses."""
    data, model = data_of(request.param), model_of(request.param)
    model.compile(keras.optimizers.Adam(0.03))
    episodes = Episodes.for_model(model, data, support_size=(1, 3))
    history = model.fit(episodes, epochs=2, steps_per_epoch=30, verbose=0)
    return data, model, history.history["loss"]


def test_training_lowers_the_loss(trained):
    _, _, losses = trained
    assert losses[1] < losses[0]


def test_episodes_hold_the_elements_as_they_are(trained):
    data, model, _ = trained
    episodes = Episodes.for_model(model, data, support_size=2, batch_size=3)
    assert episodes.event_shape == data.event_shape == model.event_shape
    episode = episodes.episode(tf.constant(0))
    support = episode["support"]["class"]
    assert support.shape == [3, 2, *data.event_shape]
    stored = data.images.astype(np.float32)
    for element in [*episode["query"], *support[0]]:
        assert (stored == element.numpy()).reshape(len(stored), -1).all(1).any()


def test_every_method_takes_elements_of_any_shape(trained):
    data, model, _ = trained
    shape = data.event_shape
    elements = data.images.reshape(NUM_GROUPS, GROUP_SIZE, *shape)
    support, query = elements[:4, :3], elements[:4, 3]  # of their own type
    assert model.sample(support, seed=0).shape == [4, *shape]
    assert model.sample(support[0], seed=0).shape == shape
    assert model.sample_prior(2, seed=0).shape == [2, *shape]
    assert model.reconstruct(support, query, seed=0).shape == [4, *shape]
    assert model.log_likelihood(support, query, seed=0).shape == [4]
    assert model.predict(query, verbose=0)["class"].shape == (4, 2)
    tasks = np.broadcast_to(support[None], (4, 4, 3, *shape))
    scores = model.classify(tasks, query, seed=0)
    alone = model.log_likelihood(support, query, seed=0)
    # Other samples of c and z; the seed is fixed.
    np.testing.assert_allclose(np.diagonal(scores), alone, rtol=0.2, atol=1.0)


def test_a_model_of_other_elements_is_saved_and_loaded(trained, tmp_path):
    data, model, _ = trained
    vhe_tf.save_model(model, tmp_path / "model.keras")
    loaded = vhe_tf.load_model(tmp_path / "model.keras")
    assert loaded.event_shape == data.event_shape
    support, query = data.images[:3], data.images[3]
    np.testing.assert_allclose(
        loaded.log_likelihood(support, query, seed=0),
        model.log_likelihood(support, query, seed=0),
        rtol=1e-6,
    )


def test_few_shot_accuracy_is_measured(trained):
    data, model, _ = trained
    ready = GroupedImages(data.images.astype(np.float32), data.labels)
    design = vhe_tf.evaluation.TaskDesign(num_ways=3, num_shots=2)
    measured = vhe_tf.evaluation.few_shot_accuracy(
        vhe_tf.evaluation.ClassScorer(model, group="class", num_samples=2),
        ready,
        design=design,
        num_tasks=2,
    )
    assert 0.0 <= measured.mean <= 1.0


def test_pictures_and_augmentation_are_for_images_alone():
    data, model = data_of("vectors"), model_of("vectors")
    for ask in (
        lambda: model.image_shape,
        lambda: data.image_shape,
        lambda: vhe_tf.visualization.conditional_grid(
            model, [data.images[None, :3]], group="class", seed=(0, 0)
        ),
        lambda: Episodes.for_model(
            model, data, augmentation=Augmentation(symmetries=2)
        ),
        lambda: Episodes(
            data,
            batch_size=2,
            support_size=1,
            resamples=True,
            augmentation=Augmentation(image_size=(2, 2), binarization="none"),
        ),
    ):
        with pytest.raises(ValueError, match=r"images.*Received: .*\(3,\)"):
            ask()


@pytest.mark.parametrize(
    "elements", [np.array(3.0), np.array(["a"]), np.array([1.0, np.nan])]
)
def test_elements_are_finite_numbers(elements):
    with pytest.raises(ValueError, match="Received"):
        GroupedImages(elements, {"class": np.zeros(elements.size, int)})


def test_a_forgotten_channel_axis_is_named():
    model = model_of("vectors")
    model.compile()
    with pytest.raises(ValueError, match=r"images\[\.\.\., None\].*\(8, 8\)"):
        model.fit(np.zeros([12, 8, 8]), np.arange(12) // 6)


def test_the_config_of_a_file_of_before_has_an_event_shape():
    model = model_of("vectors")
    config = model.get_config()
    config["image_shape"] = config.pop("event_shape")
    assert VHE.from_config(config).event_shape == (3,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dense_likelihood_survives_a_round_trip(kind):
    family, shape, _ = KINDS[kind]
    layer = layers.DenseLikelihood(shape, family, units=(4,), exclude=["other"])
    z = tf.random.stateless_normal([2, 3, 5], (0, 1))
    assert_survives_round_trip(layer, a=z, other=z)
    density = layer(a=z, other=z)
    assert density.batch_shape == [2, 3]
    assert density.event_shape == shape


def test_an_unknown_family_is_rejected():
    with pytest.raises(ValueError, match="Received: family='cauchy'"):
        layers.DenseLikelihood((), "cauchy")
