"""Which grouping the images that a person names are of."""

import math
from unittest import mock

import pytest
import tensorflow as tf

import vhe_tf
from tests.conftest import tiny_vhe
from tests.experiments.conftest import commanded
from tests.experiments.conftest import drawings
from vhe_tf.experiments import Experiment
from vhe_tf.experiments.run import Record


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes of images of the shape of the tiny models."""
    root = tmp_path_factory.mktemp("images")
    return drawings(root, num_classes=2, shape=(8, 8))


@pytest.fixture(
    scope="module",
    params=[
        ("hierarchical", None, "character"),
        ("factorial", None, "style"),
        ("factorial", Experiment(), "character"),
        (
            "hierarchical",
            Experiment(dataset="table", groupings=("letter",)),
            "character",
        ),
    ],
    ids=["nested", "crossed", "crossed_run", "other_names"],
)
def saved(request, tmp_path_factory):
    """A model's file, and the latent of the classes that it is trained on."""
    structure, experiment, group = request.param
    path = tmp_path_factory.mktemp("run") / "best.keras"
    vhe_tf.save_model(tiny_vhe(structure), path)
    if experiment:
        Record(experiment, {}).write(path.with_name("config.json"))
    return path, group


def test_new_images_are_of_the_class_not_of_what_contains_it(
    saved, images, tmp_path
):
    path, group = saved
    infer = vhe_tf.VHE.infer
    with mock.patch.object(
        vhe_tf.VHE, "infer", autospec=True, side_effect=infer
    ) as inferred:
        text = commanded(
            "draw",
            images / "class00" / "3.png",
            f"--model={path}",
            f"--out={tmp_path / 'samples.png'}",
            "--num_samples=2",
        )
    [call] = inferred.call_args_list
    assert call.args[1].keys() == {group}
    assert f"samples of the same {group}." in text


def test_images_are_classified_by_class(saved, images):
    path, group = saved

    def classify(model, support, query, **options):
        assert support[group].shape == (1, 1, 14, 8, 8, 1)
        assert support.keys() == {group}
        return tf.fill([len(query), 1], -1.0)

    def novelty(model, support, query, *, log_likelihood, **options):
        assert support[group].shape == (1, 1, 14, 8, 8, 1)
        assert log_likelihood.shape == (1, 1)
        return tf.fill([1], math.log(0.25))

    with (
        mock.patch.object(vhe_tf.VHE, "classify", classify),
        mock.patch.object(vhe_tf.VHE, "novelty", novelty),
    ):
        text = commanded(
            "classify",
            images / "class00" / "3.png",
            f"--model={path}",
            f"--support={images}",
        )
    # Each class alone has odds of 4 to 1 against none, so both have 2 to 1.
    assert text.count(" 33.3%") == 3
    assert "none of these" in text


def test_a_nested_model_classifies(images, tmp_path):
    path = tmp_path / "best.keras"
    vhe_tf.save_model(tiny_vhe("hierarchical"), path)
    text = commanded(
        "classify",
        images / "class00" / "3.png",
        f"--model={path}",
        f"--support={images}",
        "--num_samples=1",
    )
    assert text.count("%") == 3
