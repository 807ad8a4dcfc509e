import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests.conftest import tiny_vhe
from vhe_tf import training
from vhe_tf.data import Augmentation
from vhe_tf.data import EpisodeSampler
from vhe_tf.data import GroupedImages
from vhe_tf.layers import heads
from vhe_tf.layers import inference

EPOCHS = 3
STEPS = 4


@pytest.fixture(scope="module")
def sampler():
    generator = np.random.default_rng(0)
    data = GroupedImages(
        (generator.random((40, 8, 8, 1)) < 0.3).astype(np.float32),
        {"character": np.arange(40) // 10},
    )
    return EpisodeSampler(
        data,
        batch_size=4,
        support_size=(1, 3),
        resamples=True,
        augmentation=Augmentation(affine_copies=2, symmetries=8),
    )


def tiny_model():
    """Makes a model of a class latent of two numbers, quick to trace."""
    keras.utils.set_random_seed(0)
    return vhe_tf.VHE(
        [
            vhe_tf.Latent(
                "character",
                prior=heads.StandardNormal(2),
                posterior=inference.SupportPosterior(
                    keras.layers.Flatten(), latent_size=2, units=3
                ),
            )
        ],
        inference.ImageLikelihood(
            keras.Sequential(
                [keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))]
            ),
            heads.BernoulliImageHead(),
        ),
        image_shape=(8, 8, 1),
    )


def compiled_model(*, use_ema=True):
    model = tiny_model()
    model.compile(
        keras.optimizers.Adam(1e-2, use_ema=use_ema, ema_momentum=0.5)
    )
    return model


def train(folder, sampler, *, model=None, callbacks=(), epochs=EPOCHS):
    model = model or compiled_model()
    run = training.Run(folder, {"seed": 0})
    training.fit(
        model,
        run,
        sampler,
        sampler,
        epochs=epochs,
        steps_per_epoch=STEPS,
        callbacks=callbacks,
        validation_steps=1,
    )
    return run, model


class _Die(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, sampler):
    return train(tmp_path_factory.mktemp("whole"), sampler)


