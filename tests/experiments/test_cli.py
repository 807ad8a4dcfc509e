import importlib
import os
import sys

import pytest

from vhe_tf.experiments import cli


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_ctrl_c_ends_every_command_with_one_line(name, monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    _, module = cli.COMMANDS[name]
    command = importlib.import_module(f"vhe_tf.experiments.{module}")
    monkeypatch.setattr(command, "main", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["vhe-tf", name])
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert not said.out
    assert said.err.strip().startswith("Interrupted.")
    assert len(said.err.strip().splitlines()) == 1


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
