import dataclasses
import os

import pytest

from vhe_tf._utils import atomic_io
from vhe_tf.errors import RunError
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run
from vhe_tf.experiments import provenance
from vhe_tf.experiments.run import Record

EXPERIMENT = Experiment(dataset="glyphs", seed=3, epochs=4, steps_per_epoch=2)


def _trained(folder, experiment=EXPERIMENT, *, epochs=2):
    """Leaves what a run of so many epochs does."""
    run = Run(folder, experiment)
    run.begin()
    run.checkpoints.mkdir(exist_ok=True)
    step = epochs * experiment.steps_per_epoch
    (run.checkpoints / f"ckpt-{step}.index").touch()
    return run


def test_settings_tell_where_numbers_come_from(tmp_path):
    run = Run(tmp_path / "run", EXPERIMENT)
    run.check_classes("0123abcd")
    run.begin(data_dir="data")
    record = Record.read(run.config)
    assert record.experiment == EXPERIMENT
    assert record.classes == "0123abcd"
    assert record.data_dir.endswith("/data")
    assert record.data_dir.startswith("/")
    assert {"versions", "onednn", "processor"} <= set(record.provenance)
    assert {"vhe_tf", "tensorflow"} <= set(record.provenance["versions"])


def test_a_run_of_other_settings_is_rejected(tmp_path):
    _trained(tmp_path)
    Run(tmp_path, EXPERIMENT)
    other = dataclasses.replace(EXPERIMENT, seed=4, batch_size=16)
    with pytest.raises(
        RunError,
        match=r"`batch_size`: 32 there, 16 here; `seed`: 3 there, 4 here",
    ):
        Run(tmp_path, other)


def test_a_resumed_run_may_have_more_epochs(tmp_path):
    run = _trained(tmp_path, epochs=2)
    run.metrics.write_text("{}")
    assert run.is_complete
    more = Run(tmp_path, dataclasses.replace(EXPERIMENT, epochs=6))
    assert not more.is_complete
    more.begin()
    assert Record.read(more.config).experiment.epochs == 6
    assert not more.metrics.exists()  # of fewer epochs
    Run(tmp_path, dataclasses.replace(EXPERIMENT, epochs=2))
    with pytest.raises(RunError, match=r"`epochs` .* 2: .*Received: 1"):
        Run(tmp_path, dataclasses.replace(EXPERIMENT, epochs=1))


@pytest.mark.parametrize("step", [5, 6])  # within an epoch, before its end
def test_a_run_needs_the_epochs_that_it_has_begun(tmp_path, step):
    run = _trained(tmp_path)
    (run.checkpoints / f"ckpt-{step}.index").touch()
    Run(tmp_path, dataclasses.replace(EXPERIMENT, epochs=3))
    with pytest.raises(RunError, match=r"`epochs` .* 3: .*Received: 2"):
        Run(tmp_path, dataclasses.replace(EXPERIMENT, epochs=2))


def test_more_epochs_are_told_to_change_the_learning_rate(tmp_path, capsys):
    _trained(tmp_path)
    Run(tmp_path, EXPERIMENT).begin()
    assert not capsys.readouterr().out
    Run(tmp_path, dataclasses.replace(EXPERIMENT, epochs=6)).begin()
    text = capsys.readouterr().out
    assert "epochs=4" in text
    assert "epochs=6" in text
    assert "learning rate" in text


def test_a_resumed_run_keeps_where_it_began(tmp_path, monkeypatch):
    def on(processor):
        monkeypatch.setattr(provenance, "processor", lambda: processor)
        Run(tmp_path, EXPERIMENT).begin()
        return Record.read(tmp_path / "config.json").provenance

    assert on("first")["processor"] == "first"
    assert on("second")["processor"] == "second"  # nothing was trained yet
    _trained(tmp_path)
    begun = on("second")
    assert on("second") == begun
    for processor in ("third", "third", "second"):
        found = on(processor)
    assert found["processor"] == begun["processor"]
    later = [(at["step"], at["processor"]) for at in found["resumed"][-2:]]
    assert later == [(4, "third"), (4, "second")]


