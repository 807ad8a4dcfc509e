"""`fit` of a VHE: what it takes, and what it answers."""

import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_run
from tests.conftest import tiny_vhe
from vhe_tf import callbacks
from vhe_tf import errors
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.models import _checks


@pytest.fixture(scope="module")
def episodes():
    return tiny_run.sampler()


@pytest.fixture(scope="module")
def model():
    return tiny_run.compiled_model()


def fit(model, *data, **options):
    settings = {"steps_per_epoch": 2, "verbose": 0}
    return model.fit(*data, **{**settings, **options}).history


# What a Keras user types ------------------------------------------------------


def test_an_epoch_has_a_natural_length(model):
    images = np.stack([np.eye(8, dtype=np.float32)[..., None]] * 12)
    data = GroupedImages(images, {"character": np.arange(12) // 6})
    steps = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(batch)
    )
    few = Episodes.for_model(model, data, batch_size=4)
    fit(model, few, steps_per_epoch=None, callbacks=[count])
    assert steps == [0, 1, 2]


def test_images_and_labels_train(model):
    images = np.stack([np.eye(8, dtype=np.float32)[..., None]] * 12)
    labels = np.arange(12) // 6
    history = fit(
        model,
        images,
        labels,
        batch_size=4,
        validation_data=(images, labels),
        validation_steps=1,
    )
    assert {"elbo", "val_elbo"} <= set(history)
    assert isinstance(history["elbo"][0], float)
    by_name = fit(model, images, {"character": labels}, batch_size=4)
    assert "elbo" in by_name


def test_grouped_images_train_and_are_evaluated(model, episodes):
    assert "elbo" in fit(model, episodes.data)
    values = model.evaluate(episodes.data, steps=1, return_dict=True, verbose=0)
    assert "elbo" in values


def test_callbacks_of_keras_see_the_validation_elbo(model, episodes, tmp_path):
    path = tmp_path / "best.weights.h5"
    history = fit(
        model,
        episodes,
        epochs=4,
        validation_data=episodes,
        validation_steps=1,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                path,
                monitor="val_elbo",
                mode="max",
                save_best_only=True,
                save_weights_only=True,
            ),
            keras.callbacks.EarlyStopping(
                monitor="val_elbo", mode="max", min_delta=1e9, patience=1
            ),
            keras.callbacks.TensorBoard(tmp_path / "tensorboard"),
        ],
    )
    assert len(history["val_elbo"]) == 2
    assert path.exists()
    assert list(tmp_path.glob("tensorboard/validation/events.*"))


def test_each_validation_sees_the_same_episodes(episodes):
    model = tiny_run.compiled_model()
    model.optimizer.learning_rate = 0.0
    history = fit(
        model,
        episodes,
        epochs=3,
        validation_data=episodes,
        validation_steps=2,
    )
    assert len(set(history["val_elbo"])) == 1


def test_validation_uses_the_ema_weights(episodes):
    model = tiny_run.compiled_model()
    seen = fit(model, episodes, validation_data=episodes, validation_steps=2)[
        "val_elbo"
    ][0]
    # `fit` has assigned the averages, as Keras does.
    again = model.evaluate(episodes, steps=2, return_dict=True, verbose=0)
    np.testing.assert_allclose(again["elbo"], seen, rtol=1e-6)


def test_the_progress_bar_of_keras_works(model, episodes, capsys):
    fit(model, episodes, verbose=1)
    assert "2/2" in capsys.readouterr().out


def test_predict_embeds_each_image(model, episodes):
    images = episodes.data.images[:6]
    embedding = model.predict(images, batch_size=4, verbose=0)["character"]
    expected = model.encode(images[:, np.newaxis])["character"].mean()
    np.testing.assert_allclose(embedding, expected, rtol=1e-5, atol=1e-6)


# What is answered -------------------------------------------------------------


@pytest.mark.parametrize("resamples", [False, True])
def test_episodes_of_another_objective_are_rejected(
    resamples, episodes, monkeypatch
):
    model = tiny_vhe(objective="rescale" if resamples else "vhe")
    model.compile()
    data = Episodes(
        episodes.data, batch_size=4, support_size=2, resamples=resamples
    )
    monkeypatch.setattr(model, "train_step", None)  # nothing is traced
    with pytest.raises(
        ValueError, match=f"needs episodes with resamples={not resamples}"
    ):
        fit(model, data)
    made = data.dataset()
    shorter = made.take(3).map(lambda episode: episode).repeat()
    for dataset in (made, shorter, made.concatenate(shorter)):
        with pytest.raises(ValueError, match="needs episodes with resamples"):
            fit(model, dataset)
        if resamples:  # Rescale is validated by such episodes
            continue
        with pytest.raises(ValueError, match="True in validation"):
            fit(model, episodes.data, validation_data=dataset)


