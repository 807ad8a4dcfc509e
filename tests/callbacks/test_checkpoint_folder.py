import errno
import os

import pytest
import tensorflow as tf

from vhe_tf._utils import atomic_io
from vhe_tf.callbacks._checkpoint_folder import CheckpointFolder


def checkpoint(value):
    """Makes a checkpoint of three pages on a disk, and more for its index."""
    return tf.train.Checkpoint(a=tf.Variable(tf.fill([3000], float(value))))


def write(folder, *steps, **options):
    for step in steps:
        CheckpointFolder(folder, **options).write(checkpoint(step), step)


def value_of(path):
    restored = checkpoint(0)
    restored.read(str(path)).assert_consumed()
    return float(restored.a.numpy()[0])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def files_of(*names):
    return [
        f"{name}{end}"
        for name in names
        for end in (".data-00000-of-00001", ".index")
    ]


def test_the_last_few_are_kept_and_found_by_tensorflow(tmp_path):
    folder = tmp_path / "made" / "here"
    write(folder, 4, 8, 11)
    assert tf.train.latest_checkpoint(folder) == str(folder / "ckpt-11")
    assert names(folder) == ["checkpoint", *files_of("ckpt-11", "ckpt-8")]
    assert [value_of(folder / f"ckpt-{step}") for step in (8, 11)] == [8, 11]
    write(folder, 12, max_to_keep=1)
    assert names(folder) == ["checkpoint", *files_of("ckpt-12")]


def test_the_same_step_again_replaces_it(tmp_path):
    write(tmp_path, 4, 8)
    CheckpointFolder(tmp_path).write(checkpoint(9), 8)
    assert value_of(tf.train.latest_checkpoint(tmp_path)) == 9
    assert names(tmp_path) == ["checkpoint", *files_of("ckpt-4", "ckpt-8")]


@pytest.mark.parametrize("leave", range(5))
def test_a_full_disk_leaves_the_checkpoints_before(leave, small_disk):
    """Either the data or the index does not fit."""
    folder = small_disk.folder / "checkpoints"
    write(folder, 4, 8)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    small_disk.fill(leave=leave)
    with pytest.raises(atomic_io.NotWrittenError) as error:
        write(folder, 12)
    assert f"{folder / 'ckpt-12'}: the disk is full (" in str(error.value)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    small_disk.resize("8m")
    write(folder, 12)
    assert value_of(tf.train.latest_checkpoint(folder)) == 12


def test_a_list_that_cannot_be_written_leaves_the_checkpoints_before(
    tmp_path, monkeypatch
):
    write(tmp_path, 4)
    kept = names(tmp_path)

    def fail(self, names):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CheckpointFolder, "_write_names", fail)
    with pytest.raises(
        atomic_io.NotWrittenError, match=r"ckpt-8: .* disk is full"
    ):
        write(tmp_path, 8)
    assert names(tmp_path) == kept
    assert value_of(tf.train.latest_checkpoint(tmp_path)) == 4


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_kill_between_two_files_leaves_the_checkpoints_before(
    renamed, tmp_path, monkeypatch
):
    write(tmp_path, 4)
    kept = names(tmp_path)
    replace = type(tmp_path).replace
    left = iter(range(renamed))

    class KilledError(BaseException):
        """Unlike a kill, it is seen; so nothing may be done about it."""

    def kill(self, target):
        if next(left, None) is None:
            monkeypatch.setattr(CheckpointFolder, "_remove_all_but", ignore)
            raise KilledError
        return replace(self, target)

    def ignore(self, kept):
        pass

    monkeypatch.setattr(type(tmp_path), "replace", kill)
    if renamed == 2:
        monkeypatch.setattr(CheckpointFolder, "_write_names", kill)
    with pytest.raises(KilledError):
        write(tmp_path, 8)
    monkeypatch.undo()
    assert value_of(tf.train.latest_checkpoint(tmp_path)) == 4
    CheckpointFolder(tmp_path).remove_leftovers()
    if renamed == 2:  # it has an index, and so is whole
        assert value_of(CheckpointFolder(tmp_path).paths()[0]) == 8
    else:
        assert names(tmp_path) == kept


@pytest.mark.parametrize("backwards", [False, True])
def test_a_kill_while_the_oldest_is_removed_leaves_no_half_of_it(
    backwards, tmp_path, monkeypatch
):
    write(tmp_path, 4, 8)
    path_type = type(tmp_path)
    listed, unlink = path_type.iterdir, path_type.unlink
    removed = []

    class KilledError(BaseException):
        """Unlike a kill, it is seen; nothing is done about it."""

    def kill(self, **options):
        unlink(self, **options)
        if self.name.startswith("ckpt-4"):
            removed.append(self.name)
            raise KilledError

    # A folder lists its files in any order.
    monkeypatch.setattr(
        path_type, "iterdir", lambda p: sorted(listed(p), reverse=backwards)
    )
    monkeypatch.setattr(path_type, "unlink", kill)
    with pytest.raises(KilledError):
        write(tmp_path, 12)
    monkeypatch.undo()
    assert removed == ["ckpt-4.index"]
    assert value_of(tf.train.latest_checkpoint(tmp_path)) == 12
    CheckpointFolder(tmp_path).remove_leftovers()
    assert names(tmp_path) == ["checkpoint", *files_of("ckpt-12", "ckpt-8")]


def test_a_link_in_the_way_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".partial").symlink_to(victim)
    write(tmp_path / "checkpoints", 4)
    assert names(tmp_path / "checkpoints") == [
        "checkpoint",
        *files_of("ckpt-4"),
    ]
    assert not list(victim.iterdir())


def test_what_is_not_a_checkpoint_stays(tmp_path):
    write(tmp_path, 4)
    mine = ["epoch.json", "ckpt-3.index.bak", "my-ckpt-3.index"]
    for name in [*mine, ".my.partial.txt"]:
        (tmp_path / name).write_text("mine")
    (tmp_path / "ckpt-3").mkdir()
    kept = names(tmp_path)
    (tmp_path / "ckpt-3.data-00000-of-00001").write_text("left")
    (tmp_path / ".partial").mkdir()
    CheckpointFolder(tmp_path).remove_leftovers()
    assert names(tmp_path) == kept


def test_no_wrong_character_of_the_list_loses_a_checkpoint(tmp_path):
    write(tmp_path, 4, 8)
    before, path = names(tmp_path), tmp_path / "checkpoint"
    text = path.read_bytes()
    both = {str(tmp_path / "ckpt-4"), str(tmp_path / "ckpt-8")}
    for index in range(len(text)):
        for flip in (1, 2, 16, 128):
            flipped = bytes([text[index] ^ flip])
            path.write_bytes(text[:index] + flipped + text[index + 1 :])
            folder = CheckpointFolder(tmp_path)
            folder.remove_leftovers()
            assert names(tmp_path) == before
            assert both <= set(folder.paths())


def test_a_wrong_list_is_corrected_once_a_checkpoint_is_read(tmp_path):
    write(tmp_path, 4, 8)
    path = tmp_path / "checkpoint"
    path.write_text(path.read_text().replace("8", "9"))
    folder = CheckpointFolder(tmp_path)
    assert folder.paths()[0] == str(tmp_path / "ckpt-9")
    folder.forget_later(8)
    assert tf.train.latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-8")
    folder.forget_later(4)
    assert names(tmp_path) == ["checkpoint", *files_of("ckpt-4")]
