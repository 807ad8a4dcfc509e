import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from vhe_tf import callbacks
from vhe_tf import evaluation
from vhe_tf import optimizers
from vhe_tf.data import GroupedImages
from vhe_tf.evaluation import classification
from vhe_tf.evaluation.measurement import Measurement

STEPS_PER_EPOCH = 3
SETTINGS = {
    "learning_rate": 0.01,
    "objective": "vhe",
    "epochs": 2,
    "jit": False,
    "split": None,
}


def data(sizes=(6, 6, 6, 6), image_size=8):
    """Random binary images, those of a class alike."""
    rng = np.random.default_rng(0)
    images = [
        (rng.random((size, image_size, image_size, 1)) < 0.3)
        ^ (rng.random((1, image_size, image_size, 1)) < 0.5)
        for size in sizes
    ]
    ids = 3 + 2 * np.arange(len(sizes))
    return GroupedImages(
        np.concatenate(images).astype(np.float32),
        {"character": np.repeat(ids, sizes)},
    )


def episodes(num_batches=STEPS_PER_EPOCH):
    batches = [tiny_episode(seed=(7, i)) for i in range(num_batches)]
    return tf.data.Dataset.from_tensor_slices(
        tf.nest.map_structure(lambda *values: tf.stack(values), *batches)
    )


def compiled_vhe(*, use_ema=True, learning_rate=0.01, run_eagerly=True):
    keras.utils.set_random_seed(0)
    model = tiny_vhe()
    model.compile(
        keras.optimizers.Adam(
            learning_rate,
            use_ema=use_ema,
            ema_momentum=0.9 if use_ema else None,
        ),
        # A few steps take less time than to trace one.
        run_eagerly=run_eagerly,
    )
    return model


def train(model, callbacks, *, epochs=2, **kwargs):
    return model.fit(
        episodes().repeat(),
        epochs=epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
        validation_data=episodes(2),
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        **kwargs,
    )


def accuracy_callback(**kwargs):
    settings = {"num_ways": 3, "shots": (1,), "num_tasks": 2}
    return callbacks.FewShotAccuracy(
        data(), group="character", **{**settings, **kwargs}
    )


def preview(**kwargs):
    settings = {"num_groups": 3, "num_shots": 2, "num_queries": 2}
    return callbacks.preview_batch(
        data(), group="character", **{**settings, **kwargs}
    )


def read_scalars(folder):
    """Returns the scalars of a run by part and tag: step and value of each."""
    return {
        f"{part}/{tag}": [(step, float(value)) for step, value in points]
        for part in ("train", "validation")
        for tag, points in read(folder / part).items()
    }


def read(folder):
    """Returns the events in a folder by tag: step and value of each."""
    accumulator = event_accumulator.EventAccumulator(
        str(folder), size_guidance={event_accumulator.TENSORS: 0}
    ).Reload()
    return {
        tag: [
            (event.step, tf.make_ndarray(event.tensor_proto))
            for event in accumulator.Tensors(tag)
        ]
        for tag in accumulator.Tags()["tensors"]
    }


class Watcher(keras.callbacks.Callback):
    """Keeps the logs and the weights at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.logs, self.weights = [], []

    def on_epoch_end(self, epoch, logs=None):
        del epoch
        self.logs.append(dict(logs))
        self.weights.append(self.model.get_weights())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs with every callback: its events and its logs."""
    folder = tmp_path_factory.mktemp("tensorboard")
    before, after = Watcher(), Watcher()
    model = compiled_vhe(run_eagerly=False)
    history = train(
        model,
        [
            before,
            accuracy_callback(shots=(1, 2)),
            callbacks.Scalars(folder, SETTINGS, name="mine"),
            callbacks.ImageGrids(folder / "pictures", preview().grids, every=2),
            after,
        ],
    )
    return {
        "scalars": read_scalars(folder),
        "pictures": read(folder / "pictures"),
        "folder": folder,
        "history": history.history,
        "before": before,
        "after": after,
    }


