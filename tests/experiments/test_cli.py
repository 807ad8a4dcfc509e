import importlib
import os
import pathlib
import sys

import pytest

from vhe_tf.experiments import cli

# What each program that `python -m` runs calls first.
FIRST_CALLS = {
    "vhe_tf.experiments.cli": "importlib.import_module",
    "vhe_tf.data.datasets.records.folder_to_records": "_parser",
}


def _assert_ends_with_one_line(main, argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert not said.out
    assert said.err.strip().startswith("Interrupted.")
    assert len(said.err.strip().splitlines()) == 1


def test_every_program_of_the_package_is_known():
    root = pathlib.Path(cli.__file__).parents[1]
    programs = {
        ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for path in root.rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
        or path.name == "__main__.py"
    }
    assert programs == set(FIRST_CALLS)


@pytest.mark.parametrize("name", sorted(FIRST_CALLS))
def test_ctrl_c_ends_every_program_with_one_line(name, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    program = importlib.import_module(name)
    with monkeypatch.context() as patch:
        patch.setattr(f"{name}.{FIRST_CALLS[name]}", interrupted)
        _assert_ends_with_one_line(program.main, ["vhe-tf", "list"], capsys)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_ctrl_c_ends_every_command_with_one_line(name, monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    _, module = cli.COMMANDS[name]
    command = importlib.import_module(f"vhe_tf.experiments.{module}")
    monkeypatch.setattr(command, "main", interrupted)
    _assert_ends_with_one_line(cli.main, ["vhe-tf", name], capsys)


@pytest.mark.parametrize("name", ["list", "quickstart", "reproduce"])
def test_commands_without_arguments_reject_them(name):
    with pytest.raises(SystemExit, match="Received: foo"):
        cli.main(["vhe-tf", name, "foo"])


def test_an_unknown_command_prints_an_error_alone(capsys):
    with pytest.raises(SystemExit, match=r"'tran'.*'train'"):
        cli.main(["vhe-tf", "tran"])
    assert not capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["list"], ["train", "--help"]])
def test_output_that_nobody_reads_ends_a_command_quietly(words, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as stop:
            cli.main(["vhe-tf", *words])
    assert stop.value.code == 141