# Inside the first, the second and the last epoch, and at an epoch's last step,
# before its checkpoint.
@pytest.mark.parametrize("step", [2, 6, 8, 11])
def test_a_run_cut_short_ends_with_the_same_weights(
    step, tmp_path, sampler, whole_run
):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, sampler, callbacks=[_Die(step)])
    resumable = compiled_model()
    keras.utils.set_random_seed(99)  # nothing may depend on global chance
    if step > STEPS:  # a checkpoint exists: initial weights do not matter
        resumable.set_weights([w + 1 for w in resumable.get_weights()])
    run, _ = train(tmp_path, sampler, model=resumable)
    expected_run, _ = whole_run
    for name in ("last", "best"):
        weights = vhe_tf.load_model(getattr(run, name)).get_weights()
        expected = vhe_tf.load_model(getattr(expected_run, name)).get_weights()
        for value, wanted in zip(weights, expected, strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_a_finished_run_started_again_changes_nothing(
    tmp_path, sampler, whole_run
):
    _, model = train(tmp_path, sampler)
    again = compiled_model()
    train(tmp_path, sampler, model=again)
    for value, wanted in zip(
        again.get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, wanted)


def test_the_last_model_has_the_averaged_weights(whole_run):
    run, model = whole_run
    averages = model.optimizer._model_variables_moving_average
    saved = vhe_tf.load_model(run.last)
    for value, average in zip(saved.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(value, average)


def test_averaged_weights_are_lent_and_returned():
    model = compiled_model()
    raw = [v.numpy() for v in model.trainable_variables]
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(1)
    for average in model.optimizer._model_variables_moving_average:
        average.assign(tf.ones_like(average))
    lent = []

    def fail_while_lent():
        with training.averaged_weights(model):
            lent.extend(v.numpy() for v in model.trainable_variables)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_while_lent()
    for value in lent:
        np.testing.assert_array_equal(value, np.ones(value.shape))
    for variable, value in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_without_an_average_the_weights_stay(tmp_path, sampler):
    model = compiled_model(use_ema=False)
    run, _ = train(tmp_path, sampler, model=model, epochs=1)
    for value, wanted in zip(
        vhe_tf.load_model(run.last).get_weights(),
        model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(value, wanted)


def _begun(folder, config):
    training.Run(folder, config).begin()
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "checkpoint").touch()


def test_a_run_refuses_the_folder_of_another(tmp_path):
    _begun(tmp_path, {"seed": 3, "size": "small"})
    with pytest.raises(
        ValueError, match=r"another run's checkpoints.*seed: 3 there, 4 here"
    ):
        training.Run(tmp_path, {"seed": 4, "size": "small"})
    training.Run(tmp_path, {"seed": 3, "size": "small"})


def test_a_run_refuses_checkpoints_without_settings(tmp_path):
    _begun(tmp_path, {"seed": 3})
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"without its config\.json"):
        training.Run(tmp_path, {"seed": 3})


def test_settings_that_never_began_a_run_do_not_bind(tmp_path):
    training.Run(tmp_path, {"seed": 3})
    training.Run(tmp_path, {"seed": 4}).begin()
    training.Run(tmp_path, {"seed": 5})  # no checkpoint: nothing to lose


class _Poison(keras.callbacks.Callback):
    """Spoils a weight after a given step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            variable = self.model.trainable_variables[-1]
            variable.assign(tf.fill(variable.shape, np.nan))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, sampler):
    with pytest.raises(
        training.NonFiniteLossError,
        match=r"loss is not finite at step 6; .*loss=nan.* is .*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(5)])
    vhe_tf.load_model(tmp_path / "best.keras")  # still there, still good


def test_weights_spoiled_by_the_last_step_are_not_saved(tmp_path, sampler):
    with pytest.raises(
        training.NonFiniteLossError,
        match=r"The model is not finite at step 8; .* is .*ckpt-4",
    ):
        train(tmp_path, sampler, callbacks=[_Poison(8)])


def test_progress_is_shown(tmp_path, sampler, capsys):
    train(tmp_path, sampler, epochs=1)
    shown = capsys.readouterr()
    assert "epoch 1/1: starting" in shown.err
    assert "epoch 1/1," in shown.out
    for name in ("elbo", "val_elbo", "kl_character", "kl_character_shared"):
        assert f" {name} -" in shown.out or f" {name} " in shown.out


# Groupings --------------------------------------------------------------------


def grouped(**labels):
    images = np.zeros((len(next(iter(labels.values()))), 8, 8, 1), np.float32)
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
    training.check_groupings(tiny_vhe(structure), grouped(**labels))


def test_a_latent_without_its_grouping_is_named():
    data = grouped(character=[0, 0, 7], drawer=[1, 2, 3])
    with pytest.raises(
        ValueError,
        match=r"'alphabet' needs a grouping.*\['character', 'drawer'\]",
    ):
        training.check_groupings(tiny_vhe("hierarchical"), data)


def test_a_character_in_two_alphabets_is_named():
    data = grouped(character=[5, 5, 7, 7], alphabet=[2, 2, 2, 9])
    with pytest.raises(
        ValueError, match=r"character 7 with images in alphabet 2 and in 9 "
    ):
        training.check_groupings(tiny_vhe("hierarchical"), data)


@pytest.mark.parametrize("wrong", ["train", "validation"])
def test_a_run_on_data_grouped_otherwise_does_not_begin(wrong, tmp_path):
    alphabets = {"train": [2] * 4, "validation": [2] * 4, wrong: [2, 2, 2, 9]}
    samplers = {
        name: EpisodeSampler(
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
        training.fit(
            model,
            training.Run(tmp_path, {}),
            **samplers,
            epochs=1,
            steps_per_epoch=1,
        )
    assert not list(tmp_path.iterdir())


# Files ------------------------------------------------------------------------


def test_saving_a_model_is_whole_or_nothing(tmp_path, monkeypatch):
    model = compiled_model()
    path = tmp_path / "best.keras"
    training.save_model(model, path)
    before = path.read_bytes()

    def fail(self, filepath, **kwargs):
        filepath.write_bytes(b"half a model")
        raise OSError("disk full")

    monkeypatch.setattr(vhe_tf.VHE, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        training.save_model(model, path)
    assert path.read_bytes() == before


def test_a_saved_model_has_no_optimizer(tmp_path):
    model = compiled_model()
    training.save_model(model, tmp_path / "best.keras")
    assert not vhe_tf.load_model(tmp_path / "best.keras").compiled


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    training.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        training.write_json(path, {"a": object()})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}


_STYLED = {
    "dataset": "glyphs",
    "split": "vinyals",
    "num_styles": 7,
    "copies": 2,
}
_PLAIN = {"dataset": "glyphs", "split": "vinyals", "images": "grey"}
_PHOTOS = {"dataset": "folder", "skip_unreadable": False}
_DEFAULT = {"dataset": "omniglot", "split": "lake", "images": "binary"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({**_PLAIN, "seed": 3}, {**_PLAIN, "seed": 3}),
        ({**_STYLED, "seed": 3}, {**_STYLED, "seed": 3}),
        (
            {**_PHOTOS, "seed": 3, "split": "lake", "image_size": "48x32"},
            {**_PHOTOS, "seed": 3, "image_size": (48, 32)},
        ),
        (
            {**_PLAIN, "seed": 3, "image_size": "12x10"},
            {**_PLAIN, "seed": 3, "image_size": (12, 10)},
        ),
        ({**_PLAIN, "seed": 3, "image_size": None}, {**_PLAIN, "seed": 3}),
        (None, {**_DEFAULT, "seed": 0}),
    ],
)
def test_the_data_of_a_model_are_those_of_its_run(config, expected, tmp_path):
    if config is not None:
        training.Run(tmp_path, {**config, "epochs": 4}).begin()
    assert training.data_settings(tmp_path / "best.keras") == expected


def test_mistakes_end_with_their_message():
    mistakes = training.mistakes_end_quietly()
    with pytest.raises(SystemExit, match="error: no such thing"), mistakes:
        raise ValueError("no such thing")