def test_checkpoints_without_settings_are_rejected(tmp_path):
    _trained(tmp_path).config.unlink()
    with pytest.raises(RunError, match=r"Received: .*without config\.json"):
        Run(tmp_path, EXPERIMENT)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"dataset": "glyphs"}',
        '{"experiment": {"datset": "glyphs"}, "provenance": {}}',
        '{"experiment": {"epochs": 0}, "provenance": {}}',
        '{"experiment": {"epochs": []}, "provenance": {}}',
        '{"experiment": {"support_size": 3}, "provenance": {}}',
        '{"experiment": {}, "provenance": null}',
        '{"experiment": [], "provenance": {}}',
        "",
    ],
)
def test_a_file_of_another_form_is_named(tmp_path, text):
    run = _trained(tmp_path)
    run.config.write_text(text)
    with pytest.raises(RunError, match=r"config\.json is not .*: "):
        Run(tmp_path, EXPERIMENT)
    for path in run.checkpoints.iterdir():
        path.unlink()
    Run(tmp_path, EXPERIMENT).begin()  # nothing depends on it
    assert Record.read(run.config).experiment == EXPERIMENT


def test_a_changed_setting_is_noticed(tmp_path):
    run = _trained(tmp_path)
    text = run.config.read_text()
    run.config.write_text(text.replace('"seed": 3', '"seed": 7'))
    with pytest.raises(RunError, match=r"config\.json is corrupt, or was"):
        Run(tmp_path, dataclasses.replace(EXPERIMENT, seed=7))


def test_data_of_other_classes_are_rejected(tmp_path):
    run = Run(tmp_path, EXPERIMENT)
    run.check_classes("0123abcd")
    assert not run.has_begun  # nothing trained: nothing to lose
    run.check_classes("4567cdef")
    run.begin()
    run.checkpoints.mkdir(exist_ok=True)
    (run.checkpoints / "ckpt-1.index").touch()
    again = Run(tmp_path, EXPERIMENT)
    again.check_classes("4567cdef")
    with pytest.raises(RunError, match=r"Received: .*0123abcd.*4567cdef"):
        again.check_classes("0123abcd")


def test_settings_that_never_began_a_run_do_not_bind(tmp_path):
    Run(tmp_path, EXPERIMENT).begin()
    Run(tmp_path, dataclasses.replace(EXPERIMENT, seed=4)).begin()


def test_a_run_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Run("~/run", EXPERIMENT).folder == tmp_path / "run"


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    leftover = atomic_io.partial_path(tmp_path / "pictures" / "grid.png")
    leftover.parent.mkdir()
    leftover.touch()
    own = tmp_path / ".mine.partial.txt"
    own.touch()
    Run(tmp_path, EXPERIMENT).begin()
    assert not leftover.exists()
    assert own.exists()


def test_a_folder_in_which_another_process_trains_stays_as_it_is(tmp_path):
    run = _trained(tmp_path)
    half = atomic_io.partial_path(tmp_path / "best.keras")
    half.write_bytes(b"being written")
    before = run.config.read_text()
    more = dataclasses.replace(EXPERIMENT, epochs=9)
    with (
        atomic_io.locked(run.checkpoints / ".lock"),
        pytest.raises(RunError, match="Another process trains"),
    ):
        Run(tmp_path, more).begin()
    assert half.exists()
    assert run.config.read_text() == before


@pytest.mark.parametrize("data_dir", ["~/data", "gs://bucket/data"])
def test_a_resumed_run_keeps_the_folder_of_its_data(data_dir, tmp_path):
    Run(tmp_path, EXPERIMENT).begin(data_dir=data_dir)
    Run(tmp_path, EXPERIMENT).begin()
    kept = Record.read(tmp_path / "config.json").data_dir
    assert kept == os.path.expanduser(data_dir)
