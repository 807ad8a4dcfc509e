"""The folder of a training run, and the settings that it was trained with."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Self

from vhe_tf._utils.json_files import read_json
from vhe_tf._utils.json_files import write_json
from vhe_tf.errors import RunError
from vhe_tf.experiments import provenance
from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.own_images import files_checksum

__all__ = ["Record", "Run", "record_of"]

_CONFIG = "config.json"
_FORM = {"experiment", "provenance"}


@dataclasses.dataclass(frozen=True)
class Record:
    """The contents of the `config.json` of a run.

    Attributes:
        experiment: `Experiment`. The settings of the run.
        provenance: Mapping. `data_dir` is where the data were; `files`, for a
            user's own images, is the checksum of their names and sizes;
            `classes` is the checksum of the classes that are not for testing.
            The other entries are those of `provenance.of_this_process` when
            the run began. `resumed` lists later ones that differ, with the
            step. Shipped models lack what is not known.
    """

    experiment: Experiment
    provenance: Mapping[str, Any]

    @property
    def data_dir(self) -> str | None:
        """The folder of the data, or None for the default."""
        return self.provenance.get("data_dir")

    @property
    def files(self) -> str | None:
        """The checksum of the files of the data, or None if it is not known."""
        return self.provenance.get("files")

    @property
    def classes(self) -> str | None:
        """The checksum of the classes, or None if it is not known."""
        return self.provenance.get("classes")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a `config.json`.

        Raises:
            FileNotFoundError: If there is none.
            RunError: If it is not of a run.
        """
        try:
            config = read_json(pathlib.Path(path))
            if set(config) != _FORM or not all(
                isinstance(part, dict) for part in config.values()
            ):
                raise ValueError(f"expected the objects {sorted(_FORM)}")
            experiment = Experiment.from_json(config["experiment"])
        except (TypeError, ValueError) as error:
            raise RunError(
                f"{path} is not of a run: {str(error).rstrip('.')}. It says "
                "with which settings and data the model beside it is trained, "
                "which cannot be determined without it. Restore it from a copy."
            ) from error
        return cls(experiment, config["provenance"])

    def write(self, path: pathlib.Path) -> None:
        """Writes a `config.json`, atomically.

        Raises:
            NotWrittenError: If it cannot be written.
        """
        write_json(
            path,
            {
                "experiment": self.experiment.to_json(),
                "provenance": dict(self.provenance),
            },
        )


def record_of(model: str | os.PathLike[str]) -> Record | None:
    """Returns the record of the run in whose folder a model lies.

    Args:
        model: Path. The `.keras` file.

    Returns:
        None if there is no `config.json` beside it.
    """
    path = pathlib.Path(model).with_name(_CONFIG)
    return Record.read(path) if path.exists() else None


