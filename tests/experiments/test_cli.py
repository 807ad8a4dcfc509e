import importlib

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
