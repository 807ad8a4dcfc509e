import csv
import dataclasses
import importlib
import json
import re
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import vhe_tf
from tests.conftest import IMAGE_SHAPE
from tests.conftest import assert_equal_to_rounding
from tests.conftest import tiny_episode
from tests.conftest import tiny_pixel_cnn_vhe
from tests.experiments.conftest import keys_of
from tests.processes import ROOT
from tests.processes import output_of
from tools import learning_curves
from vhe_tf import optimizers
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data import augmentation
from vhe_tf.experiments import evaluate
from vhe_tf.experiments.run import Record

FOLDER = ROOT / "tools" / "jax_offload"
WHY = "needs JAX, which the package does not: pip install jax flatbuffers"

EPOCHS, STEPS = 3, 4


@pytest.fixture
def module(monkeypatch):
    """Imports a module of the folder by its name."""
    pytest.importorskip("jax", reason=WHY)
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


# Weight files ----------------------------------------------------------------


@pytest.fixture
def weight_files(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("weight_files")


def test_weights_are_split_into_files_that_may_travel(
    weight_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(weight_files, "_MAX_BYTES", 1000)
    vector = np.random.default_rng(0).normal(size=777).astype(np.float32)
    weight_files.write(tmp_path, "state", vector, step=7, run="x")
    assert len(list(tmp_path.iterdir())) == 4
    found, scalars = weight_files.read(tmp_path, "state")
    np.testing.assert_array_equal(found, vector)
    assert scalars == {"step": 7, "run": "x"}


@pytest.mark.parametrize("corruption", ["missing", "older"])
def test_weight_files_of_two_steps_are_refused(
    weight_files, tmp_path, monkeypatch, corruption
):
    monkeypatch.setattr(weight_files, "_MAX_BYTES", 1000)
    weight_files.write(tmp_path, "state", np.zeros(777), step=7)
    last = tmp_path / "state-03.npz"
    kept = last.read_bytes()
    weight_files.write(tmp_path, "state", np.zeros(777), step=8)
    if corruption == "older":
        last.write_bytes(kept)
    else:
        last.unlink()
    with pytest.raises(ValueError, match="do not belong together"):
        weight_files.read(tmp_path, "state")


def test_links_in_the_way_are_not_followed(weight_files, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".state-00.npz.partial").symlink_to(victim)
    weight_files.write(tmp_path, "state", np.zeros(7))
    assert victim.read_text() == "mine"
    with weight_files.beside(tmp_path / "a.json") as partial:
        assert "a.json" not in partial.name  # nobody can foresee it
        assert partial.read_bytes() == b""
    assert (tmp_path / "a.json").exists()


def test_a_write_that_fails_leaves_nothing(weight_files, tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "_MAX_BYTES", 1000)
    weight_files.write(tmp_path, "state", np.zeros(777), step=7)
    before = sorted(tmp_path.iterdir())
    savez, written = np.savez, iter([True, True, False])

    def fail(*args, **arrays):
        if not next(written):
            raise OSError("disk full")
        savez(*args, **arrays)

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        weight_files.write(tmp_path, "state", np.zeros(777), step=8)
    assert sorted(tmp_path.iterdir()) == before
    assert weight_files.read(tmp_path, "state")[1] == {"step": 7}


def test_missing_weights_are_named(weight_files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"state-00\.npz"):
        weight_files.read(tmp_path, "state")


# Batches ---------------------------------------------------------------------

# Groups of 5 and 3 images, not stored in order, with ids that have gaps.
MIXED = np.array([42, 7, 42, 42, 7, 42, 7, 42])
# Where each of these images is once they are sorted by group.
PLACE = np.argsort(np.argsort(MIXED, kind="stable"))


def numbered_sampler(**options):
    """Episodes of images of one pixel, which holds their number."""
    numbers = PLACE.astype(np.float32) / 2**16
    data = GroupedImages(numbers[:, None, None, None], {"character": MIXED})
    defaults = {
        "batch_size": 4096,
        "support_size": 2,
        "resamples": True,
        "augmentation": Augmentation(binarization="none"),
    }
    return Episodes(data, **(defaults | options))


def in_jax(module, sampler):
    """Returns images and recipe of a sampler."""
    batches, lowering = module("batches"), module("lowering")
    arrays = lowering.images_of(sampler, "character")
    images = batches.Images(*(arrays.get(n) for n in batches.Images._fields))
    recipe = batches.Recipe(
        batch_size=sampler.batch_size,
        **{
            name: getattr(sampler.augmentation, name)
            for name in ("symmetries", "affine_copies", "binarization")
        },
        image_size=sampler.image_shape[:2],
        resamples=sampler.resamples,
    )
    return batches, images, recipe


def batch_of(module, sampler, *, key=0):
    import jax

    batches, images, recipe = in_jax(module, sampler)
    return batches.episodes(
        images,
        jax.random.key(key),
        recipe=recipe,
        support_size=sampler.max_support,
    )


def numbers_of(episode):
    """Returns the numbers of queries `[B]` and of supports `[B, N]`."""

    def of(images):
        return np.rint(2**16 * np.asarray(images)[..., 0, 0, 0]).astype(int)

    return of(episode["query"]), of(episode["support"])


def assert_uniform(codes, num_codes):
    counts = np.bincount(codes, minlength=num_codes)
    assert len(counts) == num_codes
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("how", ["resamples", "query_in_support"])
def test_supports_are_uniform_draws_from_the_group_of_the_query(module, how):
    sampler = numbered_sampler(resamples=how != "query_in_support")
    episode = batch_of(module, sampler)
    query, support = numbers_of(episode)
    labels = np.sort(MIXED)
    assert_uniform(query, 8)
    np.testing.assert_array_equal(
        labels[support], labels[query][:, None] + [0, 0]
    )
    np.testing.assert_array_equal(
        episode["group_size"], np.where(labels[query] == 42, 5, 3)
    )
    assert (support[:, 0] != support[:, 1]).all()
    for group, size, start in ((7, 3, 0), (42, 5, 3)):
        rows = labels[query] == group
        x, d = query[rows] - start, support[rows] - start
        if how == "resamples":  # ordered pairs of others, whatever x is
            pair = d[:, 0] * (size - 1) + d[:, 1] - (d[:, 1] > d[:, 0])
            assert_uniform(x * size * (size - 1) + pair, size**2 * (size - 1))
        else:
            np.testing.assert_array_equal(d[:, 0], x)
            other = d[:, 1] - (d[:, 1] > x)
            assert_uniform(x * (size - 1) + other, size * (size - 1))


@pytest.mark.parametrize("resamples", [True, False])
def test_episodes_are_distributed_as_those_of_the_sampler(module, resamples):
    sampler = numbered_sampler(resamples=resamples, support_size=3)

    def codes(episode):
        query, support = numbers_of(episode)
        return ((query * 8 + support[:, 0]) * 8 + support[:, 1]) * 8 + (
            support[:, 2]
        )

    theirs = sampler.episode(tf.constant(0))
    theirs["support"] = theirs["support"]["character"]
    ours = codes(batch_of(module, sampler))
    theirs = codes(theirs)
    counts = np.stack(
        [np.bincount(values, minlength=8**4) for values in (ours, theirs)]
    )
    # Pooled by size of group and overlap, to have enough in each cell.
    seen = counts.sum(axis=0) >= 10
    pooled = np.concatenate(
        [counts[:, seen], counts[:, ~seen].sum(axis=1, keepdims=True)], axis=1
    )
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    assert scipy.stats.chi2_contingency(pooled).pvalue > 1e-4


def test_a_support_of_the_query_alone_is_possible(module):
    sampler = numbered_sampler(resamples=False, support_size=1)
    query, support = numbers_of(batch_of(module, sampler))
    np.testing.assert_array_equal(support[:, 0], query)


def test_a_step_is_a_function_of_its_key(module):
    sampler = numbered_sampler(batch_size=64)
    first, again, other = (
        batch_of(module, sampler, key=key) for key in (1, 1, 2)
    )
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert (np.asarray(values) != np.asarray(other[name])).any(), name


def drawings(size, *, binary):
    """Random smooth images, three a class."""
    generator = np.random.default_rng(0)
    values = generator.random((12, size, size, 1))
    for axis in (1, 2):
        values = (values + np.roll(values, 1, axis)) / 2
    pixels = np.where(values > 0.55, 255, 0) if binary else 255 * values
    labels = {"character": np.repeat([5, 2, 9, 3], 3)}
    return GroupedImages(pixels.astype(np.uint8), labels)


def every_element(module, sampler):
    """Draws every element in JAX, and in TensorFlow by its public parts."""
    import jax

    batches, images, recipe = in_jax(module, sampler)
    elements = np.arange(sampler.num_elements)
    ours = batches.render(images, elements, jax.random.key(0), recipe=recipe)
    order = np.argsort(sampler.data.labels["character"], kind="stable")
    image, index, copy = map(np.asarray, batches.decompose(elements, recipe))
    height, width, _ = sampler.data.image_shape
    table = augmentation.affine_table(
        len(sampler.data),
        recipe.affine_copies,
        stored_size=(height, width),
        image_size=recipe.image_size,
        seed=sampler.seed,
    )
    pixels = augmentation.transform(
        tf.constant(sampler.data.images[order[image]] / np.float32(255)),
        tf.constant(table[order[image], copy]),
        image_size=recipe.image_size,
    )
    if recipe.symmetries == 2:
        pixels = augmentation.mirrored(pixels, tf.constant(index == 1))
    elif recipe.symmetries > 2:
        pixels = augmentation.symmetry(pixels, tf.constant(index))
    return np.asarray(ours), pixels.numpy()


@pytest.mark.parametrize("symmetries", [1, 2, 4, 8])
def test_bilinear_copies_are_those_of_the_sampler(module, symmetries):
    sampler = Episodes(
        drawings(28, binary=False),
        batch_size=4,
        support_size=2,
        resamples=True,
        augmentation=Augmentation(
            symmetries=symmetries, affine_copies=5, binarization="none"
        ),
        seed=3,
    )
    ours, theirs = every_element(module, sampler)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert theirs.std(axis=0).min() > 0.01  # they are not all alike


def test_subsampled_copies_are_those_of_the_sampler(module):
    sampler = Episodes(
        drawings(105, binary=True),
        batch_size=4,
        support_size=2,
        resamples=True,
        augmentation=Augmentation(
            symmetries=8,
            affine_copies=5,
            binarization="threshold",
            image_size=(28, 28),
        ),
        seed=3,
    )
    ours, theirs = every_element(module, sampler)
    # Rounding may bring a pixel to the other side of the threshold.
    assert np.mean(ours != theirs) < 1e-3


def test_pixels_are_drawn_anew_where_that_is_the_recipe(module):
    import jax

    levels = np.array([0, 51, 204, 255], np.uint8).reshape(1, 2, 2, 1)
    data = GroupedImages(
        np.repeat(levels, 2, 0), {"character": np.zeros(2, int)}
    )
    sampler = Episodes(
        data,
        batch_size=4,
        support_size=2,
        resamples=True,
        augmentation=Augmentation(binarization="dynamic"),
    )
    batches, images, recipe = in_jax(module, sampler)
    drawn = batches.render(
        images, np.zeros(4000, int), jax.random.key(0), recipe=recipe
    )
    assert set(np.unique(drawn)) == {0.0, 1.0}
    # Standard deviations of a mean of 4,000 samples are 0.0063.
    np.testing.assert_allclose(
        np.mean(drawn, axis=0).ravel(), [0, 0.2, 0.8, 1], atol=0.03
    )
    assert drawn[:, 0, 0].max() == 0
    assert drawn[:, 1, 1].min() == 1


def test_images_without_a_label_are_refused(module):
    data = GroupedImages(
        np.zeros((3, 2, 2, 1), np.float32), {"character": [0, 0, -1]}
    )
    sampler = Episodes(data, batch_size=1, support_size=1, resamples=True)
    with pytest.raises(ValueError, match="1 without"):
        module("lowering").images_of(sampler, "character")


@pytest.mark.parametrize("option", [{"repeat_edges": True}, {"num_levels": 8}])
def test_copies_of_photographs_are_refused(option, module):
    sampler = numbered_sampler(
        augmentation=Augmentation(affine_copies=2, **option), batch_size=1
    )
    with pytest.raises(ValueError, match="Only drawings can be made there"):
        module("lowering").images_of(sampler, "character")


def test_too_many_elements_are_refused(module):
    sampler = numbered_sampler(
        augmentation=Augmentation(affine_copies=2), batch_size=1
    )
    sampler.augmentation = dataclasses.replace(
        sampler.augmentation, affine_copies=2**29
    )
    with pytest.raises(ValueError, match=str(2**32)):
        module("lowering").images_of(sampler, "character")


# Steps -----------------------------------------------------------------------


def compiled_model():
    model = tiny_pixel_cnn_vhe()
    model.compile(
        optimizers.AveragingAdam(
            keras.optimizers.schedules.CosineDecay(
                0.0, decay_steps=7, warmup_target=0.01, warmup_steps=3
            ),
            global_clipnorm=2.0,
            use_ema=True,
            ema_momentum=0.3,  # reached, and passed, within ten steps
        ),
        kl_warmup_steps={"character": 5},
        jit_compile=True,
    )
    return model


def schedule_of(adam):
    return adam.Schedule(
        epochs=1,
        steps_per_epoch=10,
        learning_rate=0.01,
        warmup_steps=3,
        clip_norm=2.0,
        ema=0.3,
    )


def start_of(adam, weights):
    zeros = np.zeros_like(weights)
    return adam.State(weights, weights, zeros, zeros)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_optimizer_is_that_of_keras(module, size):
    adam = module("adam")
    generator = np.random.default_rng(0)
    weights = generator.normal(size=50).astype(np.float32)
    variable = keras.Variable(weights)
    optimizer = compiled_model().optimizer
    optimizer = type(optimizer).from_config(optimizer.get_config())
    state = start_of(adam, weights)
    for step in range(10):
        gradient = (size * generator.normal(size=50)).astype(np.float32)
        optimizer.apply([tf.constant(gradient)], [variable])
        state = adam.updated(
            state, gradient, np.int32(step), schedule=schedule_of(adam)
        )
    assert not np.allclose(state.weights, weights, atol=1e-3)
    assert_equal_to_rounding(state.weights, variable.numpy())
    assert_equal_to_rounding(
        state.average, optimizer._model_variables_moving_average[0].numpy()
    )


def test_a_gradient_that_is_not_finite_spoils_the_weights(module):
    adam = module("adam")
    state = start_of(adam, np.ones(3, np.float32))
    gradient = np.array([1.0, np.inf, 1.0], np.float32)
    state = adam.updated(
        state, gradient, np.int32(1), schedule=schedule_of(adam)
    )
    assert np.isnan(state.weights).all()


def lowered_step(module, model, *, batch_size):
    """Returns the lowered step of a model, run by JAX."""
    import jax

    lowering = module("lowering")
    episode = plain(tiny_episode(batch_size=batch_size))
    arguments = (lowering.vector_of(model), episode, np.int32(0))
    shapes = jax.tree.map(
        lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), arguments
    )
    file = lowering.lowered(lowering.step_of(model), shapes, platform="cpu")
    return jax.jit(jax.export.deserialize(bytearray(file)).call)


def plain(episode):
    """Returns an episode without the name of the grouping, of NumPy."""
    return {
        "query": episode["query"].numpy(),
        "support": episode["support"]["character"].numpy(),
        "group_size": episode["group_size"]["character"].numpy(),
        "seed": episode["seed"].numpy(),
    }


def test_steps_in_jax_are_the_training_steps_of_keras(module):
    adam, lowering = module("adam"), module("lowering")
    import jax.export  # noqa: F401

    model = compiled_model()
    step = lowered_step(module, model, batch_size=4)
    state = start_of(adam, lowering.vector_of(model))
    train_step = tf.function(model.train_step, jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    names = lowering.metric_names(model)
    for index in range(4):
        episode = tiny_episode(batch_size=4, seed=(index, 7))
        model.reset_metrics()
        logs = train_step(episode)
        measured, gradient = step(
            state.weights, plain(episode), np.int32(index)
        )
        np.testing.assert_allclose(
            measured, [logs[name] for name in names], rtol=1e-4, atol=1e-4
        )
        state = adam.updated(
            state, gradient, np.int32(index), schedule=schedule_of(adam)
        )
    after = lowering.vector_of(model)
    assert np.abs(after - lowering.vector_of(compiled_model())).max() > 1e-2
    np.testing.assert_allclose(state.weights, after, rtol=1e-3, atol=1e-4)


def test_weights_go_back_into_a_model(module):
    lowering = module("lowering")
    model, other = tiny_pixel_cnn_vhe(), tiny_pixel_cnn_vhe(seed=1)
    lowering.assign_vector(other, lowering.vector_of(model))
    for mine, theirs in zip(
        model.get_weights(), other.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="Received: 3"):
        lowering.assign_vector(model, np.zeros(3, np.float32))


# Whole runs ------------------------------------------------------------------

FLAGS = [
    "--dataset=glyphs",
    "--architecture=pixel_cnn",
    "--run_dir=none",
    "--support_size=1-2",
    "--affine_copies=2",
    "--batch_size=4",
    f"--epochs={EPOCHS}",
    f"--steps_per_epoch={STEPS}",
    "--warmup_steps=2",
    "--ema=0.9",
    "--num_validation_groups=4",
    "--seed=3",
]


def export(out, *options):
    launch = (
        "import sys; from tests.conftest import tiny_sizes; "
        "from tools.jax_offload import export_run\n"
        "with tiny_sizes(): export_run.main(['export_run', *sys.argv[1:]])"
    )
    return output_of(
        [sys.executable, "-c", launch, *FLAGS, *options, f"--out={out}"]
    )


def train_command(exported, out, *options):
    """The command of a machine on which TensorFlow cannot be imported."""
    launch = (
        "import runpy, sys; not_there = ['tensorflow', 'keras', 'vhe_tf']; "
        "sys.modules |= dict.fromkeys(not_there); "
        f"sys.path.insert(0, {str(FOLDER)!r}); sys.argv[0] = 'train.py'; "
        "runpy.run_module('train', run_name='__main__')"
    )
    return [
        sys.executable, "-c", launch, str(exported), str(out), "--chunk=2",
        *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Compiled programs are kept from one process to the next."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("jax", reason=WHY)
    folder = tmp_path_factory.mktemp("exported")
    done = export(folder, "--platforms=cpu", "--precisions=float32,bf16")
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def whole_run(exported, environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "whole"
    done = output_of(train_command(exported, folder), **environment)
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def vectors_of(folder, weight_files):
    return {name: weight_files.read(folder, name) for name in ("state", "best")}


def test_a_run_leaves_what_it_promises(whole_run, weight_files):
    folder, text = whole_run
    num_steps = EPOCHS * STEPS
    assert f"done: {num_steps} of {num_steps} steps" in text
    assert sorted(path.name for path in folder.iterdir()) == [
        "best-00.npz",
        "metrics.csv",
        "progress.json",
        "state-00.npz",
    ]
    rows = rows_of(folder)
    assert [int(row["step"]) for row in rows] == list(range(2, 13, 2))
    for row in rows:
        bound = float(row["log_likelihood"]) - (
            float(row["kl_character_scaled"]) + float(row["kl_pose"])
        )
        np.testing.assert_allclose(float(row["elbo"]), bound, rtol=1e-4)
        assert bool(row["val_elbo"]) == (int(row["step"]) % STEPS == 0)
    progress = json.loads((folder / "progress.json").read_text())
    assert (progress["ended"], progress["step"]) == ("done", num_steps)
    held_out = {int(r["step"]): float(r["val_elbo"] or "-inf") for r in rows}
    assert progress["best_elbo"] == max(held_out.values())
    assert held_out[progress["best_step"]] == progress["best_elbo"]
    state, _ = weight_files.read(folder, "state")
    best, _ = weight_files.read(folder, "best")
    assert len(state) == 4 * len(best)


@pytest.mark.parametrize(
    "num_writes", [2, 3], ids=["after_its_state", "after_its_best"]
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    exported, whole_run, environment, weight_files, tmp_path, num_writes
):
    whole, _ = whole_run
    first, second = tmp_path / "first", tmp_path / "second"
    kill = f"""
import itertools, os, signal, sys
sys.path.insert(0, {str(FOLDER)!r})
import weight_files
write, count = weight_files.write, itertools.count(1)
def killing(*arguments, **scalars):
    write(*arguments, **scalars)
    if next(count) == {num_writes}:
        os.kill(os.getpid(), signal.SIGKILL)
weight_files.write = killing
"""
    python, c, launch, *arguments = train_command(exported, first)
    done = output_of([python, c, kill + launch, *arguments], **environment)
    assert done.returncode == -signal.SIGKILL, done.stdout
    _, scalars = weight_files.read(first, "state")
    assert scalars["step"] == STEPS
    done = output_of(
        train_command(exported, second, f"--resume={first}"), **environment
    )
    assert done.returncode == 0, done.stdout
    for name, (vector, scalars) in vectors_of(whole, weight_files).items():
        resumed, of_resumed = weight_files.read(second, name)
        np.testing.assert_array_equal(resumed, vector)
        assert of_resumed == scalars
    for row, expected in zip(rows_of(second), rows_of(whole), strict=True):
        del row["seconds"], expected["seconds"]
        assert row == expected


def test_a_run_stops_when_its_time_is_up(
    exported, environment, weight_files, tmp_path
):
    done = output_of(
        train_command(exported, tmp_path, "--seconds=0"), **environment
    )
    assert done.returncode == 0, done.stdout
    assert "time: 0 of 12 steps" in done.stdout
    _, scalars = weight_files.read(tmp_path, "state")
    assert scalars["step"] == 0


def test_the_number_of_steps_may_be_another(exported, environment, tmp_path):
    options = ("--epochs=1", "--steps_per_epoch=3")
    done = output_of(
        train_command(exported, tmp_path, *options, "--precision=bf16"),
        **environment,
    )
    assert done.returncode == 0, done.stdout
    assert [int(row["step"]) for row in rows_of(tmp_path)] == [2, 3]


def test_the_number_of_steps_may_follow_from_the_time(
    exported, environment, weight_files, tmp_path
):
    options = ("--training_seconds=0.1", "--seconds=0", "--steps_per_epoch=2")
    done = output_of(train_command(exported, tmp_path, *options), **environment)
    assert done.returncode == 0, done.stdout
    _, scalars = weight_files.read(tmp_path, "state")
    speed = float(re.search(r"([\d.]+) steps per second", done.stdout)[1])
    expected = max(1, int(0.1 * speed / 2))
    assert abs(scalars["epochs"] - expected) <= 1
    assert f"of {2 * scalars['epochs']} steps" in done.stdout


def test_a_run_of_another_export_is_not_resumed(
    exported, whole_run, environment, tmp_path
):
    other = tmp_path / "export"
    shutil.copytree(exported, other)
    settings = json.loads((other / "export.json").read_text())
    settings["fingerprint"] = "0"
    (other / "export.json").write_text(json.dumps(settings))
    done = output_of(
        train_command(other, tmp_path / "out", f"--resume={whole_run[0]}"),
        **environment,
    )
    assert done.returncode == 1
    assert "error: " in done.stdout
    assert "another export" in done.stdout


def test_a_resumed_run_keeps_its_number_of_steps(
    exported, whole_run, environment, tmp_path
):
    folder, _ = whole_run
    done = output_of(
        train_command(exported, tmp_path, f"--resume={folder}", "--epochs=9"),
        **environment,
    )
    assert done.returncode == 2
    assert "keeps its number of steps" in done.stdout


def test_the_best_weights_outlive_a_spoiled_loss(
    exported, whole_run, environment, weight_files, tmp_path
):
    whole, _ = whole_run
    # Go on from an early step at a learning rate that ends in NaN.
    spoiled, first, second = (tmp_path / n for n in ("export", "a", "b"))
    shutil.copytree(exported, spoiled)
    done = output_of(
        train_command(
            spoiled, first, "--epochs=1", f"--steps_per_epoch={STEPS}"
        ),
        **environment,
    )
    assert done.returncode == 0, done.stdout
    state, scalars = weight_files.read(first, "state")
    weight_files.write(first, "state", state, **(scalars | {"epochs": 3}))
    settings = json.loads((spoiled / "export.json").read_text())
    settings["flags"]["learning_rate"] = 1e30
    (spoiled / "export.json").write_text(json.dumps(settings))
    done = output_of(
        train_command(spoiled, second, f"--resume={first}"), **environment
    )
    assert done.returncode == 1, done.stdout
    assert "not finite after step" in done.stdout
    for name, (vector, _) in vectors_of(second, weight_files).items():
        assert np.isfinite(vector).all(), name
    np.testing.assert_array_equal(
        weight_files.read(second, "best")[0],
        weight_files.read(first, "best")[0],
    )
    assert len(weight_files.read(whole, "best")[0]) * 4 == len(state)


def test_another_machines_wrong_elbo_is_noticed(
    exported, environment, tmp_path
):
    shutil.copytree(exported, tmp_path / "export")
    path = tmp_path / "export" / "export.json"
    settings = json.loads(path.read_text())
    settings["check"]["elbo"] *= 1.01
    path.write_text(json.dumps(settings))
    done = output_of(
        train_command(tmp_path / "export", tmp_path / "out"), **environment
    )
    assert done.returncode == 1
    assert "not the same ELBO" in done.stdout


@pytest.mark.parametrize("size", [1, 2])
def test_the_fixed_batch_is_of_a_size_that_is_lowered(size, tmp_path):
    pytest.importorskip("jax", reason=WHY)
    done = export(tmp_path, f"--support_sizes={size}", "--platforms=cpu")
    assert done.returncode == 0, done.stdout
    settings = json.loads((tmp_path / "export.json").read_text())
    assert settings["support_sizes"] == [size]
    assert settings["check"]["support_size"] == size


def test_a_step_that_was_not_lowered_is_named(exported, environment, tmp_path):
    done = output_of(
        train_command(exported, tmp_path, "--precision=tf32"), **environment
    )
    assert done.returncode == 1
    assert "step_1.tf32.cpu is not there" in done.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--precision=mixed_bfloat16", "chosen when training"),
        ("--precisions=float64", "Received: float64"),
        ("--support_sizes=1,9", r"Received: \[1, 9\]"),
    ],
)
def test_settings_that_would_be_another_run_are_refused(
    option, message, tmp_path
):
    pytest.importorskip("jax", reason=WHY)
    done = export(tmp_path, option)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "error: " in done.stdout
    assert re.search(message, done.stdout), done.stdout


def load(exported, trained, run_dir):
    return output_of(
        [
            *(sys.executable, "-m", "tools.jax_offload.load_run"),
            f"--exported={exported}",
            f"--trained={trained}",
            f"--run_dir={run_dir}",
        ],
        TF_CPP_MIN_LOG_LEVEL="3",
    )


@pytest.fixture(scope="module")
def loaded(exported, whole_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "loaded"
    done = load(exported, whole_run[0], folder)
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def test_what_was_trained_becomes_a_run(
    loaded, exported, whole_run, weight_files
):
    folder, text = loaded
    for name in ("best", "last"):
        assert f"{name}.keras: ELBO of the fixed batch" in text
    assert text.count("by JAX there") == text.count("by JAX here") == 2
    best, _ = weight_files.read(whole_run[0], "best")
    model = vhe_tf.load_model(folder / "best.keras")
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    np.testing.assert_array_equal(weights, best)
    assert model.image_shape == (28, 28, IMAGE_SHAPE[2])
    experiment = Record.read(folder / "config.json").experiment
    settings = json.loads((exported / "export.json").read_text())
    assert experiment.to_json() == settings["experiment"]
    assert (experiment.epochs, experiment.seed) == (EPOCHS, 3)
    assert rows_of(folder) == rows_of(whole_run[0])


def test_what_was_trained_has_learning_curves(exported, whole_run, tmp_path):
    """Means over the steps of an epoch, the same however often it is loaded."""
    trained = shutil.copytree(whole_run[0], tmp_path / "trained")
    rows = rows_of(trained)
    for row in rows[::2]:  # as if these were of one step, the others of three
        row["step"] = str(int(row["step"]) - 1)
    with (trained / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for _ in range(2):
        done = load(exported, trained, tmp_path / "run")
        assert done.returncode == 0, done.stdout
    scalars = learning_curves.read_scalars(tmp_path / "run")
    for part, name, written in (
        ("train", "elbo", rows),
        ("validation", "val_elbo", rows[1::2]),  # the other rows have none
    ):
        steps, values = scalars[f"{part}/episodes/elbo"]
        assert steps == [int(row["step"]) for row in written]
        expected = [float(row[name]) for row in written]
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        folder = tmp_path / "run" / "tensorboard" / part
        assert len(list(folder.glob("events.*"))) == 1


def test_what_was_trained_is_evaluated_as_a_run(loaded, tmp_path):
    folder, _ = loaded
    out = tmp_path / "evaluation.json"
    evaluate.evaluate(
        evaluate.Measuring(
            model=f"{folder}/best.keras",
            num_ways=3,
            shots=(1,),
            num_tasks=2,
            num_samples=2,
            joint_num_samples=2,
            num_groups=2,
            num_kl_batches=2,
            within="",
            out=str(out),
        )
    )
    keys = keys_of(out)
    assert "accuracy.3way_1shot" in keys
    assert "training_kl.character" in keys


def test_weights_of_another_elbo_are_refused(
    exported, whole_run, weight_files, tmp_path
):
    trained = tmp_path / "trained"
    shutil.copytree(whole_run[0], trained)
    best, scalars = weight_files.read(trained, "best")
    scalars["check"] *= 1.01
    weight_files.write(trained, "best", best, **scalars)
    done = load(exported, trained, tmp_path / "run")
    assert done.returncode == 1
    assert "must agree to one in 1000" in done.stdout
    assert not (tmp_path / "run" / "best.keras").exists()


def test_weights_of_another_export_are_refused(exported, whole_run, tmp_path):
    other = tmp_path / "export"
    shutil.copytree(exported, other)
    settings = json.loads((other / "export.json").read_text())
    settings["fingerprint"] = "0"
    (other / "export.json").write_text(json.dumps(settings))
    done = load(other, whole_run[0], tmp_path / "run")
    assert done.returncode == 1
    assert "another export" in done.stdout
