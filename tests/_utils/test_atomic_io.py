import errno
import os

import pytest
import tensorflow as tf

from vhe_tf._utils import atomic_io

FULL = os.strerror(errno.ENOSPC)


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "best.keras"
    path.write_text("old")
    with atomic_io.beside(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.suffix == ".keras"  # Keras demands it
        assert partial.name.startswith(".")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_can_foresee_where_a_file_is_written(tmp_path):
    path = tmp_path / "best.keras"
    names = set()
    for _ in range(2):
        with atomic_io.beside(path) as partial:
            partial.write_text("new")
            assert atomic_io.is_partial(partial)
            names.add(partial.name)
    assert len(names) == 2
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_link_in_the_way_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    link = tmp_path / ".best.partial.keras"
    link.symlink_to(victim)
    with atomic_io.beside(tmp_path / "best.keras") as partial:
        partial.write_text("new")
    assert victim.read_text() == "kept"
    # Even one that is called as the file will be.
    monkeypatch.setattr(atomic_io, "partial_path", lambda path: link)
    with (
        pytest.raises(atomic_io.NotWrittenError, match="exists"),
        atomic_io.beside(tmp_path / "best.keras") as partial,
    ):
        partial.write_text("new")
    assert victim.read_text() == "kept"


def test_a_lock_is_not_made_through_a_link(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        atomic_io.locked(tmp_path / ".lock").__enter__()
    assert not (tmp_path / "victim").exists()


def write_half(path, error):
    with atomic_io.beside(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("no JSON")])
def test_a_file_that_is_not_finished_leaves_nothing(error, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("leave", [0, 1, 3])
def test_a_full_disk_is_named_and_nothing_is_left(leave, small_disk):
    path = small_disk.folder / "metrics.json"
    path.write_text("old")
    small_disk.fill(leave=leave)
    with (
        pytest.raises(atomic_io.NotWrittenError) as error,
        atomic_io.beside(path) as partial,
    ):
        partial.write_bytes(bytes(4096 * 4))
    assert f"{path}: " in str(error.value)
    assert f"({FULL})" in str(error.value)
    assert path.read_text() == "old"
    assert {p.name for p in small_disk.folder.iterdir()} == {
        "metrics.json",
        ".filler",
    }


def test_another_reason_of_the_system_is_told(tmp_path):
    path = tmp_path / "missing" / "metrics.json"
    with (
        pytest.raises(
            atomic_io.NotWrittenError,
            match=r"json: No such file or dir",
        ),
        atomic_io.beside(path) as partial,
    ):
        partial.write_text("whole")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, FULL, "/a/b"), rf" /a/b: .*{FULL}"),
        (OSError(errno.ENOSPC, FULL), rf" a file: .*{FULL}"),
        (
            OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
            os.strerror(errno.EDQUOT),
        ),
        (
            tf.errors.ResourceExhaustedError(
                None,
                None,
                "{{function_node f}} runs/a; b/events.v2; "
                f"{FULL}\n\tFailed to flush 11 events to runs/a; b/events.v2",
            ),
            rf" runs/a; b/events.v2: .*{FULL}",
        ),
    ],
)
def test_whoever_finds_a_disk_full_is_understood(error, message):
    with (
        pytest.raises(atomic_io.NotWrittenError, match=message),
        atomic_io.translate_disk_full(),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "/a"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
        tf.errors.UnavailableError(None, None, "worker 1"),
        atomic_io.NotWrittenError("named before"),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as raised, atomic_io.translate_disk_full():
        raise error
    assert raised.value is error


@pytest.mark.parametrize("kind", ["AbortedError", "UnavailableError"])
def test_a_lost_machine_is_not_a_failure_to_write(kind, tmp_path):
    error = getattr(tf.errors, kind)(None, None, "worker 1")
    with pytest.raises(type(error)), atomic_io.translate_write_errors(tmp_path):
        raise error


def test_there_must_be_room_for_what_is_to_come(small_disk):
    small_disk.fill(leave=3)
    atomic_io.check_room(small_disk.folder, 3 * 4096)
    with pytest.raises(atomic_io.NotWrittenError) as error:
        atomic_io.check_room(small_disk.folder, 3 * 4096 + 1)
    assert f"{small_disk.folder}: " in str(error.value)
    assert f"({FULL})" in str(error.value)
    atomic_io.check_room(small_disk.folder, 3 * 4096)  # it took none
    atomic_io.check_room(small_disk.folder / "missing", 1)
    assert (small_disk.folder / "missing").is_dir()


def test_tensorflow_s_own_words_are_understood(small_disk):
    small_disk.fill()
    path = small_disk.folder / "a"
    with (
        pytest.raises(
            atomic_io.NotWrittenError,
            match=rf"{path}: .*{FULL}",
        ),
        atomic_io.translate_disk_full(),
    ):
        tf.io.write_file(str(path), "much")
