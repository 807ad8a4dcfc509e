import json

import pytest

from vhe_tf import training


def _begun(folder, config):
    training.Run(folder, config).begin()
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "ckpt-1.index").touch()


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


def test_a_run_refuses_data_of_other_classes(tmp_path, capsys):
    model = tmp_path / "best.keras"
    run = training.Run(tmp_path, {"dataset": "folder"})
    run.check_groups("0123abcd")
    assert not run.latest  # nothing trained: nothing to lose
    run.check_groups("4567cdef")
    run.begin()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-1.index").touch()
    again = training.Run(tmp_path, {"dataset": "folder"})
    again.check_groups("4567cdef")
    training.tell_other_groups(model, "folder", "4567cdef")
    training.tell_other_groups(model, "records", "0123abcd")
    assert not capsys.readouterr().out
    with pytest.raises(training.RunError, match="began with other classes"):
        again.check_groups("0123abcd")
    training.tell_other_groups(model, "folder", "0123abcd")
    assert "cannot be told" in capsys.readouterr().out
    # A run of before there was a checksum.
    _begun(tmp_path, {"dataset": "folder"})
    training.Run(tmp_path, {"dataset": "folder"}).check_groups("0123abcd")


def test_a_run_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert training.Run("~/run", {}).folder == tmp_path / "run"


def test_settings_that_never_began_a_run_do_not_bind(tmp_path):
    training.Run(tmp_path, {"seed": 3})
    training.Run(tmp_path, {"seed": 4}).begin()
    training.Run(tmp_path, {"seed": 5})  # no checkpoint: nothing to lose


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
            {
                **_PHOTOS,
                "group": "video",
                "num_levels": 8,
                "seed": 3,
                "split": "lake",
                "image_size": "48x32",
            },
            {
                **_PHOTOS,
                "group": "video",
                "num_levels": 8,
                "seed": 3,
                "image_size": (48, 32),
            },
        ),
        (
            {**_PHOTOS, "seed": 3},
            {**_PHOTOS, "group": "person", "num_levels": 256, "seed": 3},
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


def test_a_model_that_has_seen_the_test_classes_is_refused(tmp_path, capsys):
    split = {"dataset": "omniglot", "split": "random1200", "images": "grey"}
    training.Run(tmp_path, {**split, "seed": 1}).begin()
    path = tmp_path / "best.keras"
    known = training.check_unseen(path, {**split, "seed": 1, "batch_size": 3})
    assert known == {**split, "seed": 1}
    with pytest.raises(ValueError, match=r"'seed': 1}; here: {.*'seed': 0}"):
        training.check_unseen(path, {**split, "seed": 0})
    assert not capsys.readouterr().out


@pytest.mark.parametrize("config", [None, {"table": "labels.csv"}])
def test_that_it_cannot_be_told_what_a_model_has_seen_is_said(
    config, tmp_path, capsys
):
    path = tmp_path / "alone.keras"
    if config:
        training.Run(tmp_path, config).begin()
    assert training.check_unseen(path, {**_DEFAULT, "seed": 0}) is None
    assert f"{path} has no config.json beside it" in capsys.readouterr().out


def test_photographs_have_no_split_of_drawings(tmp_path):
    training.Run(tmp_path, {**_PHOTOS, "seed": 1}).begin()
    settings = {**_PHOTOS, "seed": 0}
    with pytest.raises(ValueError, match="'split': None, 'seed': 1}; here:"):
        training.check_unseen(tmp_path / "best.keras", settings)


def test_mistakes_end_with_their_message():
    mistakes = training.mistakes_end_quietly()
    with pytest.raises(SystemExit, match="error: no such thing"), mistakes:
        raise ValueError("no such thing")
