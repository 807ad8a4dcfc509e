"""Flags of all commands: what they read, reject and explain."""

import contextlib
import dataclasses
import importlib
import io
import logging
import re
import socket

import numpy as np
import pytest
from absl import flags

import vhe_tf
from vhe_tf.data.polarity import with_ink_high
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import building
from vhe_tf.experiments import cli
from vhe_tf.experiments import data
from vhe_tf.experiments import endings
from vhe_tf.experiments import settings
from vhe_tf.experiments.draw import Draw
from vhe_tf.experiments.evaluate import Measuring
from vhe_tf.experiments.evaluate import _data_of
from vhe_tf.experiments.export import Exporting
from vhe_tf.experiments.paths import check_path
from vhe_tf.experiments.reproduce import Reproduction
from vhe_tf.experiments.run import Record
from vhe_tf.experiments.serve import Serve
from vhe_tf.experiments.train import chosen_experiment

for _, module in cli.COMMANDS.values():
    importlib.import_module(f"vhe_tf.experiments.{module}")

# Of a model, that may have a name, `models.presets` expands the path.
NO_PATHS = {"model", "init", "within", "host"}


def _strings(of=settings.Settings):
    """Returns all settings that are any string, with their class."""
    found = [
        pytest.param(of, field, id=f"{of.__name__}.{field.name}")
        for field in dataclasses.fields(of)
        if settings._kind_of(field) is settings._KINDS["string"]
        and not field.metadata["choices"]
    ]
    inner = [_strings(kind) for kind in of.__subclasses__()]
    return sum(inner, found) if of.__module__.startswith("vhe_tf") else []


