"""The folder of a training run, and what is known of its data."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from vhe_tf._utils import atomic_io
from vhe_tf.callbacks._checkpoint_folder import CheckpointFolder
from vhe_tf.data import sources
from vhe_tf.data.datasets.records.recorded_images import DamagedRecordsError
from vhe_tf.data.datasets.records.recorded_images import damage_is_told
from vhe_tf.errors import NonFiniteLossError
from vhe_tf.errors import RunError
from vhe_tf.errors import WorkerLostError

__all__ = [
    "Run",
    "check_unseen",
    "data_settings",
    "failures_end_quietly",
    "mistakes_end_quietly",
    "tell_other_groups",
    "what_is_kept_is_told",
    "write_json",
]

# In config.json, beside the settings.
_GROUPS = "groups_checksum"


class Run:
    """A folder that holds one training run.

        config.json        what was asked for, and a checksum of the groups
        checkpoints/       weights, optimizer, metrics; in epoch.json at which
                           step an epoch was last ended, and the best bound:
                           to resume from
        best.keras         the averaged weights with the best validation bound
        last.keras         the averaged weights at the end
        tensorboard/       scalars and pictures over time
        metrics.json       how good it is
        pictures/          PNG

    Args:
        folder: The folder, made where it is missing.
        config: What the run depends on, by name; JSON values.

    Raises:
        ValueError: If the folder holds checkpoints of a run with another
            `config`, or with none.
    """

    def __init__(
        self, folder: str | os.PathLike[str], config: Mapping[str, Any]
    ) -> None:
        self.folder = pathlib.Path(folder).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = dict(config)
        self._groups: str | None = None
        self._check_config()

    @property
    def best(self) -> pathlib.Path:
        """The model with the best validation bound."""
        return self.folder / "best.keras"

    @property
    def last(self) -> pathlib.Path:
        """The model at the end."""
        return self.folder / "last.keras"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    @property
    def latest(self) -> str | None:
        """The last checkpoint, or None."""
        return next(iter(CheckpointFolder(self.checkpoints).paths()), None)

    @property
    def tensorboard(self) -> pathlib.Path:
        """Where TensorBoard's files are."""
        return self.folder / "tensorboard"

    @property
    def pictures(self) -> pathlib.Path:
        """Where the pictures are."""
        return self.folder / "pictures"

    def begin(self) -> None:
        """Writes the settings, once all that may refuse them has passed.

        What a kill has left half written is removed first.
        """
        for folder in (self.folder, self.pictures):
            for path in folder.glob(".*.partial*"):
                path.unlink()
        CheckpointFolder(self.checkpoints).remove_leftovers()
        groups = {_GROUPS: self._groups} if self._groups else {}
        write_json(self.folder / "config.json", {**self.config, **groups})

    def check_groups(self, groups: str) -> None:
        """Refuses to go on where classes have come, gone or changed names.

        Which of them are unseen is drawn at random from all: others are now,
        some of which the run has trained on.

        Args:
            groups: The `Source.groups_checksum` of the data.

        Raises:
            RunError: If the run has begun with others.
        """
        self._groups = groups
        if self.latest and self._earlier().get(_GROUPS, groups) != groups:
            raise RunError(
                f"The run of {self.folder} began with other classes than the "
                "data have now, and may have trained on those that would be "
                "tested on. Put the data back as they were, or name another "
                "folder to begin anew."
            )

    def _earlier(self) -> dict[str, Any]:
        text = (self.folder / "config.json").read_text(encoding="utf-8")
        earlier: dict[str, Any] = json.loads(text)
        return earlier

    def _check_config(self) -> None:
        if not self.latest:
            return
        path = self.folder / "config.json"
        if not path.exists():
            raise ValueError(
                f"{self.folder} holds checkpoints of a run without its "
                "config.json; name another folder, or delete this one."
            )
        earlier = self._earlier()
        earlier.pop(_GROUPS, None)
        differences = [
            f"{key}: {earlier.get(key)!r} there, {self.config.get(key)!r} here"
            for key in sorted({*earlier, *self.config})
            if earlier.get(key) != self.config.get(key)
        ]
        if differences:
            raise ValueError(
                f"{self.folder} holds another run's checkpoints; name another "
                "folder, or repeat that run's settings to go on with it. "
                f"Different: {'; '.join(differences)}."
            )


@contextlib.contextmanager
def what_is_kept_is_told(run: Run) -> Iterator[None]:
    """Adds to a NotWrittenError what is whole, and how to go on.

    Full disks become such errors, whoever finds them full.
    """
    try:
        with atomic_io.full_disks_are_told():
            yield
    except atomic_io.NotWrittenError as error:
        kept = (
            f"The last good checkpoint, {run.latest}, is whole: make room (or "
            "mend what else is wrong), and the same command goes on from there."
            if run.latest
            else "There is no checkpoint yet: make room (or mend what else is "
            "wrong), and the same command begins anew."
        )
        raise atomic_io.NotWrittenError(f"{error} {kept}") from error