# A whole run ------------------------------------------------------------------


def test_every_metric_has_its_tag_at_the_steps_of_the_optimizer(run):
    metrics = [
        "loss",
        "elbo",
        "log_likelihood",
        "kl_character",
        "kl_character_scaled",
        "group_size_character",
        "kl_element",
    ]
    points = range(1, 2 * STEPS_PER_EPOCH + 1)  # at most 20 per epoch
    ends = [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert {
        tag: [step for step, _ in found]
        for tag, found in run["scalars"].items()
    } == {
        # By the same tag, so that a card of TensorBoard shows both.
        **{f"train/episodes/{name}": [*points] for name in metrics},
        **{f"validation/episodes/{name}": ends for name in metrics},
        "train/optimizer/learning_rate": [*points],
        "validation/few_shot/accuracy_3way_1shot": ends,
        "validation/few_shot/accuracy_3way_2shot": ends,
    }
    assert set(run["pictures"]) == {
        "conditional",
        "reconstruction",
        "unconditional",
    }
    assert set(read(run["folder"])) == {
        "_hparams_/session_start_info",
        "_hparams_/experiment",
    }


def test_what_is_written_are_the_logs(run):
    for tag, name in [
        ("validation/episodes/elbo", "val_elbo"),
        (
            "validation/episodes/kl_character_scaled",
            "val_kl_character_scaled",
        ),
        ("validation/few_shot/accuracy_3way_2shot", "accuracy_3way_2shot"),
    ]:
        written = [value for _, value in run["scalars"][tag]]
        np.testing.assert_allclose(
            written, run["history"][name], rtol=1e-6, err_msg=tag
        )
    for _, rate in run["scalars"]["train/optimizer/learning_rate"]:
        np.testing.assert_allclose(rate, 0.01, rtol=1e-6)


def test_points_within_an_epoch_average_to_its_mean(run):
    for name in ("elbo", "kl_character"):
        points = [v for _, v in run["scalars"][f"train/episodes/{name}"]]
        np.testing.assert_allclose(
            np.reshape(points, [2, STEPS_PER_EPOCH]).mean(axis=1),
            run["history"][name],
            rtol=1e-4,
        )
        assert len(set(points)) == len(points)


def points_of_an_epoch(folder, values, *, steps, epoch=0):
    """Returns the points (step, value) of an epoch with these values."""
    callback = callbacks.Scalars(folder)
    callback.set_model(compiled_vhe(use_ema=False))
    callback.set_params({"steps": steps})
    callback.on_train_begin()
    callback.on_epoch_begin(epoch)
    for batch in range(len(values)):
        callback.on_train_batch_end(batch, {"elbo": values[: batch + 1].mean()})
    callback.on_epoch_end(epoch, {"elbo": values.mean()})
    return read_scalars(folder)["train/episodes/elbo"]


def test_a_point_is_the_mean_of_the_steps_since_the_one_before(tmp_path):
    values = np.arange(50.0) ** 2
    points = points_of_an_epoch(tmp_path, values, steps=50, epoch=1)
    ends = [step - 50 for step, _ in points]
    assert len(ends) == 20
    assert ends[-1] == 50
    for first, last, (_, value) in zip([0, *ends], ends, points, strict=False):
        np.testing.assert_allclose(value, values[first:last].mean(), rtol=1e-4)


def test_the_last_point_of_a_stopped_epoch_is_of_its_steps(tmp_path):
    values = np.arange(13.0) ** 2
    *_, (_, value) = points_of_an_epoch(tmp_path, values, steps=40)
    np.testing.assert_allclose(value, values[-1], rtol=1e-4)


def test_every_tag_has_a_description(run):
    for part in ("train", "validation"):
        events = event_accumulator.EventAccumulator(
            str(run["folder"] / part)
        ).Reload()
        for tag in events.Tags()["tensors"]:
            assert events.SummaryMetadata(tag).summary_description, tag


def test_pictures_are_written_each_few_epochs(run):
    shapes = {
        # 3 groups; supports of 1 and 2 images, each beside 5 samples; 2
        # queries, 2 means.
        "conditional": (30, 130 + 3 * 8),
        "reconstruction": (30, 40 + 8),
        "unconditional": (100, 100),
    }
    for tag, shape in shapes.items():
        [(step, value)] = run["pictures"][tag]
        assert step == 2 * STEPS_PER_EPOCH
        _, _, png = value
        with Image.open(io.BytesIO(png)) as image:
            assert image.width == 2 * shape[1]
            assert image.height > 2 * shape[0]  # headings


def test_a_picture_shows_the_support_as_ink_on_paper(run):
    [(_, (_, _, png))] = run["pictures"]["conditional"]
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image)[-2 * 30 :: 2, ::2]  # below the headings
    np.testing.assert_array_equal(
        pixels[:8, :8], 255 * (1 - preview().support[0, 0, ..., 0])
    )