def _said_by(*words):
    """Returns what a command prints, and the message with which it ends."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        cli.main(["vhe-tf", *words])
    return out.getvalue(), stop.value.code


def _parsed(of, *words):
    values = flags.FlagValues()
    settings.add_flags(values, of, title="Title", overrides=True)
    settings.parse(["program", *words], values, usage="Usage.")
    return values


# Paths -----------------------------------------------------------------------


@pytest.mark.parametrize(("of", "field"), _strings())
def test_paths_may_begin_with_the_home_folder(of, field, tmp_path, monkeypatch):
    if not field.metadata["path"]:
        assert field.name in NO_PATHS
        return
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(settings, "check_path", lambda *_, **__: None)
    values = _parsed(of, f"--{settings.flag_name(field)}=~/it")
    read = settings.read_flags(values, of)
    assert read == {field.name: str(tmp_path / "it")}


@pytest.mark.parametrize(("of", "field"), _strings())
def test_paths_are_not_empty(of, field):
    if field.metadata["path"]:
        flag = f"--{settings.flag_name(field)}"
        with pytest.raises(ValueError, match=f"Received: {flag}=$"):
            settings.read_flags(_parsed(of, f"{flag}="), of)


def test_a_model_with_a_mistake_in_its_name_is_guessed():
    with pytest.raises(ValueError, match="mean omniglot_pixel_cnn_small\\?"):
        check_path("MODEL", "omniglot_pixelcnn_small", kind="model")


def test_data_that_a_run_had_elsewhere_are_asked_for(tmp_path):
    experiment = Experiment(dataset="folder")
    record = Record(experiment, {"data_dir": str(tmp_path / "moved")})
    with pytest.raises(ValueError, match=r"by default .* run, must be"):
        data.place_of_run(None, record=record, experiment=experiment)
    glyphs = Experiment(dataset="glyphs")
    assert not data.place_of_run(None, record=record, experiment=glyphs)


def test_records_are_known_by_their_index(tmp_path):
    records = Experiment(dataset="records")
    with pytest.raises(ValueError, match=r"with its index\.npz"):
        data.check_place(records, str(tmp_path))
    (tmp_path / "index.npz").touch()
    data.check_place(records, str(tmp_path))


# Combinations ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "given", "message"),
    [
        *[
            (Measuring, {name: value}, f"`{name}` .* without `drawings`")
            for name, value in (
                ("best_of", 2),
                ("guidance", 1.0),
                ("num_drawings", 9),
                ("critics", "x"),
            )
        ],
        *[
            (
                Exporting,
                {"out": "x", "portable": True, name: value},
                f"`{name}` has no effect with `portable`",
            )
            for name, value in (
                ("version", 2),
                ("best_of", 2),
                ("warmup", False),
            )
        ],
        (Exporting, {"out": "x", "num_shots": 2}, "without `portable`"),
        (Exporting, {"out": "x", "batch_size": 2}, "without `portable`"),
        (
            Reproduction,
            {"check": True, "rows": ("x",)},
            "`rows` .*with `check`",
        ),
        (Reproduction, {"render_only": True, "dry_run": True}, "`render_only`"),
    ],
)
def test_settings_without_effect_are_rejected(of, given, message):
    with pytest.raises(settings.SettingsError, match=message):
        of(**given)


def test_a_folder_of_images_is_no_other_data_set(tmp_path):
    _, said = _said_by("train", f"--images={tmp_path}", "--dataset=omniglot")
    assert "--dataset has no effect with --images" in said


@pytest.mark.parametrize(
    ("chosen", "fits"),
    [
        ({"architecture": "pixel_cnn"}, False),
        ({"size": "published"}, False),
        ({"architecture": "style", "affine_copies": 1}, False),
        ({}, True),
        ({"architecture": "alphabet"}, True),
    ],
)
def test_initial_weights_are_of_the_same_architecture(chosen, fits):
    init = "omniglot_deconvolutional_small"
    experiment = Experiment(init=init, **chosen)
    if fits:
        building.check_init(experiment)
        return
    with pytest.raises(settings.SettingsError, match="run was small deconv"):
        building.check_init(experiment)


def test_other_data_have_the_groupings_of_the_model(tmp_path):
    """Whose latents have their names."""
    tested = Measuring(data_dir=str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text("image,character\nit.png,1\nit.png,2\n")
    (tmp_path / "it.png").touch()
    model = vhe_tf.presets()["omniglot_pixel_cnn_small"].card
    with pytest.raises(ValueError, match="at least 5 groups of 'character'"):
        _data_of(tested, model, {"dataset": "table"})


@pytest.mark.parametrize("out", ["samples.jpg", "samples", "s.png.webp"])
def test_a_picture_has_the_name_of_its_format(out):
    with pytest.raises(settings.SettingsError, match=r"must end in \.png"):
        Draw(out=out)
    assert Draw(out="samples.PNG").out


# Servers ---------------------------------------------------------------------


def test_a_server_is_where_it_can_listen():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(settings.SettingsError, match=f"port={port}"):
            Serve(port=port).check_address()
    Serve(port=port).check_address()
    with pytest.raises(settings.SettingsError, match=r"from 0 .* to 65535"):
        Serve(port=65536).check_address()


# Words -----------------------------------------------------------------------


@pytest.mark.parametrize(("invert", "flag"), [(None, ""), (True, "no")])
def test_warnings_name_flags(invert, flag, caplog):
    dark = np.zeros([1, 8, 8, 1], np.uint8)
    dark[0, 2:6, 3] = 255
    with endings.exit_on_user_error():
        with_ink_high(dark, invert=invert)
    assert f"ass --{flag}invert" in caplog.text
    assert "`" not in caplog.text
    assert logging.getLogRecordFactory() is logging.LogRecord


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_help_has_words_of_its_own(command):
    text, code = _said_by("help", command)
    assert code == 0
    assert "repeat this option" not in text
    assert "Default: ." not in text
    defined = set(re.findall(r"^  --(\w+)$", text, flags=re.MULTILINE))
    _, _, described = text.partition(":\n\n  --")
    named = set(re.findall(r"--(\w+)", described))
    assert not {n for n in named if n.removeprefix("no") not in defined}


def test_help_shows_the_values_that_flags_override():
    text, _ = _said_by("train", "--help")
    text = " ".join(text.split())
    assert "Episodes per step. Default of own_images: 16." in text
    assert "alphabet_pixel_cnn, two columns" in text
    assert "final evaluation. Default of own_images:" in text


@pytest.mark.parametrize(
    ("name", "flag"), [("few", "--images"), ("few.csv", "--labels")]
)
def test_a_folder_in_place_of_an_experiment_is_noticed(name, flag, tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few.csv").touch()
    _, said = _said_by("train", str(tmp_path / name))
    assert f"pass {flag}={tmp_path / name}." in said


def test_no_experiment_is_none():
    values = _parsed(Experiment)
    flags.DEFINE_string("experiment", None, "", flag_values=values)
    values(["program"])
    with pytest.raises(ValueError, match=r"Received: none\.$"):
        chosen_experiment(values, [])


def test_the_version_is_printed(capsys):
    cli.main(["vhe-tf", "--version"])
    assert capsys.readouterr().out == f"vhe-tf {vhe_tf.__version__}\n"


def test_repeated_flags_of_words_are_added():
    values = _parsed(Reproduction, "--table=1", "--table=lake,2")
    read = settings.read_flags(values, Reproduction)
    assert read["table"] == ("1", "lake", "2")
