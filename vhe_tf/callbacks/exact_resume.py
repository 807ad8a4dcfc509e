"""Fault-tolerant training with exact resumption."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf._utils import atomic_io
from vhe_tf.callbacks._checkpoint_folder import CheckpointFolder
from vhe_tf.callbacks._checkpoint_folder import alone_in
from vhe_tf.errors import NonFiniteLossError
from vhe_tf.errors import RunError

__all__ = ["ExactResume"]

# Transient I/O errors. They do not mean that the checkpoint is corrupt.
_TRANSIENT = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)


class ExactResume(keras.callbacks.Callback):
    """Saves checkpoints from which `VHE.fit` resumes bit for bit.

    Episodes and random seeds are functions of the step, so that weights,
    optimizer and metrics are the whole state of a run. There is a checkpoint
    of the last step of each epoch, saved before validation and other callbacks
    run, and one of the very step at which `Preemption` stops. `epoch.json` then
    records that the end of the epoch is done. Start the same `fit` with the
    same folder to resume, also within an epoch or within its end.

    Of other callbacks it keeps the state of those that have `get_state` and
    `set_state`. Those of Keras, such as `EarlyStopping`, start anew when a run
    is resumed.

    If several workers train together, each saves, and the chief's files stay.

    Args:
        folder: Path. The folder of the checkpoints, made if missing. One
            process at a time trains in it.
        max_to_keep: Integer. Number of checkpoints kept. Defaults to 2.

    Attributes:
        step: Integer. Number of training steps of the run so far.

    Raises:
        NonFiniteLossError: By `fit`, if loss or weights are not finite.
        RunError: By `fit`, if another process trains in the folder, or none of
            its checkpoints can be read.

    Example:
    >>> import tempfile
    >>> import numpy as np
    >>> import vhe_tf
    >>> from vhe_tf.callbacks import ExactResume
    >>> model = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    >>> model.compile("adam")
    >>> images = np.zeros((20, 8, 8, 1), "float32")
    >>> labels = np.arange(20) // 5
    >>> resume = ExactResume(tempfile.mkdtemp())
    >>> history = model.fit(images, labels, steps_per_epoch=2, verbose=0,
    ...                     callbacks=[resume])
    >>> resume.step
    2
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, max_to_keep: int = 2
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder).expanduser()
        self.max_to_keep = max_to_keep
        self._step: Any = None
        self._open = contextlib.ExitStack()

    @property
    def step(self) -> int:
        return 0 if self._step is None else int(self._step.numpy())

    def resume(
        self,
        model: keras.Model,
        *,
        steps_per_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> tuple[int, int]:
        """Restores the latest checkpoint, if any.

        One that is corrupt is named, and the one before it is restored.

        Args:
            model: A compiled model.
            steps_per_epoch: Integer. Number of steps in an epoch.
            callbacks: All callbacks of the training. The state of those that
                have `get_state` and `set_state` is saved and restored too.

        Returns:
            The index of the epoch that the run is in, and how many of its steps
            are taken; all of them if only its end is not done.
        """
        self._steps_per_epoch = steps_per_epoch
        self._chief = distribute.is_chief(model.distribute_strategy)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        # Not `optimizer.iterations`, which leaves out the steps that mixed
        # precision skips.
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._state = {
            "model": model,
            "optimizer": model.optimizer,
            "step": self._step,
        }
        self._metrics = [
            variable.value
            for metric in model.metrics
            for variable in metric.variables
        ]
        self._saved_step = 0
        self._ended_step = 0
        self._others: dict[str, Any] = {}
        self._restored: str | None = None
        self._logs: Mapping[str, Any] = {}
        self._writes = CheckpointFolder(
            self._own_folder(), max_to_keep=self.max_to_keep
        )
        found = [c for c in callbacks if hasattr(c, "get_state")]
        self._stateful = {
            f"{type(callback).__name__}_{index}": callback
            for index, callback in enumerate(found)
        }
        self._restore()
        for name in self._stateful.keys() & self._others.keys():
            self._stateful[name].set_state(self._others[name])
        if self.step:
            print(
                f"Resuming from step {self.step} of {self.folder}.", flush=True
            )
        return self._position()

    def save(self) -> None:
        """Saves a checkpoint of the present step, unless there is one.

        Raises:
            NonFiniteLossError: If the weights are not finite.
            NotWrittenError: If it cannot be written.
        """
        if self.step == self._saved_step:
            return
        weights = self.model.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            raise self._not_finite("model")
        checkpoint = tf.train.Checkpoint(**self._state, metrics=self._metrics)
        self._writes.write(checkpoint, self.step)
        self._saved_step = self.step

    def stopped(self) -> None:
        """Saves the step at which training was stopped on request."""
        self.save()
        print(
            f"Stopped on request at step {self.step} of {self.folder}. The "
            "same command resumes.",
            flush=True,
        )

    def kept(self) -> str:
        """Describes what the run can resume from."""
        latest = self._latest()
        if latest is None:
            return (
                "There is no checkpoint yet. Correct the cause, and start the "
                "same command again from the beginning."
            )
        return (
            f"The last checkpoint, {latest}, is intact. Correct the cause, and "
            "start the same command again to resume from it."
        )

    def close(self) -> None:
        """Lets other processes train in the folder."""
        self._open.close()

    # Callback hooks ----------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        if self._step is None:
            raise ValueError(
                "`ExactResume` works with the `fit` of a `VHE`, which restores "
                "the checkpoint and begins at its step. Received: a model of "
                f"type {type(self.model).__name__}."
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._restored and self._position()[1]:
            # They have just been reset.
            self._read_metrics(self._restored)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step.assign_add(1)
        self._logs = logs or {}
        # The running mean of the epoch, which any bad step spoils.
        if not np.isfinite(float(self._logs["loss"])):
            raise self._not_finite("loss")
        if self.step % self._steps_per_epoch == 0:
            self.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._ended_step = self.step
        self._others = {
            name: callback.get_state()
            for name, callback in self._stateful.items()
        }
        self._write_epoch()

    # Parts -------------------------------------------------------------------

    def _own_folder(self) -> pathlib.Path:
        if not self._chief:
            # To save is to add up the metrics of all workers: all take part.
            return pathlib.Path(
                self._open.enter_context(tempfile.TemporaryDirectory())
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open.enter_context(alone_in(self.folder))
        CheckpointFolder(self.folder).remove_leftovers()
        return self.folder

    def _restore(self) -> None:
        corrupt = []
        for path in CheckpointFolder(self.folder).paths():
            try:
                self._read(path)
            except _TRANSIENT:
                raise
            except (tf.errors.OpError, IndexError) as error:
                reason = str(error).partition("\n")[0]
                corrupt.append(f"{path} cannot be read ({reason}).")
                continue
            for line in corrupt:
                print(f"{line} Using the one before it.", flush=True)
            if corrupt and self._chief:
                self._writes.forget_later(self.step)
            self._restored = path
            self._saved_step = self.step
            self._read_epoch()
            break
        else:
            if corrupt:
                raise RunError(
                    f"No checkpoint can be read: {' '.join(corrupt)} Restore "
                    "these files from a copy, or delete "
                    f"{self.folder} to start from the beginning."
                )
        self._write_epoch()

    def _latest(self) -> str | None:
        return next(iter(CheckpointFolder(self.folder).paths()), None)

    def _position(self) -> tuple[int, int]:
        epoch, taken = divmod(self.step, self._steps_per_epoch)
        if not taken and self._ended_step < self.step:
            return epoch - 1, self._steps_per_epoch  # all but its end
        return epoch, taken

    def _read(self, path: str) -> None:
        try:
            status = tf.train.Checkpoint(**self._state).read(path)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise RunError(
                f"{path} is a checkpoint of another model or optimizer. Repeat "
                "the settings of its run, or use another folder."
            ) from error
        self._read_metrics(path)

    def _read_metrics(self, path: str) -> None:
        checkpoint = tf.train.Checkpoint(metrics=self._metrics)
        checkpoint.read(path).expect_partial()

    def _read_epoch(self) -> None:
        path = self.folder / "epoch.json"
        if not path.exists():
            raise RunError(
                f"{path} belongs to the checkpoints beside it and is missing. "
                "Restore it, or delete that folder to start from the beginning."
            )
        epoch = json.loads(path.read_text(encoding="utf-8"))
        self._ended_step = epoch["step"]
        self._others = epoch["callbacks"]

    def _write_epoch(self) -> None:
        if not self._chief:
            return
        epoch = {"step": self._ended_step, "callbacks": self._others}
        with atomic_io.beside(self.folder / "epoch.json") as partial:
            text = json.dumps(epoch, indent=2) + "\n"
            partial.write_text(text, encoding="utf-8")

    def _not_finite(self, what: str) -> NonFiniteLossError:
        terms = ", ".join(f"{k}={float(v):.6g}" for k, v in self._logs.items())
        return NonFiniteLossError(
            f"The {what} is not finite at step {self.step}. Means over the "
            f"epoch so far: {terms}. The last good checkpoint is "
            f"{self._latest()}. Lower the learning rate or the clipping norm, "
            "and use another folder."
        )
