"""Scalars in TensorBoard."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from vhe_tf import distribute
from vhe_tf._utils import atomic_io

__all__ = ["EventFile", "Scalars", "steps_taken"]

# What a tag shows, by the beginning of the name of its metric.
_DESCRIPTIONS = {
    "elbo": "Evidence lower bound, nats per image. Higher is better.",
    "loss": "What training minimises, nats per image.",
    "log_likelihood": "Reconstruction term of the ELBO, nats per image.",
    "kl_": "KL divergence of a latent, nats: of the group, or, where the name "
    "ends in _scaled, its share per image, as in the ELBO.",
    "group_size": "Mean number of elements per group.",
    "accuracy": "Few-shot classification of unseen groups, a fraction.",
    "joint_nll": "Upper bound of -log p(X), nats per image, unseen groups.",
    "joint_effective": "Effective sample size of the joint NLL.",
    "conditional_nll": "-log p(x | D), nats per image, unseen groups.",
    "learning_rate": "Learning rate of the optimizer.",
}
# Names of metrics of unseen groups begin so.
_FEW_SHOT = ("accuracy", "joint_", "conditional_")
# Points of an epoch, of the metrics of training.
_POINTS = 20
# Bytes that the scalars of a point do not reach.
_SCALARS_SIZE = 2**16


@dataclasses.dataclass(eq=False)
class EventFile:
    """An event file of TensorBoard, made again if somebody deletes it.

    Args:
        folder: Path. Made if missing.
        suffix: String. The end of the file's name. Defaults to none.
        begin: Callable. Writes what each file begins with. Defaults to nothing.
    """

    folder: pathlib.Path
    _: dataclasses.KW_ONLY
    suffix: str = ""
    begin: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._writer: Any = None
        self._files: set[pathlib.Path] = set()

    def writer(self, size: int) -> Any:
        """Returns the writer, if there is room for so many bytes.

        Raises:
            NotWrittenError: If there is none, or the folder is read-only.
        """
        atomic_io.check_room(self.folder, size)
        if self._writer and not any(path.exists() for path in self._files):
            print(
                f"The event files in {self.folder} were deleted while a run "
                "wrote to them: earlier values are lost. The run continues "
                "with a new file.",
                flush=True,
            )
            self._writer = None
        if self._writer is None:
            earlier = set(self.folder.glob("events.*"))
            self._writer = tf.summary.create_file_writer(
                str(self.folder), filename_suffix=self.suffix
            )
            with self._writer.as_default(), tf.summary.record_if(True):
                self.begin()
            self._writer.flush()
            self._files = set(self.folder.glob("events.*")) - earlier
        return self._writer


class Scalars(keras.callbacks.Callback):
    """Writes training, validation and few-shot metrics, and the settings.

    As `keras.callbacks.TensorBoard` does, it writes what is measured on
    training and on validation data by one tag in the runs `train` and
    `validation`, so that a card shows both. It also writes several points
    within an epoch, each the mean since the one before, and what other
    callbacks add to the logs, all by training step. It continues after the run
    is resumed. The chief writes if several workers train.

    Args:
        folder: Path. Where the event files go: the settings here, the metrics
            in the subfolders `train` and `validation`.
        settings: Mapping. What HParams shows as the settings of the run.
            Defaults to none.
        name: String. What HParams calls the run. Defaults to a hash.

    Raises:
        NotWrittenError: By `fit`, if the disk is full or the folder read-only.

    Example:
    >>> import tempfile
    >>> scalars = Scalars(tempfile.mkdtemp())
    >>> history = model.fit(data, steps_per_epoch=1, verbose=0,
    ...                     callbacks=[scalars])
    >>> len(list(scalars.folder.glob("train/events.*")))
    1
    """

    reads_lazily = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder).expanduser()
        self.settings = dict(settings or {})
        self.name = name
        self._files: dict[str, EventFile] = {}
        self._epoch = 0
        self._taken = 0  # steps of the epoch
        # Steps of the epoch, and running means, at the last point within it.
        self._last_point: tuple[int, dict[str, float]] = (0, {})

    def on_train_begin(self, logs: Any = None) -> None:
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        self._files = {
            run: EventFile(self.folder / run) for run in ("train", "validation")
        }
        if self.settings:
            settings = EventFile(self.folder, begin=self._write_settings)
            self._files["settings"] = settings
        for file in self._files.values():
            file.writer(_SCALARS_SIZE)

    def _write_settings(self) -> None:
        hparams.hparams_config(
            hparams=[hparams.HParam(name) for name in self.settings],
            metrics=[
                hparams.Metric(
                    "episodes/elbo", group="validation", display_name="elbo"
                )
            ],
        )
        hparams.hparams(
            {
                name: value
                if isinstance(value, bool | int | float)
                else str(value)
                for name, value in self.settings.items()
            },
            trial_id=self.name,
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._taken, self._last_point = epoch, 0, (0, {})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._taken = batch + 1
        steps = self.params["steps"]
        # A resumed run repeats the end of an epoch, but not its last step.
        if not self._files or steps is None or self._taken == steps:
            return
        if self._taken * _POINTS // steps == batch * _POINTS // steps:
            return
        means = {name: float(value) for name, value in (logs or {}).items()}
        values = self._since_last_point(means)
        self._last_point = (self._taken, means)
        self._write(values, self._epoch * steps + self._taken)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._files:
            values = self._since_last_point(logs or {})
            self._write(values, steps_taken(self, epoch))

    def _since_last_point(self, means: Mapping[str, Any]) -> dict[str, Any]:
        """Returns means since the last point from means of the epoch."""
        before, earlier = self._last_point
        steps = self._taken - before
        return {
            name: (self._taken * mean - before * earlier[name]) / steps
            if steps and name in earlier
            else mean
            for name, mean in means.items()
        }

    def _write(self, values: Mapping[str, Any], step: int) -> None:
        """Writes metrics, each to the event file of its run."""
        if "settings" in self._files:
            # Made again if somebody deleted it.
            self._files["settings"].writer(_SCALARS_SIZE)
        by_run: dict[str, dict[str, Any]] = {"train": {}, "validation": {}}
        for name, value in values.items():
            unseen = name.startswith(("val_", *_FEW_SHOT))
            by_run["validation" if unseen else "train"][name] = value
        if by_run["train"]:
            rate = self.model.optimizer.learning_rate
            by_run["train"]["learning_rate"] = rate
        for run, metrics in by_run.items():
            if not metrics:
                continue
            writer = self._files[run].writer(_SCALARS_SIZE)
            # Keras' own callback leaves `record_if` set.
            with writer.as_default(), tf.summary.record_if(True):
                for name, value in metrics.items():
                    _write(name.removeprefix("val_"), value, step)
            writer.flush()


def _write(name: str, value: Any, step: int) -> None:
    description = next(
        (
            text
            for beginning, text in _DESCRIPTIONS.items()
            if name.startswith(beginning)
        ),
        None,
    )
    # TensorBoard groups cards by what is before the slash.
    part = "episodes"
    if name.startswith(_FEW_SHOT):
        part = "few_shot"
    elif name == "learning_rate":
        part = "optimizer"
    tf.summary.scalar(
        f"{part}/{name}", value, step=step, description=description
    )


def steps_taken(callback: keras.callbacks.Callback, epoch: int) -> int:
    """Returns the number of steps that a run has taken at an epoch's end."""
    steps = callback.params["steps"]
    if steps is None:  # without those that mixed precision has skipped
        return int(callback.model.optimizer.iterations.numpy())
    return (epoch + 1) * int(steps)
