"""Fault-tolerant training with exact resumption."""

import collections
import contextlib
import json
import math
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
from vhe_tf._utils.json_files import read_json
from vhe_tf._utils.json_files import write_json
from vhe_tf._utils.validation import positive
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

# With a GPU, where a check waits for the step.
_STEPS_BETWEEN_CHECKS = 10

# Callbacks of Keras whose state is kept, and that state.
_OF_KERAS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)
_STATE_OF_KERAS = (
    "best",
    "best_epoch",
    "cooldown_counter",
    "stopped_epoch",
    "wait",
)


class _EpochEnd(tf.train.experimental.PythonState):
    """The state that the end of an epoch leaves, beside the model.

    Attributes:
        values: `step`, after which it was; `callbacks`, their state by name;
            `learning_rate`, if callbacks may change it; and `ended`, the number
            of epochs of a run that a callback ended before.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"step": 0, "callbacks": {}}

    @property
    def step(self) -> int:
        return int(self.values["step"])

    def serialize(self) -> str:
        return json.dumps(self.values)

    def deserialize(self, string_value: bytes) -> None:
        self.values = json.loads(string_value)


class ExactResume(keras.callbacks.Callback):
    """Saves checkpoints from which `VHE.fit` resumes bit for bit.

    Episodes and random seeds are functions of the step, so that weights,
    optimizer and metrics are the whole state of a run. There is a checkpoint
    of the last step of each epoch, saved before validation and other callbacks
    run, and one of the very step at which `Preemption` stops. `epoch.json` then
    records that the end of the epoch is done. Start the same `fit` with the
    same folder to resume, also within an epoch or within its end.

    The state of other callbacks is kept too: of `EarlyStopping`,
    `ModelCheckpoint` and `ReduceLROnPlateau`, and of those that have
    `get_state` and `set_state`. They are distinguished by their class
    and their attributes `name`, `monitor`, `path` and `filepath`. A run that a
    callback ended stays ended when it is started again with as many epochs.

    Checkpoints hold numbers alone: the program that resumes makes the model, so
    that layers of your own need no `get_config` for it, unlike for `BestModel`.

    If several workers train together, each saves, and the chief's files stay.

    Args:
        folder: Path. The folder of the checkpoints, made if missing. One
            process at a time trains in it.
        max_to_keep: Integer. Number of checkpoints kept. Defaults to 2.

    Attributes:
        step: Integer. Number of training steps of the run so far.

    Raises:
        NonFiniteLossError: By `fit`, if loss or weights are not finite.
        NotWrittenError: By `fit`, if it cannot write to the folder.
        RunError: By `fit`, if another process trains in the folder, none of
            its checkpoints can be read, or it has begun more epochs than are
            asked for.
        ValueError: By `fit`, if callbacks cannot be distinguished, or
            `EarlyStopping` restores weights that a resumed run would lack.

    Example:
    >>> import tempfile
    >>> resume = ExactResume(tempfile.mkdtemp())
    >>> history = model.fit(data, steps_per_epoch=2, verbose=0,
    ...                     callbacks=[resume])
    >>> resume.step
    2
    """

    reads_lazily = True

    def __init__(
        self, folder: str | os.PathLike[str], *, max_to_keep: int = 2
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder).expanduser()
        self.max_to_keep = positive("max_to_keep", max_to_keep)
        self._step: Any = None
        self._open = contextlib.ExitStack()

    @property
    def step(self) -> int:
        return 0 if self._step is None else int(self._step.numpy())

    def resume(
        self,
        model: keras.Model,
        *,
        epochs: int,
        steps_per_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> tuple[int, int]:
        """Restores the latest checkpoint, if any.

        One that is corrupt is named, and the one before it is restored.

        Args:
            model: `keras.Model`. A compiled model.
            epochs: Integer. Number of epochs of the whole run.
            steps_per_epoch: Integer. Number of steps in an epoch.
            callbacks: Sequence of callbacks. All callbacks of the training.

        Returns:
            The index of the epoch that the run is in, and how many of its steps
            are taken; all of them if only its end is not done. `(epochs, 0)` if
            a callback ended the run.
        """
        self._callbacks = self._by_name(callbacks)
        self._steps_per_epoch = steps_per_epoch
        self._chief = distribute.is_chief(model.distribute_strategy)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        # Not `optimizer.iterations`, which leaves out the steps that mixed
        # precision skips.
        with tf.device("CPU:0"):
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
        self._saved_step = self._checked_step = 0
        gpus = tf.config.list_physical_devices("GPU")
        self._steps_between_checks = _STEPS_BETWEEN_CHECKS if gpus else 1
        self._end = _EpochEnd()
        self._restored: str | None = None
        self._logs: Mapping[str, Any] = {}
        self._writes = CheckpointFolder(
            self._own_folder(), max_to_keep=self.max_to_keep
        )
        self._restore()
        self._check_epochs(epochs)
        if self._end.values.get("ended", 0) >= epochs:
            print(
                f"The run of {self.folder} ended at step {self.step}, when a "
                "callback stopped it. To train on, ask for more than "
                f"{self._end.values['ended']} epochs.",
                flush=True,
            )
            return epochs, 0
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
        self._check_loss()
        weights = self.model.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            raise self._not_finite("model")
        checkpoint = tf.train.Checkpoint(
            **self._state, metrics=self._metrics, epoch_end=self._end
        )
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
        # Last: `on_train_begin` of other callbacks may reset their state.
        self._restore_callbacks()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first_step = epoch * self._steps_per_epoch
        if self._restored and self._position()[1]:
            # They have just been reset.
            self._read_metrics(self._restored)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self._first_step + batch + 1
        self._step.assign(step)
        self._logs = logs or {}
        ends = step % self._steps_per_epoch == 0
        if ends or step - self._checked_step >= self._steps_between_checks:
            self._check_loss()
        if ends:
            self.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end.values = {
            "step": self.step,
            "callbacks": {
                name: _state_of(callback)
                for name, callback in self._callbacks.items()
            },
        }
        rate = self.model.optimizer.learning_rate
        if isinstance(rate, keras.Variable):  # no schedule
            self._end.values["learning_rate"] = float(
                keras.ops.convert_to_numpy(rate)
            )
        if self.model.stop_training:
            self.save()  # it may be within an epoch
            self._end.values["ended"] = self.params["epochs"]
        self._write_end()

    # Parts -------------------------------------------------------------------

    def _own_folder(self) -> pathlib.Path:
        if not self._chief:
            # To save is to add up the metrics of all workers: all take part.
            return pathlib.Path(
                self._open.enter_context(tempfile.TemporaryDirectory())
            )
        atomic_io.check_room(self.folder)
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
            self._read_end()
            break
        else:
            if corrupt:
                raise RunError(
                    f"No checkpoint can be read: {' '.join(corrupt)} Restore "
                    "these files from a copy, or delete "
                    f"{self.folder} to start from the beginning."
                )
        self._write_end()

    def _latest(self) -> str | None:
        return next(iter(CheckpointFolder(self.folder).paths()), None)

    def _position(self) -> tuple[int, int]:
        epoch, taken = divmod(self.step, self._steps_per_epoch)
        if not taken and self._end.step < self.step:
            return epoch - 1, self._steps_per_epoch  # all but its end
        return epoch, taken

    def _check_epochs(self, epochs: int) -> None:
        begun = -(-self.step // self._steps_per_epoch)
        if epochs < begun:
            raise RunError(
                f"The run of {self.folder} has begun epoch {begun}: `epochs` "
                f"must not be less. Received: epochs={epochs}."
            )

    def _read(self, path: str) -> None:
        self._read_into(path, **self._state, epoch_end=self._end)
        self._read_metrics(path)

    def _read_metrics(self, path: str) -> None:
        self._read_into(path, metrics=self._metrics, optional=True)

    def _read_into(
        self, path: str, *, optional: bool = False, **parts: Any
    ) -> None:
        folder, name = os.path.split(path)
        with atomic_io.plainly_named(pathlib.Path(folder)) as plain:
            try:
                status = tf.train.Checkpoint(**parts).read(str(plain / name))
                status.expect_partial()  # other parts are read elsewhere
                if not optional:
                    status.assert_existing_objects_matched()
            except (AssertionError, ValueError) as error:
                raise RunError(
                    f"{path} is a checkpoint of another model or optimizer. "
                    "Repeat the settings of its run, or use another folder."
                ) from error

    def _read_end(self) -> None:
        path = self.folder / "epoch.json"
        try:
            values = read_json(path)
            here = self._end.step <= values["step"] <= self.step
            if not isinstance(values["callbacks"], dict):
                raise TypeError("`callbacks` is not an object")
            for key in {"learning_rate", "ended"} & set(values):
                if not math.isfinite(values[key]):
                    raise TypeError(f"`{key}` is not finite")
        except FileNotFoundError:
            why = f"{path} is missing."
        except (KeyError, TypeError) as error:
            why = f"{path} is corrupt ({error!r})."
        except ValueError as error:
            why = str(error)
        else:
            if here:  # and not of a checkpoint that cannot be read
                self._end.values = values
            return
        # The checkpoint too has what it says of earlier epochs.
        print(
            f"{why} Without it, the end of the last epoch (validation and "
            "callbacks) may be done once more.",
            flush=True,
        )

    def _write_end(self) -> None:
        if self._chief:
            write_json(self.folder / "epoch.json", self._end.values)

    def _by_name(
        self, callbacks: Sequence[keras.callbacks.Callback]
    ) -> dict[str, Any]:
        """Returns the callbacks whose state is kept."""
        found: dict[str, list[Any]] = collections.defaultdict(list)
        for callback in callbacks:
            if getattr(callback, "restore_best_weights", False):
                raise ValueError(
                    "The weights that `EarlyStopping` restores are in memory, "
                    "and a resumed run would lack them. Use `BestModel` to "
                    "keep the best weights. Received: "
                    "restore_best_weights=True."
                )
            own = hasattr(callback, "get_state")
            if own or isinstance(callback, _OF_KERAS):
                found[self._name(callback)].append(callback)
        alike = [name for name, each in found.items() if len(each) > 1]
        if alike:
            raise ValueError(
                "Callbacks whose state is kept must not be alike in class, "
                "`name`, `monitor` and path: a resumed run cannot distinguish "
                "them. Set their attribute `name`. Received: several "
                f"{alike[0]}."
            )
        return {name: each for name, [each] in found.items()}

    def _name(self, callback: Any) -> str:
        own = {
            key: str(getattr(callback, key))
            for key in ("name", "monitor", "path", "filepath")
            if hasattr(callback, key)
        }
        for key in {"path", "filepath"} & set(own):
            if "://" not in own[key]:  # a run may be moved
                own[key] = os.path.relpath(own[key], self.folder)
        settings = ", ".join(f"{key}={value}" for key, value in own.items())
        return f"{type(callback).__name__}({settings})"

    def _restore_callbacks(self) -> None:
        values = self._end.values
        for name, state in values["callbacks"].items():
            if name not in self._callbacks:
                print(
                    f"The run of {self.folder} had the callback {name}. It "
                    "continues without.",
                    flush=True,
                )
                continue
            try:
                _set_state(self._callbacks[name], state)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise RunError(
                    f"The callback {name} cannot take the state that "
                    f"{self.folder / 'epoch.json'} or the checkpoint holds "
                    "for it. Restore this file, or delete it: the end of the "
                    "last epoch (validation and callbacks) is then done once "
                    f"more. Received: {state!r} ({error!r})."
                ) from error
        if "learning_rate" in values and values["step"] == self.step:
            # The checkpoint is of before the end of the epoch.
            self.model.optimizer.learning_rate = values["learning_rate"]

    def _check_loss(self) -> None:
        self._checked_step = self.step
        # The running mean of the epoch, which any bad step spoils.
        if not np.isfinite(float(self._logs.get("loss", 0.0))):
            raise self._not_finite("loss")

    def _not_finite(self, what: str) -> NonFiniteLossError:
        terms = ", ".join(f"{k}={float(v):.6g}" for k, v in self._logs.items())
        return NonFiniteLossError(
            f"The {what} is not finite at step {self.step}. Means over the "
            f"epoch so far: {terms}. The last good checkpoint is "
            f"{self._latest()}. Lower the learning rate or the clipping norm, "
            "and use another folder."
        )


def _state_of(callback: Any) -> Any:
    if hasattr(callback, "get_state"):
        return callback.get_state()
    return {
        name: value if isinstance(value, int | None) else float(value)
        for name in _STATE_OF_KERAS
        if hasattr(callback, name)
        for value in [getattr(callback, name)]
    }


def _set_state(callback: Any, state: Any) -> None:
    if hasattr(callback, "set_state"):
        callback.set_state(state)
        return
    for name, value in state.items():
        if name not in _STATE_OF_KERAS or not isinstance(
            value, int | float | None
        ):
            raise TypeError(f"{name!r} is {value!r}")
        setattr(callback, name, value)