@pytest.mark.parametrize("objective", ["rescale", "neural_statistician"])
def test_models_are_validated_by_a_bound(objective, episodes, monkeypatch):
    model = tiny_vhe(objective=objective)
    model.compile()
    seen = []
    monkeypatch.setattr(
        model, "_distributed", lambda data: seen.append(data) or data.dataset()
    )
    monkeypatch.setattr(keras.Model, "evaluate", lambda *_, **__: {})
    model.evaluate(episodes.data)
    model._validation_data(episodes.data, 4, {})
    wanted = objective != "neural_statistician"
    assert [data.resamples for data in seen] == [wanted, wanted]
    training = Episodes.for_model(model, episodes.data, support_size=2)
    if objective == "rescale":
        assert not training.resamples
        with pytest.raises(ValueError, match="resamples=True in validation"):
            model.evaluate(training)


def test_episodes_of_other_images_are_rejected(model):
    images = np.zeros((12, 9, 8, 1), np.float32)
    with pytest.raises(ValueError, match=r"event_shape=\(8, 8, 1\).*\(9, 8, 1"):
        fit(model, images, np.arange(12) // 6)


def test_images_without_labels_are_rejected(model):
    with pytest.raises(ValueError, match="pass their labels"):
        fit(model, np.zeros((12, 8, 8, 1), np.float32))


def test_labels_of_several_latents_have_names(episodes):
    model = tiny_vhe("factorial")
    model.compile()
    with pytest.raises(ValueError, match=r"\['character', 'style'\].*name"):
        fit(model, episodes.data.images, np.arange(40))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_weight", {0: 2.0}),
        ("sample_weight", np.ones(12)),
        ("validation_split", 0.25),
    ],
)
def test_options_without_a_meaning_are_rejected(name, value, model):
    images = np.zeros((12, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match=f"Received: {name}="):
        fit(model, images, np.arange(12) // 6, **{name: value})


def test_validation_data_have_no_weights(model, episodes):
    images = episodes.data.images[:12]
    labels = np.arange(12) // 6
    with pytest.raises(ValueError, match="Received: 3 values"):
        fit(
            model,
            images,
            labels,
            validation_data=(images, labels, np.ones(12)),
        )


def test_what_is_no_data_is_named(model):
    with pytest.raises(ValueError, match="x of type NoneType"):
        fit(model)


def test_a_batch_size_beside_that_of_episodes_is_rejected(model, episodes):
    with pytest.raises(ValueError, match="batch_size=7"):
        fit(model, episodes, batch_size=7)


def test_exact_resume_needs_episodes(model, episodes, tmp_path):
    with pytest.raises(ValueError, match="ExactResume resumes runs on `Epis"):
        fit(
            model,
            episodes.dataset(),
            callbacks=[callbacks.ExactResume(tmp_path)],
        )


def test_exact_resume_needs_single_steps(episodes, tmp_path):
    model = tiny_vhe()
    model.compile(steps_per_execution=2)
    data = Episodes.for_model(model, episodes.data, batch_size=4)
    with pytest.raises(ValueError, match="steps_per_execution=2"):
        fit(model, data, callbacks=[callbacks.ExactResume(tmp_path)])


def test_checkpoints_of_another_model_are_rejected(episodes, tmp_path):
    resume = callbacks.ExactResume(tmp_path)
    fit(tiny_run.compiled_model(), episodes, callbacks=[resume])
    model = tiny_vhe()
    model.compile()
    data = Episodes.for_model(model, episodes.data, batch_size=4)
    with pytest.raises(errors.RunError, match="of another model"):
        fit(model, data, callbacks=[callbacks.ExactResume(tmp_path)])


def test_exact_resume_needs_a_vhe(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="model of type Sequential"):
        model.fit(
            np.zeros((8, 2)),
            np.zeros(8),
            verbose=0,
            callbacks=[callbacks.ExactResume(tmp_path)],
        )


def test_predict_of_episodes_is_answered(model, episodes):
    with pytest.raises(ValueError, match="`predict` takes images"):
        model.predict(episodes.dataset().take(1), verbose=0)


def test_what_is_no_episode_is_answered(model, episodes):
    images, labels = episodes.data.images, episodes.data.labels["character"]
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    for call in (
        lambda: model(images),
        lambda: model.fit(data, verbose=0),
        lambda: model.train_on_batch(images, labels),
    ):
        with pytest.raises(ValueError, match=r"as arrays.*Received: \w+\."):
            call()
    with pytest.raises(ValueError, match=r"`images\[None\]`. Received: images"):
        model.predict(images[0], verbose=0)


def test_two_of_a_kind_are_rejected(model, episodes, tmp_path):
    twice = [callbacks.ExactResume(tmp_path / name) for name in "ab"]
    with pytest.raises(ValueError, match=r"one ExactResume\. Received: 2"):
        fit(model, episodes, callbacks=twice)


def test_the_best_model_needs_its_metric(model, episodes, tmp_path):
    best = callbacks.BestModel(tmp_path / "best.keras")
    with pytest.raises(ValueError, match=r"lack. Pass `validation_data`"):
        fit(model, episodes, callbacks=[best])


# Groupings --------------------------------------------------------------------


def check_groupings(model, data):
    model.compile()
    _checks.check_episodes(
        model,
        Episodes(data, batch_size=2, support_size=1, resamples=True),
    )


def grouped(**labels):
    images = np.zeros((len(next(iter(labels.values()))), 8, 8, 1), np.float32)
    images[:, 4] = 1.0  # a stroke
    return GroupedImages(images, {k: np.array(v) for k, v in labels.items()})


@pytest.mark.parametrize(
    ("structure", "labels"),
    [
        ("flat", {"character": [0, 0, 7]}),
        ("hierarchical", {"character": [0, 5, 7], "alphabet": [2, 2, 9]}),
        ("factorial", {"character": [0, 0, 7], "style": [1, 2, 2]}),
    ],
)
def test_data_that_are_grouped_as_the_latents_pass(structure, labels):
    check_groupings(tiny_vhe(structure), grouped(**labels))


def test_a_latent_without_its_grouping_is_named():
    data = grouped(character=[0, 0, 7], drawer=[1, 2, 3])
    with pytest.raises(
        ValueError,
        match=r"'alphabet' needs a grouping.*\['character', 'drawer'\]",
    ):
        check_groupings(tiny_vhe("hierarchical"), data)


def test_a_character_in_two_alphabets_is_named():
    data = grouped(character=[5, 5, 7, 7], alphabet=[2, 2, 2, 9])
    with pytest.raises(
        ValueError, match=r"character 7 with images in alphabet 2 and in 9 "
    ):
        check_groupings(tiny_vhe("hierarchical"), data)


@pytest.mark.parametrize("wrong", ["train", "validation"])
def test_a_run_on_data_grouped_otherwise_does_not_begin(wrong, tmp_path):
    alphabets = {"train": [2] * 4, "validation": [2] * 4, wrong: [2, 2, 2, 9]}
    samplers = {
        name: Episodes(
            grouped(character=[5] * 4, alphabet=ids),
            batch_size=2,
            support_size=1,
            resamples=True,
        )
        for name, ids in alphabets.items()
    }
    model = tiny_vhe("hierarchical")
    model.compile()
    with pytest.raises(ValueError, match="character 5 with images in"):
        fit(
            model,
            samplers["train"],
            validation_data=samplers["validation"],
            callbacks=[callbacks.ExactResume(tmp_path / "checkpoints")],
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("devices", "asked", "expected"),
    [
        (["CPU"], None, False),
        (["CPU", "GPU"], None, True),
        (["CPU", "GPU"], False, False),
        (["CPU"], True, True),
    ],
)
def test_xla_compiles_the_step_where_a_gpu_trains_alone(
    devices, asked, expected
):
    found = [types.SimpleNamespace(device_type=kind) for kind in devices]
    model = tiny_vhe("flat")
    with mock.patch.object(
        tf.config, "list_physical_devices", return_value=found
    ):
        model.compile("adam", jit_compile=asked)
    assert model.jit_compile is expected