class Run:
    """A folder that holds one training run.

        config.json        the experiment and its provenance
        checkpoints/       checkpoints to resume from
        best.keras         the EMA weights with the best validation ELBO
        last.keras         the EMA weights at the end
        tensorboard/       scalars and pictures over time
        metrics.json       measurements on unseen groups
        pictures/          PNG

    Each has an attribute with its path.

    Args:
        folder: Path. Made by `begin` if it is missing.
        experiment: `Experiment`. All that the run depends on.

    Raises:
        RunError: If the folder holds checkpoints of another experiment, or of
            more epochs than `experiment` has. It may have more epochs than the
            run in the folder, which then continues.

    Example:
    >>> import tempfile
    >>> from vhe_tf.experiments import Experiment
    >>> run = Run(tempfile.mkdtemp(), Experiment(dataset="glyphs"))
    >>> run.begin()
    >>> Record.read(run.config).experiment.dataset
    'glyphs'
    """

    def __init__(
        self, folder: str | os.PathLike[str], experiment: Experiment
    ) -> None:
        self.folder = pathlib.Path(folder).expanduser()
        self.config = self.folder / _CONFIG
        self.checkpoints = self.folder / "checkpoints"
        self.best = self.folder / "best.keras"
        self.last = self.folder / "last.keras"
        self.tensorboard = self.folder / "tensorboard"
        self.metrics = self.folder / "metrics.json"  # written last
        self.pictures = self.folder / "pictures"
        self.experiment = experiment
        self._classes: str | None = None
        if self._binds:
            self._check_experiment()

    @property
    def has_begun(self) -> bool:
        """True if there are checkpoints."""
        return self._step() > 0

    @property
    def _binds(self) -> bool:
        """True if there is something that another run would overwrite."""
        return self.has_begun or self.metrics.exists()

    @property
    def is_complete(self) -> bool:
        """True if all epochs of the experiment are trained and measured."""
        if not self.metrics.exists():
            return False
        earlier = self._record()
        return earlier is not None and earlier.experiment == self.experiment

    def check_classes(self, classes: str) -> None:
        """Checks that the data have the classes that the run began with.

        The classes for testing are a random choice among all. With other
        classes, the run would have trained on some that it is tested on.

        Args:
            classes: String. The checksum of the classes of the data.

        Raises:
            RunError: If the run began with others.
        """
        self._classes = classes
        earlier = self._record() if self.has_begun else None
        if earlier and earlier.classes not in (None, classes):
            raise RunError(
                f"The run in {self.folder} began with other classes, and may "
                "have trained on those that it would be tested on. Restore the "
                "data, or name another folder by `run_dir`. Received: data "
                f"whose classes have the checksum {classes}; those of the run "
                f"had {earlier.classes}."
            )

    def check_data(self, data_dir: str | None) -> None:
        """Checks that a user's own images are those that the run began with.

        In the same folder, images may be added and removed. In another one,
        the names and sizes of all files must be the same. Older runs did not
        record them; `check_classes` compares their classes.

        Args:
            data_dir: Path. The folder or the table. Defaults to where they
                were.

        Raises:
            RunError: If they are others.
        """
        earlier = self._record()
        there = earlier.data_dir if earlier and self._binds else None
        if not (earlier and there and data_dir) or _same(there, data_dir):
            return
        now = files_checksum(self.experiment, data_dir)
        if now is None or earlier.files in (None, now):
            return
        raise RunError(
            f"The run in {self.folder} began with other data, in {there!r}. "
            "For a new run, name another folder by `run_dir`. Data that moved "
            "resume the run if no file differs; if some must, make "
            f"{there!r} a link to them. Received: {data_dir!r}."
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in the folder.

        Raises:
            NotWrittenError: If a folder of the run cannot be written to.
            RunError: If another process does.
        """
        # These import TensorFlow.
        from vhe_tf._utils import atomic_io
        from vhe_tf.callbacks._checkpoint_folder import alone_in

        atomic_io.check_room(self.checkpoints)
        for folder in (self.folder, self.tensorboard, self.pictures):
            if folder.exists():
                atomic_io.check_room(folder)
        # That of `ExactResume`.
        with alone_in(self.checkpoints):
            yield

    def begin(self, *, data_dir: str | None = None) -> None:
        """Writes `config.json`, once all checks have passed.

        Files that a killed run left half written are removed first.

        Args:
            data_dir: Path. Folder of the data. Defaults to where the run that
                is resumed had them, or else to the default folder of the data
                set.

        Raises:
            NotWrittenError: If it cannot be written.
            RunError: If another process trains in the folder.
        """
        with self.locked():
            self._begin(data_dir)

    def _begin(self, data_dir: str | None) -> None:
        from vhe_tf._utils import atomic_io  # imports TensorFlow

        earlier = self._record()
        if data_dir is None and earlier:
            data_dir = earlier.data_dir
        for folder in (self.folder, self.pictures):
            if folder.is_dir():
                for path in filter(atomic_io.is_partial, folder.iterdir()):
                    path.unlink()
        place = data_dir
        if data_dir and "://" not in data_dir:  # a bucket has no other name
            place = os.path.abspath(os.path.expanduser(data_dir))
        known = {
            "data_dir": place,
            "files": files_checksum(self.experiment, data_dir),
            "classes": self._classes,
        }
        record = Record(
            self.experiment,
            {name: value for name, value in known.items() if value}
            | self._provenance(earlier),
        )
        if earlier is None or self.experiment != earlier.experiment:
            self.metrics.unlink(missing_ok=True)  # of fewer epochs
        if self.has_begun and earlier and self.experiment != earlier.experiment:
            print(
                f"The run in {self.folder} began with epochs="
                f"{earlier.experiment.epochs}, and resumes with epochs="
                f"{self.experiment.epochs}: from here on, the learning rate "
                "is that of the longer run. The weights will differ from those "
                "of a run that began with as many epochs.",
                flush=True,
            )
        record.write(self.config)

    def _provenance(self, earlier: Record | None) -> dict[str, Any]:
        now = provenance.of_this_process()
        if earlier is None or not self.has_begun:
            return now
        known = ("data_dir", "files", "classes")
        first = {k: v for k, v in earlier.provenance.items() if k not in known}
        resumed = first.pop("resumed", [])
        last = dict(resumed[-1]) if resumed else dict(first)
        last.pop("step", None)
        if now != last:
            resumed = [*resumed, {"step": self._step(), **now}]
        return first | ({"resumed": resumed} if resumed else {})

    def _record(self) -> Record | None:
        if not self.config.exists():
            return None
        try:
            return Record.read(self.config)
        except RunError:
            if self._binds:
                raise
            return None  # nothing depends on it

    def _check_experiment(self) -> None:
        earlier = self._record()
        if earlier is None:
            raise RunError(
                f"A run needs its {_CONFIG}. Restore it, or name another "
                f"folder by `run_dir`. Received: {self.folder}, without "
                f"{_CONFIG}."
            )
        differences = [
            f"`{name}`: {there!r} there, {here!r} here"
            for name, there, here in _differences(
                earlier.experiment, self.experiment
            )
            if name != "epochs"
        ]
        if differences:
            raise RunError(
                f"{self.folder} holds a run with other settings. Use its "
                "settings to resume it, or another `run_dir`. Different: "
                f"{'; '.join(differences)}."
            )
        begun = -(-self._step() // self.experiment.steps_per_epoch)
        if self.experiment.epochs < begun:
            raise RunError(
                f"`epochs` must be at least {begun}: the run in {self.folder} "
                f"has begun that epoch. Received: {self.experiment.epochs}."
            )

    def _step(self) -> int:
        """Returns the step of the latest checkpoint, or 0."""
        indexes = self.checkpoints.glob("ckpt-*.index")
        steps = (path.stem.removeprefix("ckpt-") for path in indexes)
        return max((int(step) for step in steps if step.isdecimal()), default=0)


def _same(path: str, other: str) -> bool:
    """Returns whether two paths are of one place, maybe by links."""
    paths = (os.path.expanduser(path), os.path.expanduser(other))
    first, second = map(os.path.realpath, paths)
    return first == second


def _differences(
    there: Experiment, here: Experiment
) -> list[tuple[str, Any, Any]]:
    names = [field.name for field in dataclasses.fields(Experiment)]
    return [
        (name, getattr(there, name), getattr(here, name))
        for name in names
        if getattr(there, name) != getattr(here, name)
    ]
