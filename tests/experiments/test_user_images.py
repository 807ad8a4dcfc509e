"""Reading the images of a command, and finding the grouping of its model."""

import math
import types
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageDraw

import vhe_tf
from tests.conftest import tiny_vhe
from tests.experiments.conftest import commanded
from tests.experiments.conftest import drawings
from tests.experiments.conftest import failure_of
from vhe_tf.data import read_image_folder
from vhe_tf.data.datasets.styles import pen_styles
from vhe_tf.experiments import Experiment
from vhe_tf.experiments.run import Record
from vhe_tf.experiments.user_images import Reading
from vhe_tf.experiments.user_images import read_command
from vhe_tf.experiments.user_images import read_for
from vhe_tf.models import open_set


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

    with mock.patch.object(vhe_tf.VHE, "classify", classify):
        text = commanded(
            "classify",
            images / "class00" / "3.png",
            f"--model={path}",
            f"--support={images}",
        )
    assert text.count(" 50.0%") == 2
    [_, _, _, last] = text.splitlines()
    assert last == '"none of these" is not calibrated for this model.'


def test_none_of_these_is_measured_with_the_best_class(images, tmp_path):
    path = tmp_path / "best.keras"
    vhe_tf.save_model(tiny_vhe(), path)
    scores, asked = iter([[-1.0, -1.0, -9.0], [-1.0, -2.0, -1.0]]), []

    def classify(model, support, query, **options):
        return tf.constant(next(scores))[:, None]

    def novelty(model, support, query, *, log_likelihood, **options):
        assert support["character"].shape == (len(query), 1, 14, 8, 8, 1)
        asked.append(np.ravel(log_likelihood).tolist())
        # Odds of 4 to 1 against none; of the second class, even ones.
        return tf.fill([len(query)], math.log(0.25 if len(query) > 1 else 1.0))

    with (
        mock.patch.object(vhe_tf.VHE, "classify", classify),
        mock.patch.object(vhe_tf.VHE, "novelty", novelty),
        mock.patch.object(open_set, "is_calibrated", return_value=True),
    ):
        text = commanded(
            "classify",
            *(images / "class00" / f"{i}.png" for i in range(3)),
            f"--model={path}",
            f"--support={images}",
        )
    assert asked == [[-1.0, -1.0], [-1.0]]
    # Each class alone has odds of 4 to 1 against none, so both have 2 to 1.
    lines = [line for line in text.splitlines() if "none of these" in line]
    none = [line.split()[-1] for line in lines]
    assert none == ["33.3%", "33.3%", "66.7%"]
    assert text.count(" 33.3%") >= 4  # and both classes of the first query


def test_a_home_folder_is_expanded(images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(images))
    model = tmp_path / "best.keras"
    vhe_tf.save_model(tiny_vhe(), model)
    argv = ["draw", "~/class00/3.png", f"--model={model}"]
    _, paths = read_command(argv, Reading, usage="Draws.")
    assert paths == [str(images / "class00" / "3.png")]


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
    assert text.count("%") == 2


def _model(channels, num_levels=2):
    return types.SimpleNamespace(
        image_shape=(28, 28, channels), num_levels=num_levels
    )


def _page(colour="black", paper="white"):
    page = Image.new("RGB", (300, 300), paper)
    pen = ImageDraw.Draw(page)
    pen.line([(50, 60), (250, 90), (70, 240), (240, 250)], colour, 12)
    return page


def test_pages_after_the_first_are_warned_of(tmp_path, caplog):
    path = tmp_path / "scan.tiff"
    _page().save(path, save_all=True, append_images=[_page("blue")])
    for channels, levels in ((1, 2), (3, 6), (3, 256)):
        caplog.clear()
        read_for(_model(channels, levels), [path], name="nowhere.keras")
        assert "Read the first frame or page alone of 1 files" in caplog.text
        assert "scan.tiff (2 frames)" in caplog.text


def test_all_broken_images_are_listed(images, tmp_path):
    path = tmp_path / "best.keras"
    vhe_tf.save_model(tiny_vhe("hierarchical"), path)
    support = tmp_path / "support"
    for index in range(2):
        (support / f"class{index}").mkdir(parents=True)
        (support / f"class{index}" / "0.png").write_bytes(b"no image")
    query = tmp_path / "query.png"
    query.write_bytes(b"no image")
    text = failure_of(
        "classify", query, f"--model={path}", f"--support={support}"
    )
    assert "Received: 3 that cannot be read:" in text
    for name in ("query.png", "class0/0.png", "class1/0.png"):
        assert name in text
    text = failure_of("draw", query, query, f"--model={path}")
    assert "query.png" in text


