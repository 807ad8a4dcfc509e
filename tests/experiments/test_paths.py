"""Paths that flags name are checked before anything slow is imported."""

import importlib
import os

import pytest

from vhe_tf.experiments import classify
from vhe_tf.experiments import user_images
from vhe_tf.experiments.paths import check_path


@pytest.mark.parametrize("kind", ["new file", "new folder"])
def test_new_paths_need_a_place_that_can_be_written(tmp_path, kind):
    check_path("--out", str(tmp_path / "new" / "deeper" / "it"), kind=kind)
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "missing")
    for name in ("file", "broken"):
        path = tmp_path / name / "it"
        with pytest.raises(ValueError, match=f"--out .*{name}': it is not"):
            check_path("--out", str(path), kind=kind)


@pytest.mark.parametrize("kind", ["new file", "new folder"])
def test_new_paths_need_a_writable_folder(tmp_path, monkeypatch, kind):
    # Root may write anywhere but on a file system that is read only.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match=r"Received: .*may not be written"):
        check_path("--out", str(tmp_path / "it"), kind=kind)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("draw", ["{image}", "--out={file}/it.png"]),
        ("evaluate", ["{model}", "--out={file}/it.json"]),
        ("export", ["{model}", "--out={file}/it"]),
        ("train", ["quickstart", "--run_dir={file}/it"]),
    ],
)
def test_commands_check_their_output_first(
    tmp_path, monkeypatch, command, words
):
    monkeypatch.setattr("vhe_tf.load_model", None)  # It would take long.
    places = {
        name: tmp_path / path
        for name, path in [
            ("image", "image.png"),
            ("model", "best.keras"),
            ("file", "file"),
        ]
    }
    for path in places.values():
        path.touch()
    main = importlib.import_module(f"vhe_tf.experiments.{command}").main
    with pytest.raises(SystemExit, match=r"Received: .*not a folder"):
        main(["vhe-tf", *(word.format(**places) for word in words)])


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--support={root}", "no class folders"), ("--model={file}", "{file}")],
)
def test_classify_checks_its_files_first(tmp_path, monkeypatch, flag, message):
    monkeypatch.setattr(user_images, "import_tensorflow", None)
    file = tmp_path / "image.png"
    file.touch()
    support = tmp_path / "support" / "a"
    support.mkdir(parents=True)
    (support / "0.png").touch()
    words = {"--support": f"--support={support.parent}"}
    flag = flag.format(root=support, file=file)
    words[flag.partition("=")[0]] = flag
    with pytest.raises(SystemExit, match=message.format(file=file)):
        classify.main(["vhe-tf", str(file), *words.values()])