def tell_other_groups(
    model: str | os.PathLike[str], dataset: str, groups: str
) -> None:
    """Says so where data have other classes than those of a model's run.

    Args:
        model: The .keras file, beside the `config.json` of its run.
        dataset: The name of the data set. That folders and records are the
            run's own is taken for granted elsewhere; other data sets do not
            change.
        groups: The `Source.groups_checksum` of the data.
    """
    config = pathlib.Path(model).with_name("config.json")
    run = json.loads(config.read_text("utf-8")) if config.exists() else {}
    if dataset not in ("folder", "records") or run.get("dataset") != dataset:
        return
    if run.get(_GROUPS, groups) != groups:
        print(
            "The data have other classes than when the model was trained: "
            "whether it has been trained on classes that are tested on here "
            "cannot be told.",
            flush=True,
        )


@contextlib.contextmanager
def mistakes_end_quietly() -> Iterator[None]:
    """Ends the program with the message alone where a user's setting is wrong.

    For the setup of a script: settings, files and data. Errors from deeper
    down keep their traceback, since they are ours.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error


@contextlib.contextmanager
def failures_end_quietly() -> Iterator[None]:
    """Ends the program with the message alone where a run cannot go on.

    For the work of a script, in which any other error is ours.
    """
    try:
        with damage_is_told():
            yield
    except (
        DamagedRecordsError,
        NonFiniteLossError,
        RunError,
        WorkerLostError,
        atomic_io.NotWrittenError,
    ) as error:
        raise SystemExit(f"error: {error}") from error


def data_settings(model: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns which data the run of a saved model used.

    Args:
        model: The .keras file, beside the `config.json` of its run; without
            that, what the trainer uses by default.

    Returns:
        `dataset`, `split`, `images` and `seed`: which classes are unseen; for
        styled images `num_styles` and `copies`, for photographs `group`,
        `num_levels` and `skip_unreadable` instead of a recipe; `image_size`
        where it was given.
    """
    config = pathlib.Path(model).with_name("config.json")
    run = json.loads(config.read_text("utf-8")) if config.exists() else {}
    defaults = {
        "dataset": "omniglot",
        "split": "lake",
        "images": "binary",
        "seed": 0,
    }
    settings = {name: run.get(name, value) for name, value in defaults.items()}
    if "num_styles" in run:
        del settings["images"]
        settings |= {name: run[name] for name in ("num_styles", "copies")}
    if "skip_unreadable" in run:
        del settings["images"], settings["split"]
        settings["skip_unreadable"] = run["skip_unreadable"]
        # Older runs had no choice.
        settings["group"] = run.get("group", "person")
        settings["num_levels"] = run.get("num_levels", 256)
    # Records have a size of their own.
    if run.get("image_size") and settings["dataset"] != "records":
        height, width = run["image_size"].split("x")
        settings["image_size"] = int(height), int(width)
    return settings


def check_unseen(
    model: str | os.PathLike[str], settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Refuses a model that has seen classes that others are tested on.

    Where the model has no `config.json` of a trainer beside it, a line says
    that this cannot be told. A run that began with the weights of another one
    was held to this when it began, so that it is not followed back, but for
    one of another data set: that is not caught.

    Args:
        model: The .keras file of the model.
        settings: `dataset`, `split` and `seed` of the data to test on.

    Returns:
        The `data_settings` of the model's run, None where they are not known.

    Raises:
        ValueError: If the run of the model has trained on some of them.
    """
    config = pathlib.Path(model).with_name("config.json")
    if not config.exists() or "dataset" not in json.loads(
        config.read_text("utf-8")
    ):
        print(
            f"{model} has no config.json beside it that names its data: "
            "whether it has been trained on classes that are tested on here "
            "cannot be told.",
            flush=True,
        )
        return None
    trained = data_settings(model)
    if not sources.trained_on_test_classes(trained, settings):
        return trained
    there, here = (
        {name: of.get(name) for name in ("dataset", "split", "seed")}
        for of in (trained, settings)
    )
    raise ValueError(
        f"{model} was trained on classes that are tested on here (folders and "
        "records are taken to be the same ones). Take the split that it was "
        "trained on, where the split is random with its seed, or another "
        f"model. Its run: {there}; here: {here}."
    )


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        NotWrittenError: If it cannot be written.
    """
    text = json.dumps(values, indent=2) + "\n"
    with atomic_io.beside(path) as partial:
        partial.write_text(text, encoding="utf-8")