def test_a_blank_image_is_rejected_in_words_of_flags(tmp_path):
    path = tmp_path / "best.keras"
    vhe_tf.save_model(tiny_vhe("hierarchical"), path)
    blank = tmp_path / "blank.png"
    Image.new("L", (8, 8), 255).save(blank)
    text = failure_of("draw", blank, f"--model={path}")
    assert "decide by --invert whether ink is dark" in text
    assert "Received: an image of 8x8 pixels in 255..255" in text


def test_images_are_inverted_as_those_that_a_run_trained_on(tmp_path):
    path = tmp_path / "page.png"
    # A dark stroke and a light one, on grey paper.
    page = _page("black", "grey")
    ImageDraw.Draw(page).line([(60, 20), (240, 30)], "white", 12)
    page.save(path)
    read = {}
    for invert in (True, False):
        Record(Experiment(dataset="folder", invert=invert), {}).write(
            tmp_path / "config.json"
        )
        name = str(tmp_path / "best.keras")
        read[invert] = read_for(_model(1), [path], name=name)
        other = read_for(_model(1), [path], name=name, invert=not invert)
        assert not np.array_equal(read[invert], other)
    assert not np.array_equal(read[True], read[False])
    assert read[True].mean() > read[False].mean() > 0


def _small(size):
    page = Image.new("L", size, "white")
    ImageDraw.Draw(page).line([(60, 30), (110, 40), (70, 90)], "black", 6)
    return page


def _shaded(page):
    light = np.linspace(0.5, 1, page.height)[:, None]
    return Image.fromarray(np.uint8(light * np.asarray(page.convert("L"))))


@pytest.mark.parametrize(
    "page",
    [
        _page(),
        _small((300, 300)),
        _small((400, 120)),
        _shaded(_page()),
        _shaded(_small((300, 300))),
    ],
    ids=["large", "small", "wide", "photograph", "small on a photograph"],
)
def test_a_model_of_own_images_sees_others_as_it_saw_these(page, tmp_path):
    path = tmp_path / "images" / "a" / "0.png"
    path.parent.mkdir(parents=True)
    page.save(path)
    trained = read_image_folder(tmp_path / "images", drawings=True, invert=None)
    Record(Experiment(dataset="folder"), {}).write(tmp_path / "config.json")
    name = str(tmp_path / "best.keras")
    np.testing.assert_array_equal(
        read_for(_model(1), [path], name=name), trained.images >= 128
    )


@pytest.mark.parametrize(
    ("colour", "paper"),
    [("black", "white"), ((220, 30, 30), "white"), ("blue", (255, 235, 90))],
)
@pytest.mark.parametrize("name", ["omniglot_styles_small", "nowhere.keras"])
def test_models_of_styles_see_ink_of_a_pen(name, colour, paper, tmp_path):
    path = tmp_path / "page.png"
    _page(colour, paper).save(path)
    [image] = read_for(_model(3, 6), [path], name=name)
    ink = image.any(axis=2)
    assert 0.04 < ink.mean() < 0.12
    [seen] = np.unique(image[ink], axis=0)
    pens = [tuple(style.ink) for style in pen_styles()]
    red, green, blue = seen = tuple(np.rint(255 * (1 - seen)).astype(int))
    assert seen in pens
    if colour == (220, 30, 30):
        assert red > 150 > max(green, blue)


def test_models_of_photographs_see_photographs(tmp_path):
    path = tmp_path / "page.png"
    page = _page("blue", "yellow")
    page.save(path)
    [image] = read_for(_model(3, 256), [path], name="nowhere.keras")
    wanted = page.resize((28, 28), Image.Resampling.BOX)
    np.testing.assert_allclose(image, np.asarray(wanted) / 255, atol=0.02)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize(
    "preset",
    [
        p.name
        for p in vhe_tf.presets().values()
        if p.installed and "faces" not in p.name
    ],
)
def test_every_preset_draws_on_paper(preset, tmp_path):
    path = tmp_path / "page.png"
    _page().save(path)
    text = commanded(
        "draw",
        path,
        f"--model={preset}",
        f"--out={tmp_path / 'samples.png'}",
        "--num_samples=4",
    )
    assert "4 samples of the same character" in text
    drawn = np.asarray(Image.open(tmp_path / "samples.png").convert("RGB"))
    assert drawn.mean() > 128
    # The ink of a style has one colour; noise has all of them.
    hues = np.unique(drawn[np.ptp(drawn, axis=2) > 0], axis=0)
    assert len(hues) <= (8 if preset == "omniglot_styles_small" else 0)