def test_settings_are_shown_as_hyperparameters(run):
    [path] = run["folder"].glob("events.*")
    contents = [
        plugin_data_pb2.HParamsPluginData.FromString(
            value.metadata.plugin_data.content
        )
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    ]
    named = [i.name for c in contents for i in c.experiment.hparam_infos]
    assert named == [*SETTINGS]
    [session] = [
        c.session_start_info
        for c in contents
        if c.HasField("session_start_info")
    ]
    assert session.group_name == "mine"
    shown = session.hparams
    assert shown["learning_rate"].number_value == 0.01
    assert shown["epochs"].number_value == 2
    assert shown["objective"].string_value == "vhe"
    assert shown["split"].string_value == "None"
    assert shown["jit"].bool_value is False
    assert set(shown) == set(SETTINGS)


def test_measuring_leaves_the_weights_as_they_were(run):
    pairs = zip(run["before"].weights, run["after"].weights, strict=True)
    for before, after in pairs:
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


def test_measuring_does_not_change_the_course_of_training():
    watcher = Watcher()
    measured = Watcher()
    # Both from equal initial weights.
    train(compiled_vhe(), [watcher])
    train(compiled_vhe(), [accuracy_callback(), measured])
    for one, other in zip(
        watcher.weights[-1], measured.weights[-1], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_pixel_cnn_is_measured_and_pictured(tmp_path):
    model = tiny_pixel_cnn_vhe()
    model.compile(
        keras.optimizers.Adam(0.001, use_ema=True, ema_momentum=0.9),
        run_eagerly=True,
    )
    before, after = Watcher(), Watcher()
    history = train(
        model,
        [
            before,
            accuracy_callback(num_samples=2),
            callbacks.Likelihoods(
                data(), group="character", shots=(1,), num_groups=2,
                num_queries=2, num_samples=2,
            ),
            callbacks.Scalars(tmp_path, SETTINGS),
            callbacks.ImageGrids(
                tmp_path / "pictures", preview(num_groups=2).grids
            ),
            after,
        ],
        epochs=1,
    ).history  # fmt: skip
    assert 0.0 <= history["accuracy_3way_1shot"][0] <= 1.0
    assert np.isfinite(history["joint_nll"][0])
    assert 0.0 < history["conditional_nll_1shot"][0] < 64 * 5.0
    scalars = read_scalars(tmp_path)
    for tag in ("train/episodes/kl_pose", "validation/episodes/kl_character"):
        assert np.isfinite(scalars[tag][0][1])
    [(_, (width, _, _))] = read(tmp_path / "pictures")["reconstruction"]
    assert int(width) == 2 * (4 * 10 + 8)
    for one, other in zip(before.weights[0], after.weights[0], strict=True):
        np.testing.assert_array_equal(one, other)


# Few-shot accuracy ------------------------------------------------------------


def test_accuracies_are_in_the_logs_of_their_epochs():
    watcher = Watcher()
    train(compiled_vhe(), [accuracy_callback(every=2), watcher], epochs=3)
    name = "accuracy_3way_1shot"
    assert [name in logs for logs in watcher.logs] == [False, True, False]
    assert 0.0 <= watcher.logs[1][name] <= 1.0


@pytest.mark.parametrize(
    ("sizes", "ways", "shots"),
    [((6, 3, 4), 3, (1, 2)), ((6, 1, 4), 3, ()), ((9, 9), 2, (1, 8))],
)
def test_small_data_have_smaller_tasks(sizes, ways, shots):
    watcher = Watcher()
    few = {"group": "character", "shots": (1, 50)}
    train(
        compiled_vhe(),
        [
            callbacks.FewShotAccuracy(data(sizes), num_tasks=1, **few),
            callbacks.Likelihoods(
                data(sizes), num_samples=2, num_queries=1, **few
            ),
            watcher,
        ],
        epochs=1,
    )
    names = [name for name in watcher.logs[0] if "shot" in name]
    assert names == [
        *(f"accuracy_{ways}way_{num_shots}shot" for num_shots in shots),
        *(f"conditional_nll_{num_shots}shot" for num_shots in shots),
    ]


def test_accuracy_by_a_coarser_grouping_is_on_spread_tasks(monkeypatch):
    settings = []

    def spy(scorer, data, *, design, **kwargs):
        settings.append((scorer.group, design))
        return accuracy(
            scorer, data, design=design, **{**kwargs, "num_tasks": 1}
        )

    accuracy = classification.few_shot_accuracy

    monkeypatch.setattr(classification, "few_shot_accuracy", spy)
    images = data()
    drawers = np.tile([0, 0, 0, 1, 1, 2], 4)  # one of the three draws the query
    callback = callbacks.FewShotAccuracy(
        GroupedImages(images.images, {**images.labels, "drawer": drawers}),
        group="character",
        num_ways=2,
        shots=(1, 5),
        spread="drawer",
    )
    callback.set_model(compiled_vhe())
    logs = {}
    callback.on_epoch_end(0, logs)
    assert list(logs) == [
        "accuracy_2way_1shot_by_character",
        "accuracy_2way_2shot_by_character",
    ]
    assert [design.num_shots for _, design in settings] == [1, 2]
    for group, design in settings:
        assert group == "character"
        assert design.spread == "drawer"


def test_accuracy_is_that_of_the_averaged_weights(monkeypatch):
    used = []

    def spy(scorer, data, **kwargs):
        used.append(scorer.model.get_weights())
        return Measurement("accuracy", 0.5, ways=3, shots=1)

    monkeypatch.setattr(classification, "few_shot_accuracy", spy)
    watcher = Watcher()
    model = compiled_vhe()
    train(model, [accuracy_callback(), watcher], epochs=1)
    averages = model.optimizer._model_variables_moving_average
    for lent, average, raw in zip(
        used[0], averages, watcher.weights[0], strict=True
    ):
        np.testing.assert_array_equal(lent, average)
        assert np.any(lent != raw)


def test_weights_come_back_when_an_evaluation_fails(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(classification, "few_shot_accuracy", fail)
    watcher = Watcher()
    model = compiled_vhe()
    with pytest.raises(RuntimeError, match="no memory"):
        train(model, [watcher, accuracy_callback()])
    for one, other in zip(watcher.weights[0], model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_likelihoods_are_in_the_logs_of_their_epochs():
    watcher = Watcher()
    callback = callbacks.Likelihoods(
        data(), group="character", shots=(1, 2), num_groups=2, num_queries=3,
        num_samples=4, every=2,
    )  # fmt: skip
    model = compiled_vhe()
    train(model, [callback, watcher], epochs=2)
    names = ["joint_nll", "conditional_nll_1shot", "conditional_nll_2shot"]
    for name in names:
        assert name not in watcher.logs[0]
        assert 0.0 < watcher.logs[1][name] < 64 * 5.0  # nats of 8x8 pixels
    assert 1.0 <= watcher.logs[1]["joint_effective_sample_size"] <= 4.0
    with optimizers.ema_weights(model):
        scorer = evaluation.JointScorer(model, group="character")
        joint = evaluation.joint_nll(
            scorer, data(), num_samples=4, num_groups=2
        )
    assert watcher.logs[1]["joint_nll"] == joint.mean


def test_the_same_tasks_and_draws_are_used_each_time():
    callback, watcher = accuracy_callback(num_tasks=5), Watcher()
    train(compiled_vhe(learning_rate=0.0), [callback, watcher])
    first, second = watcher.logs
    assert first["accuracy_3way_1shot"] == second["accuracy_3way_1shot"]


def test_a_callback_measures_the_model_that_it_is_used_with(monkeypatch):
    models = []

    def spy(scorer, data, **kwargs):
        models.append(scorer.model)
        return Measurement("accuracy", 0.5, ways=3, shots=1)

    monkeypatch.setattr(classification, "few_shot_accuracy", spy)
    callback = accuracy_callback()
    first, second = compiled_vhe(), compiled_vhe()
    for model in (first, second):
        train(model, [callback], epochs=1)
    assert models[0] is first
    assert models[1] is second


# Scalars ----------------------------------------------------------------------


def test_tags_keep_the_names_of_metrics(tmp_path):
    callback = callbacks.Scalars(tmp_path, {})
    callback.set_model(compiled_vhe(use_ema=False))
    callback.set_params({"steps": 3})
    callback.on_train_begin()
    callback.on_epoch_begin(1)
    tags = {
        "elbo": "train/episodes/elbo",
        "val_elbo": "validation/episodes/elbo",
        "kl_interval_scaled": "train/episodes/kl_interval_scaled",
        "val_kl_interval_scaled": "validation/episodes/kl_interval_scaled",
        "accuracy_20way_1shot": "validation/few_shot/accuracy_20way_1shot",
        "joint_nll": "validation/few_shot/joint_nll",
        "conditional_nll_5shot": "validation/few_shot/conditional_nll_5shot",
        "of_another_callback": "train/episodes/of_another_callback",
    }
    values = {name: float(index) for index, name in enumerate(tags)}
    callback.on_epoch_end(1, values)
    written = read_scalars(tmp_path)
    for name, tag in tags.items():
        assert written[tag] == [(6, values[name])], name


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_metrics_are_written_if_the_length_of_an_epoch_is_unknown(tmp_path):
    model = compiled_vhe()
    unknown = episodes().filter(lambda episode: True)
    model.fit(unknown, verbose=0, callbacks=[callbacks.Scalars(tmp_path)])
    [(step, _)] = read_scalars(tmp_path)["train/episodes/elbo"]
    assert step == STEPS_PER_EPOCH


def test_the_rate_of_a_schedule_is_that_of_its_step(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 6, 0.0)
    train(
        compiled_vhe(learning_rate=schedule), [callbacks.Scalars(tmp_path, {})]
    )
    rates = dict(read_scalars(tmp_path)["train/optimizer/learning_rate"])
    np.testing.assert_allclose(
        [rates[step] for step in range(1, 7)],
        0.1 * (1 - np.arange(1, 7) / 6),
        atol=1e-8,
    )


def test_steps_go_on_after_a_resume(tmp_path):
    model = compiled_vhe()
    train(model, [callbacks.Scalars(tmp_path, {})], epochs=1)
    train(model, [callbacks.Scalars(tmp_path, {})], epochs=2, initial_epoch=1)
    steps = [s for s, _ in read_scalars(tmp_path)["train/episodes/elbo"]]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_events_of_an_epoch_are_on_disk_at_its_end(tmp_path):
    class Reader(keras.callbacks.Callback):
        seen = ()

        def on_epoch_end(self, epoch, logs=None):
            found = read_scalars(tmp_path)["train/episodes/elbo"]
            self.seen += (len(found),)

    reader = Reader()
    train(compiled_vhe(), [callbacks.Scalars(tmp_path, {}), reader])
    assert reader.seen == (STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH)


def test_other_callbacks_cannot_silence_the_events(tmp_path):
    # `keras.callbacks.TensorBoard(update_freq=2)` leaves `record_if` false.
    train(
        compiled_vhe(),
        [
            keras.callbacks.TensorBoard(tmp_path / "keras", update_freq=2),
            callbacks.Scalars(tmp_path / "ours", {}),
            callbacks.ImageGrids(tmp_path / "pictures", preview().grids),
        ],
    )
    scalars = read_scalars(tmp_path / "ours")
    assert len(scalars["validation/episodes/elbo"]) == 2
    assert len(read(tmp_path / "pictures")["conditional"]) == 2


def test_any_pictures_are_written_of_the_averaged_weights(tmp_path):
    drawn = []

    def draw(model):
        drawn.append(model.get_weights())
        return {"transfer": np.zeros((4, 6, 1), np.float32)}

    model = compiled_vhe()
    callback = callbacks.ImageGrids(tmp_path, draw, ink=False)
    train(model, [callback], epochs=1)
    [(step, (width, height, _))] = read(tmp_path)["transfer"]
    assert (step, int(width), int(height)) == (STEPS_PER_EPOCH, 12, 8)
    averages = model.optimizer._model_variables_moving_average
    for lent, average in zip(drawn[0], averages, strict=True):
        np.testing.assert_array_equal(lent, average)


# Preview batches --------------------------------------------------------------


def test_rows_of_a_preview_are_distinct_images_of_one_group():
    source = data()
    chosen = callbacks.preview_batch(
        source, group="character", num_groups=3, num_shots=2, num_queries=4
    )
    assert chosen.support.shape == (3, 2, 8, 8, 1)
    assert chosen.query.shape == (3, 4, 8, 8, 1)
    group_of = {
        image.tobytes(): int(group)
        for image, group in zip(
            source.images, source.labels["character"], strict=True
        )
    }
    rows = np.concatenate([chosen.support, chosen.query], axis=1)
    groups = [{group_of[image.tobytes()] for image in row} for row in rows]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 3
    assert all(len({i.tobytes() for i in row}) == 6 for row in rows)


def test_the_seed_chooses_the_preview():
    def support(seed):
        return preview(seed=seed).support

    np.testing.assert_array_equal(support(1), support(1))
    assert np.any(support(1) != support(2))


def test_there_are_no_more_rows_than_large_groups():
    chosen = callbacks.preview_batch(
        data((6, 3, 6)), group="character", num_shots=2, num_queries=4
    )
    assert len(chosen.support) == 2


def test_images_of_no_known_group_are_not_in_a_preview():
    source = data((6, 6))
    labels = np.concatenate([source.labels["character"], np.full(20, -1)])
    images = np.concatenate([source.images, np.ones((20, 8, 8, 1), np.float32)])
    chosen = callbacks.preview_batch(
        GroupedImages(images, {"character": labels}),
        group="character",
        num_shots=5,
        num_queries=8,
    )
    # As many as the largest of the known groups has.
    assert chosen.support.shape[:2] == (2, 5)
    assert chosen.query.shape[:2] == (2, 1)
    assert np.all(chosen.support.mean(axis=(2, 3, 4)) < 1.0)


def test_groups_too_small_for_the_picture_give_a_smaller_one():
    small = data(sizes=(6, 3, 6))
    chosen = callbacks.preview_batch(small, group="character")
    assert chosen.support.shape[:2] == (2, 5)
    assert chosen.query.shape[:2] == (2, 1)


def test_groups_of_one_image_make_no_picture():
    with pytest.raises(ValueError, match=r"with 2 images.*Received: 1"):
        callbacks.preview_batch(data(sizes=(1, 1)), group="character")


def test_pictures_of_the_same_preview_repeat():
    model = tiny_vhe()
    first, again = (preview().grids(model, num_samples=2) for _ in range(2))
    assert set(first) == {"conditional", "reconstruction", "unconditional"}
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    other = preview().grids(model, num_samples=2, seed=1)
    assert all(np.any(first[name] != other[name]) for name in first)
