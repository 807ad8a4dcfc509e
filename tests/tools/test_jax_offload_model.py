"""Sampling and scoring where there is JAX and no TensorFlow."""

import importlib
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

import vhe_tf
from tests.conftest import IMAGE_SHAPE
from tests.conftest import tiny_pixel_cnn_vhe
from tests.processes import ROOT
from tools.jax_offload import export_model
from tools.jax_offload import lowering
from vhe_tf.data import GroupedImages

WHY = "needs JAX, which the package does not: pip install jax flatbuffers"


@pytest.fixture
def model():
    return tiny_pixel_cnn_vhe()


def arguments(rows=3):
    rng = np.random.default_rng(0)
    support = rng.random((rows, 2, *IMAGE_SHAPE)) < 0.3
    query = rng.random((rows, *IMAGE_SHAPE)) < 0.3
    seeds = rng.integers(0, 100, (rows, 2))
    return [
        tf.constant(each, dtype)
        for each, dtype in (
            (support, tf.float32),
            (query, tf.float32),
            (seeds, tf.int32),
        )
    ]


def called(function, model, *given, weights=None):
    """Calls a function of weights in a graph of its own."""
    if weights is None:
        weights = lowering.vector_of(model)
    return tf.function(function, autograph=False)(tf.constant(weights), *given)


def test_weights_that_are_arguments_sample_as_variables_do(model):
    support, _, seeds = arguments()
    sample = lowering.sampler_of(model)
    wanted = model.sample({"character": support}, seed=seeds)
    # No graph may keep tensors of another one.
    for _ in range(2):
        found = called(sample, model, support, seeds)
        np.testing.assert_array_equal(found, wanted)
    weights = lowering.vector_of(model)
    changed = called(sample, model, support, seeds, weights=0.3 * weights)
    assert not np.array_equal(changed, wanted)
    lowering.assign_vector(model, 0.3 * weights)
    np.testing.assert_array_equal(
        changed, model.sample({"character": support}, seed=seeds)
    )


def test_weights_that_are_arguments_score_as_variables_do(model):
    support, query, seeds = arguments()
    score = lowering.scorer_of(model, 4)
    found = called(score, model, support, query, seeds)
    wanted = model.log_likelihood(
        {"character": support}, query, seed=seeds, num_samples=4
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_jax_samples_and_scores_as_tensorflow_does(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("jax", reason=WHY)
    model = tiny_pixel_cnn_vhe(image_shape=(28, 28, 1))
    images = np.random.default_rng(0).random((40, 28, 28, 1)) < 0.3
    data = GroupedImages(
        images.astype(np.float32), {"character": np.arange(40) // 5}
    )
    # The programs take no weights of a fitted prior.
    export_model.export(
        vhe_tf.fit_prior(model, data, num_steps=1),
        tmp_path,
        platforms=["cpu"],
        rows=[1, 3],
        num_samples=2,
    )
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "jax_offload"))
    run_model = importlib.import_module("run_model")
    monkeypatch.setattr(run_model, "_SECONDS", 0.0)
    run_model.main([str(tmp_path)])
    programs = json.loads((tmp_path / "run_model.json").read_text("utf-8"))
    found = programs["programs"]
    assert [(each["program"], each["rows"]) for each in found] == [
        ("sample", 1),
        ("sample", 3),
        ("score", 1),
        ("score", 3),
    ]
    for each in found:
        if each["program"] == "sample":
            assert each["share of equal images"] == 1.0
        else:
            assert each["largest difference in nats"] < 1e-3
        assert each["rows per second"] > 0.0
    assert "share of equal images 1.0" in capsys.readouterr().out


def test_models_of_other_images_are_not_written():
    with pytest.raises(ValueError, match=r"\(28, 28, 1\)"):
        export_model._check(tiny_pixel_cnn_vhe())


def test_a_folder_without_programs_for_this_device_says_so(
    tmp_path, monkeypatch
):
    pytest.importorskip("jax", reason=WHY)
    np.savez(tmp_path / "calls.npz")
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "jax_offload"))
    sys.modules.pop("run_model", None)
    run_model = importlib.import_module("run_model")
    with pytest.raises(SystemExit, match="no program for cpu"):
        run_model.main([str(tmp_path)])
