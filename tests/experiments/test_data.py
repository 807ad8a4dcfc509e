import dataclasses
import pathlib

import pytest

from vhe_tf.data import datasets
from vhe_tf.experiments import EXPERIMENTS
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run
from vhe_tf.experiments import data
from vhe_tf.experiments.run import record_of
from vhe_tf.models.presets import PRESETS
from vhe_tf.models.presets import model_path

STYLES = Experiment(
    architecture="style", affine_copies=1, num_styles=4, copies=2, seed=5
)


@pytest.mark.parametrize(
    ("experiment", "spec"),
    [
        (
            Experiment(split="vinyals", images="grey", seed=5),
            datasets.Omniglot("vinyals", "grey", 5),
        ),
        (Experiment(dataset="glyphs"), datasets.Glyphs("binary", 0)),
        (
            Experiment(
                dataset="folder", image_size=(20, 16), seed=5, symmetries=1
            ),
            datasets.Folder("binary", (20, 16), ("character",), 256, 5),
        ),
        (
            Experiment(dataset="folder", images="colour", num_levels=8),
            datasets.Folder("colour", (40, 40), ("person",), 8, 0),
        ),
        (
            Experiment(dataset="records", images="colour", seed=5),
            datasets.Records("colour", "person", 256, 5),
        ),
        (
            Experiment(dataset="youtube_faces", group="video", num_levels=8),
            datasets.YouTubeFaces("video", (40, 40), 8, None),
        ),
        (STYLES, datasets.Styles(datasets.Omniglot(seed=5), 4, 2)),
        (
            dataclasses.replace(STYLES, dataset="glyphs", split=None),
            datasets.Styles(datasets.Glyphs(seed=5), 4, 2),
        ),
    ],
)
def test_an_experiment_has_its_data(experiment, spec, monkeypatch):
    loaded = []
    for kind in datasets.DATASETS.values():
        monkeypatch.setattr(
            kind, "load", lambda spec, folder: loaded.append((spec, folder))
        )
    place = None if experiment.dataset == "glyphs" else "here"
    data.load_data(experiment, data_dir=place)
    assert loaded == [(spec, place)]


@pytest.mark.parametrize(
    "option",
    [{"manual_dir": "there"}, {"data_dir": "here"}],
)
def test_options_of_other_data_are_rejected(option):
    with pytest.raises(ValueError, match=r"has no effect.*dataset='glyphs'"):
        data.load_data(Experiment(dataset="glyphs"), **option)


def _model_of(folder, **settings):
    run = Run(folder, Experiment(**settings))
    run.check_classes("0123abcd")
    run.begin()
    return run.best


@pytest.mark.parametrize(
    ("trained", "tested", "is_seen"),
    [
        ({"split": "random1200"}, {"split": "random1200"}, False),
        ({"split": "random1200"}, {"split": "random1200", "seed": 1}, True),
        ({"split": "random1200"}, {"split": "lake"}, True),
        ({"split": "lake"}, {"split": "lake", "seed": 1}, False),
        ({"split": "random1200"}, {"dataset": "glyphs"}, False),
        ({"dataset": "folder"}, {"dataset": "folder", "seed": 1}, True),
    ],
)
def test_models_that_saw_the_test_classes_are_rejected(
    trained, tested, is_seen, tmp_path
):
    model = _model_of(tmp_path, **trained)
    if not is_seen:
        assert data.check_unseen(model, Experiment(**tested)) == Experiment(
            **trained
        )
        return
    with pytest.raises(ValueError, match=r"Received: a run with .*split"):
        data.check_unseen(model, Experiment(**tested))


def test_a_model_without_settings_may_have_seen_anything(tmp_path, capsys):
    assert data.check_unseen(tmp_path / "best.keras", Experiment()) is None
    assert "cannot determine whether" in capsys.readouterr().out


def test_folders_with_other_classes_are_told_of(tmp_path, capsys):
    model = _model_of(tmp_path, dataset="folder")
    folder = Experiment(dataset="folder")
    data.warn_if_classes_changed(model, folder, classes="0123abcd")
    data.warn_if_classes_changed(
        model, Experiment(dataset="records"), classes="x"
    )
    data.warn_if_classes_changed(
        tmp_path / "no" / "best.keras", folder, classes="x"
    )
    assert not capsys.readouterr().out
    data.warn_if_classes_changed(model, folder, classes="4567cdef")
    assert "cannot determine whether" in capsys.readouterr().out


@pytest.mark.parametrize("name", PRESETS)
def test_a_shipped_model_is_that_of_its_experiment(name):
    trained = record_of(model_path(name)).experiment
    # Where XLA compiles a step is the machine's.
    assert dataclasses.replace(trained, jit_compile=None) == EXPERIMENTS[name]


def test_a_path_is_no_shipped_model():
    path = pathlib.Path("runs/quickstart/best.keras")
    assert model_path(path) == path
