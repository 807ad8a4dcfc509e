"""Scalars in TensorBoard."""

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
# Bytes that the scalars of an epoch do not reach.
_SCALARS_SIZE = 2**16


class EventFile:
    """An event file of TensorBoard, made again if somebody deletes it.

    Args:
        folder: Path. Made if missing.
        suffix: String. The end of the file's name. Defaults to none.
        begin: Callable. Writes what each file begins with. Defaults to nothing.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        suffix: str = "",
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.suffix = suffix
        self.begin = begin
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
    """Writes the logs of each epoch and the settings of the run.

    Unlike `keras.callbacks.TensorBoard`, it also writes what other callbacks
    add to the logs, by training step, and continues after the run is resumed.
    The chief writes if several workers train.

    Args:
        folder: Path. Where the event files go.
        settings: Mapping. What HParams shows as the settings of the run, in
            this order. Defaults to none.
        name: String. What HParams calls the run. Defaults to a hash.

    Raises:
        NotWrittenError: By `fit`, if the disk is full or the folder read-only.

    Example:
    >>> import tempfile
    >>> import numpy as np
    >>> import vhe_tf
    >>> model = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    >>> model.compile("adam")
    >>> images = np.stack([np.eye(8)[..., None]] * 20)
    >>> labels = np.arange(20) // 5
    >>> scalars = vhe_tf.callbacks.Scalars(tempfile.mkdtemp())
    >>> history = model.fit(images, labels, steps_per_epoch=1, verbose=0,
    ...                     callbacks=[scalars])
    >>> len(list(scalars.folder.glob("events.*")))
    1
    """

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
        self._file: EventFile | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        self._file = EventFile(self.folder, begin=self._write_settings)
        self._file.writer(_SCALARS_SIZE)

    def _write_settings(self) -> None:
        if self.settings:
            hparams.hparams_config(
                hparams=[hparams.HParam(name) for name in self.settings],
                metrics=[hparams.Metric("validation/elbo")],
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

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._file is None:
            return
        writer = self._file.writer(_SCALARS_SIZE)
        step = steps_taken(self, epoch)
        # Keras' own callback leaves `record_if` set.
        with writer.as_default(), tf.summary.record_if(True):
            for name, value in (logs or {}).items():
                _write(name, value, step)
            _write("learning_rate", self.model.optimizer.learning_rate, step)
        writer.flush()


def _write(name: str, value: Any, step: int) -> None:
    description = next(
        (
            text
            for beginning, text in _DESCRIPTIONS.items()
            if name.removeprefix("val_").startswith(beginning)
        ),
        None,
    )
    tf.summary.scalar(_tag(name), value, step=step, description=description)


def _tag(name: str) -> str:
    """Returns the tag of a metric of the logs."""
    if name.startswith(("accuracy", "joint_", "conditional_")):
        return f"few_shot/{name}"
    if name.startswith("val_"):
        return f"validation/{name.removeprefix('val_')}"
    return f"train/{name}"


def steps_taken(callback: keras.callbacks.Callback, epoch: int) -> int:
    """Returns the number of steps that a run has taken at an epoch's end."""
    steps = callback.params["steps"]
    if steps is None:  # without those that mixed precision has skipped
        return int(callback.model.optimizer.iterations.numpy())
    return (epoch + 1) * int(steps)
