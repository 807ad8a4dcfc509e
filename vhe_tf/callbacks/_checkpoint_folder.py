"""A folder of checkpoints, each complete or absent."""

import contextlib
import pathlib
import re
import shutil
from collections.abc import Iterator

import tensorflow as tf

from vhe_tf._utils import atomic_io
from vhe_tf.errors import RunError

__all__ = ["CheckpointFolder", "alone_in"]

_PARTIAL = ".partial"
# Files of a checkpoint, and what others than this module leave of a failed one.
_NAME = r"(?P<name>ckpt-\d{1,18})"
_OURS = re.compile(_NAME + r"(\.index|\.data-\d+-of-\d+|_temp)")
_LISTED = re.compile(rf'^all_model_checkpoint_paths: "(.*/)?{_NAME}"$', re.M)


class CheckpointFolder:
    """Writes checkpoints and keeps the last few, in TensorFlow's own layout.

    `tf.train.latest_checkpoint` finds them. Unlike `tf.train.CheckpointManager`
    it writes in a folder aside: TensorFlow writes a checkpoint's index under
    its final name, where a kill or a full disk leaves half of it. The list of
    checkpoints alone removes none: whatever has an index is one, listed or not.

    Args:
        folder: Path. The folder, made where missing.
        max_to_keep: Integer. How many checkpoints.
    """

    def __init__(self, folder: pathlib.Path, *, max_to_keep: int = 2) -> None:
        self.folder = folder
        self.max_to_keep = max_to_keep

    def paths(self) -> list[str]:
        """Returns the checkpoints there are or should be, newest first."""
        return [str(self.folder / name) for name in reversed(self._names())]

    def write(self, checkpoint: tf.train.Checkpoint, step: int) -> None:
        """Writes a checkpoint, `ckpt-{step}`, and removes the oldest.

        Raises:
            NotWrittenError: If it cannot be written; those before it stay.
        """
        name = f"ckpt-{step}"
        partial = self.folder / _PARTIAL
        kept = self._names()
        with atomic_io.translate_write_errors(self.folder / name):
            try:
                self.remove_leftovers()  # among them a link, if there is one
                partial.mkdir(parents=True)
                checkpoint.write(str(partial / name))
                for path in sorted(partial.glob(f"{name}.*")):
                    atomic_io.settle(path)
                    path.replace(self.folder / path.name)  # the index last
                atomic_io.settle(self.folder)
                names = [*(n for n in kept if n != name), name]
                self._write_names(names[-self.max_to_keep :])
                kept = names[-self.max_to_keep :]
                atomic_io.settle(self.folder)
            finally:
                self._remove_all_but(kept)

    def forget_later(self, step: int) -> None:
        """Removes checkpoints of later steps, since a run resumes from this.

        Raises:
            NotWrittenError: If the list cannot be written.
        """
        kept = [name for name in self._names() if _step(name) <= step]
        self._write_names(kept)
        self._remove_all_but(kept)

    def remove_leftovers(self) -> None:
        """Removes parts of checkpoints, but none that has an index."""
        self._remove_all_but(self._names())

    def _remove_all_but(self, kept: list[str]) -> None:
        if not self.folder.is_dir():
            return
        # Its index makes it a checkpoint: that comes last, and goes first.
        for path in sorted(
            self.folder.iterdir(), key=lambda path: path.suffix != ".index"
        ):
            match = _OURS.fullmatch(path.name)
            if match and match["name"] in kept:
                continue
            if not (
                match or path.name == _PARTIAL or atomic_io.is_partial(path)
            ):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        """Returns the checkpoints that are listed or have an index, by step."""
        names = {
            match["name"]
            for path in self.folder.glob("ckpt-*.index")
            if (match := _OURS.fullmatch(path.name))
        }
        with contextlib.suppress(OSError):
            text = (self.folder / "checkpoint").read_text("utf-8", "replace")
            names |= {match["name"] for match in _LISTED.finditer(text)}
        return sorted(names, key=_step)

    def _write_names(self, names: list[str]) -> None:
        lines = [f'model_checkpoint_path: "{names[-1]}"']
        lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
        with atomic_io.beside(self.folder / "checkpoint") as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _step(name: str) -> int:
    return int(name.removeprefix("ckpt-"))


# Those that this process has locked.
_LOCKED: set[pathlib.Path] = set()


@contextlib.contextmanager
def alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder of checkpoints, unless this process has locked it.

    Raises:
        RunError: If another process has locked it.
    """
    place = folder.resolve()
    if place in _LOCKED:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(atomic_io.locked(folder / ".lock"))
        except BlockingIOError as error:
            raise RunError(
                "Another process trains in that folder. Wait for its end, "
                f"stop it, or use another folder. Received: {folder}."
            ) from error
        except OSError:
            pass  # a file system without locks: nobody can know
        _LOCKED.add(place)
        stack.callback(_LOCKED.discard, place)
        yield
