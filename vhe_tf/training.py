"""Runs that can be killed at any moment and go on as if they had not been.

Nothing random has hidden state: episodes and seeds are functions of the step,
so that a checkpoint of weights, optimizer and metrics, and beside it the best
bound so far, are all there is. Files are written beside and renamed: none is
ever half there, whether a run is killed or the disk is full.

A model made within the scope of a `tf.distribute` strategy is trained on all
of its replicas. Each process calls the same functions; the chief alone writes.
"""

import contextlib
import functools
import json
import os
import pathlib
import tempfile
import time
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf._utils import atomic_io
from vhe_tf._utils.progress import status_line
from vhe_tf.checkpoint_folder import CheckpointFolder
from vhe_tf.data import sources
from vhe_tf.data.datasets.label_table import check_nested
from vhe_tf.data.datasets.records.recorded_images import DamagedRecordsError
from vhe_tf.data.datasets.records.recorded_images import damage_is_told
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.loop import Loop
from vhe_tf.models.vhe import VHE
from vhe_tf.stopping import stop_requests

__all__ = [
    "NonFiniteLossError",
    "Run",
    "RunError",
    "StoppedOnRequest",
    "WorkerLostError",
    "averaged_weights",
    "check_groupings",
    "check_layout",
    "check_unseen",
    "data_settings",
    "failures_end_quietly",
    "fit",
    "mistakes_end_quietly",
    "save_model",
    "tell_other_groups",
    "what_is_kept_is_told",
    "write_json",
]


# What may be said of a checkpoint that is whole, on a bad day.
_NOT_DAMAGE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)


# In config.json, beside the settings.
_GROUPS = "groups_checksum"


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite, or the validation bound NaN."""


class StoppedOnRequest(SystemExit):
    """The run was asked to stop, and did so where it can go on.

    It ends the program, as SIGTERM does, but with status 0.
    """


class RunError(ValueError):
    """A run cannot begin or go on in its folder as it was started."""


class WorkerLostError(RuntimeError):
    """Another machine of the run stopped."""


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


class Checkpoints(keras.callbacks.Callback):
    """Keeps the best model and checkpoints, and stops at a spoiled loss.

    There is a checkpoint of the last step of an epoch before anything is done
    at the epoch's end; once all of that is done, `epoch.json` says so. A run
    that is resumed between them does it again.

    Place it after the callback that adds `monitor` to the logs.

    Args:
        run: The run.
        model: The compiled model.
        monitor: The name in the epoch's logs of a bound to maximise.
        steps_per_epoch: Steps in an epoch.

    Attributes:
        best: The best bound so far.
        ended_step: The last step at which the end of an epoch was done.
    """

    def __init__(
        self, run: Run, model: VHE, *, monitor: str, steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.run = run
        self.monitor = monitor
        self.steps_per_epoch = steps_per_epoch
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        self._chief = distribute.is_chief(model.distribute_strategy)
        self.best = -np.inf
        self.ended_step = 0
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
        self._restored: str | None = None
        self._logs: Mapping[str, Any] = {}
        folder = run.checkpoints
        if not self._chief:
            # To save is to add up the metrics of all workers: all take part.
            self._scratch = tempfile.TemporaryDirectory()
            folder = pathlib.Path(self._scratch.name)
        self._folder = CheckpointFolder(folder)

    @property
    def step(self) -> int:
        """The number of steps that the run has taken."""
        return int(self._step.numpy())

    def restore(self) -> None:
        """Restores the latest checkpoint, if any.

        One that is damaged is named, and the one before it is restored.

        Raises:
            RunError: If there are checkpoints and none can be read, or
                `epoch.json` has been taken from beside them.
        """
        damage = []
        for path in CheckpointFolder(self.run.checkpoints).paths():
            try:
                self._read(path)
            except _NOT_DAMAGE:
                raise
            except (tf.errors.OpError, IndexError) as error:
                reason = str(error).partition("\n")[0]
                damage.append(f"{path} cannot be read ({reason}).")
                continue
            if damage:
                for line in damage:
                    print(f"{line} The one before it can.", flush=True)
                if self._chief:
                    self._folder.forget_later(self.step)
            self._restored = path
            self._saved_step = self.step
            self._read_epoch(path)
            break
        else:
            if damage:
                raise RunError(
                    f"No checkpoint can be read: {' '.join(damage)} Put back "
                    "copies of these files, or delete "
                    f"{self.run.checkpoints} to begin anew."
                )
        self._write_epoch()

    def _read(self, path: str) -> None:
        status = tf.train.Checkpoint(**self._state).read(path)
        status.assert_existing_objects_matched()
        self._read_metrics(path)

    def _read_metrics(self, path: str) -> None:
        checkpoint = tf.train.Checkpoint(metrics=self._metrics)
        checkpoint.read(path).expect_partial()

    def position(self) -> tuple[int, int]:
        """Returns the epoch that the run is in, and how many steps of it."""
        epoch, taken = divmod(self.step, self.steps_per_epoch)
        if not taken and self.ended_step < self.step:
            return epoch - 1, self.steps_per_epoch  # all but its end
        return epoch, taken

    def save(self) -> None:
        """Saves a checkpoint of this step, unless there is one.

        Raises:
            NonFiniteLossError: If the weights are not finite.
            NotWrittenError: If it cannot be written.
        """
        if self.step == self._saved_step:
            return
        weights = self.model.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            # The last step spoiled them.
            raise self._not_finite("model", self._logs)
        checkpoint = tf.train.Checkpoint(**self._state, metrics=self._metrics)
        self._folder.write(checkpoint, self.step)
        self._saved_step = self.step

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Goes on with the means of an epoch that was left within."""
        if self._restored and self.position()[1]:
            # They have just been reset.
            self._read_metrics(self._restored)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Counts the step, stops at a loss that is not finite, and saves."""
        self._step.assign_add(1)
        self._logs = logs or {}
        # The running mean of the epoch, which any bad step spoils.
        if not np.isfinite(float(self._logs["loss"])):
            raise self._not_finite("loss", self._logs)
        if self.step % self.steps_per_epoch == 0:
            self.save()

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Saves the model if it is the best; then the epoch's end is done."""
        value = float((logs or {})[self.monitor])
        if np.isnan(value):  # no bound would ever be better
            raise self._not_finite("validation bound", logs or {})
        if value > self.best:
            if self._chief:
                with averaged_weights(self.model):
                    save_model(self.model, self.run.best)
            self.best = value
        self.ended_step = self.step
        self._write_epoch()

    def _read_epoch(self, checkpoint: str) -> None:
        path = self.run.checkpoints / "epoch.json"
        if path.exists():
            epoch = json.loads(path.read_text(encoding="utf-8"))
            self.ended_step = epoch["step"]
            self.best = -np.inf if epoch["best"] is None else epoch["best"]
            return
        # Earlier versions had it in the checkpoint, saved when all was done.
        reader = tf.train.load_checkpoint(checkpoint)
        key = "best/.ATTRIBUTES/VARIABLE_VALUE"
        if not reader.has_tensor(key):
            raise RunError(
                f"{path} belongs to the checkpoints beside it and is missing; "
                "put it back, or delete that folder to begin anew."
            )
        self.ended_step = self.step
        self.best = float(reader.get_tensor(key))

    def _write_epoch(self) -> None:
        if self._chief:
            self.run.checkpoints.mkdir(exist_ok=True)
            best = self.best if np.isfinite(self.best) else None
            write_json(
                self.run.checkpoints / "epoch.json",
                {"step": self.ended_step, "best": best},
            )

    def _not_finite(
        self, what: str, logs: Mapping[str, Any]
    ) -> NonFiniteLossError:
        terms = ", ".join(f"{k}={float(v):.6g}" for k, v in logs.items())
        return NonFiniteLossError(
            f"The {what} is not finite at step {self.step}; means "
            f"over the epoch so far: {terms}. The last good checkpoint is "
            f"{self.run.latest}. Lower the learning rate or the clipping norm, "
            "and start in another folder."
        )


class Progress(keras.callbacks.Callback):
    """Shows where a run is: a line that rewrites itself, one more an epoch.

    Unlike Keras' bar, it fits a terminal of 80 columns, which a bar with a
    metric for every latent does not, and then cannot rewrite itself.

    Args:
        steps_per_epoch: Steps in an epoch.
        epochs: Epochs in the whole run.
    """

    def __init__(self, steps_per_epoch: int, epochs: int) -> None:
        super().__init__()
        self._steps_per_epoch = steps_per_epoch
        self._epochs = epochs
        self._epoch = 0
        self._done_before = 0
        self._start = 0.0
        self._line = contextlib.ExitStack()

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Starts the line of an epoch."""
        self._epoch = epoch
        self._done_before = -1
        self._start = time.monotonic()
        self._show = self._line.enter_context(status_line())
        self._show(f"epoch {epoch + 1}/{self._epochs}: starting")

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Sees how many steps an earlier process has taken."""
        if self._done_before < 0:
            self._done_before = batch

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Rewrites the line."""
        done = batch + 1
        seconds = time.monotonic() - self._start
        seconds_a_step = seconds / (done - self._done_before)
        left = seconds_a_step * (self._steps_per_epoch - done)
        filled = 20 * done // self._steps_per_epoch
        self._show(
            f"epoch {self._epoch + 1}/{self._epochs} "
            f"[{'=' * filled}{'.' * (20 - filled)}] "
            f"{done}/{self._steps_per_epoch}, {left:.0f} s left, "
            f"bound {float((logs or {})['elbo']):.2f}"
        )

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Writes what the epoch came to."""
        self.close()
        seconds = time.monotonic() - self._start
        values = ", ".join(
            f"{name} {float(value):.4g}"
            for name, value in (logs or {}).items()
            if name in ("elbo", "val_elbo", "log_likelihood")
            or name.startswith(("kl_", "accuracy_", "joint_nll"))
        )
        print(
            f"epoch {epoch + 1}/{self._epochs}, {seconds:.0f} s: {values}",
            flush=True,
        )

    def close(self) -> None:
        """Leaves the line to others."""
        self._line.close()


class Validation(keras.callbacks.Callback):
    """Adds the bound on held-out groups to the logs, averaged weights in.

    Args:
        evaluate: Returns the metrics of the model by name.
        prefix: Put before the names of the metrics.
    """

    def __init__(
        self,
        evaluate: Callable[[], Mapping[str, float]],
        *,
        prefix: str = "val_",
    ) -> None:
        super().__init__()
        self._evaluate = evaluate
        self._prefix = prefix

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Evaluates the bound."""
        with averaged_weights(self.model):
            values = self._evaluate()
        if logs is not None:
            logs.update({self._prefix + k: v for k, v in values.items()})


def fit(
    model: VHE,
    run: Run,
    train: Episodes,
    validation: Episodes,
    *,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    validation_steps: int = 20,
) -> None:
    """Trains a compiled model, from where its run was left.

    On SIGTERM it finishes the step that it is in (at the end of an epoch, the
    callback), saves a checkpoint of that very step and raises
    `StoppedOnRequest`; the same `fit` goes on from there. That holds in the
    main thread of a program; elsewhere SIGTERM does what it always does. Of
    several machines all stop, together, with a step after one was asked to.

    Args:
        model: The compiled model.
        run: The run; its `best` and `last` models are written.
        train: The episodes to train on.
        validation: The episodes, of other groups, that choose the best model.
        epochs: The number of reporting intervals of the whole run.
        steps_per_epoch: Optimizer steps in each.
        callbacks: Measure and show; called after validation, by the chief
            alone.
        validation_steps: Batches of the validation episodes.

    Raises:
        DamagedRecordsError: If an image on disk cannot be read.
        NonFiniteLossError: If the loss becomes NaN or infinite, or the
            validation bound NaN.
        NotWrittenError: If something cannot be written, as on a full disk. The
            last good checkpoint is whole, and nothing else is half there.
        StoppedOnRequest: If SIGTERM came.
        RunError: If another process trains in the folder; if there are
            checkpoints and none can be read; if machines do not see the same
            checkpoints, or have other settings or data.
        ValueError: As `check_groupings` and `check_layout`.
        WorkerLostError: If another machine stopped. The same `fit` on all of
            them goes on from the last checkpoint.
    """
    strategy = model.distribute_strategy
    for sampler in (train, validation):
        check_groupings(model, sampler.data)
        check_layout(model, sampler.batch_size)
    chief = distribute.is_chief(strategy)
    with (
        contextlib.ExitStack() as stack,
        what_is_kept_is_told(run),
        stop_requests() as asked,
    ):
        if chief:
            stack.enter_context(_alone_in(run.folder))
            run.begin()
        checkpoints = Checkpoints(
            run, model, monitor="val_elbo", steps_per_epoch=steps_per_epoch
        )
        checkpoints.restore()
        loop = Loop(model, asked)
        validate = functools.partial(
            loop.evaluate,
            distribute.split(strategy, validation.dataset),
            steps=validation_steps,
        )
        first_epoch, first_step = checkpoints.position()
        progress = Progress(steps_per_epoch, epochs)
        with (
            _lost_workers_are_told(strategy, run),
            damage_is_told(),
            contextlib.closing(progress),
        ):
            _check_all_agree(checkpoints, [train, validation], strategy)
            if checkpoints.step:
                print(
                    f"Going on from step {checkpoints.step} of {run.folder}.",
                    flush=True,
                )
            done = loop.fit(
                distribute.split(
                    strategy, functools.partial(train.dataset, checkpoints.step)
                ),
                callbacks=[
                    Validation(validate),
                    *(callbacks if chief else []),
                    checkpoints,
                    *([progress] if chief else []),
                ],
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                first_epoch=first_epoch,
                first_step=first_step,
            )
            if not done:
                checkpoints.save()
        if done and chief:
            save_model(model, run.last)
        if asked() or not done:
            print(
                f"Stopped on request at step {checkpoints.step} of "
                f"{run.folder}; the same command goes on.",
                flush=True,
            )
            raise StoppedOnRequest


@contextlib.contextmanager
def _alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Raises a RunError if another process trains in a folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(atomic_io.locked(folder / ".lock"))
        except BlockingIOError as error:
            raise RunError(
                f"Another process trains in {folder}; wait for its end, end "
                "it, or name another folder."
            ) from error
        except OSError:
            pass  # a file system without locks: nobody can tell
        yield


def _check_all_agree(
    checkpoints: Checkpoints,
    samplers: Sequence[Episodes],
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises a RunError if other machines have another run."""
    if not distribute.has_several_machines(strategy):
        return
    here = [
        float(checkpoints.step),
        float(checkpoints.ended_step),
        float(_checksum(checkpoints.run.config, samplers)),
    ]

    @tf.function
    def mean() -> Any:
        return strategy.run(
            lambda: distribute.mean(tf.constant(here, tf.float64))
        )

    found = strategy.experimental_local_results(mean())[0].numpy().tolist()
    if found[:2] != here[:2]:
        raise RunError(
            "The machines of a run must all see its folder, on storage that "
            f"they share. Received: step {checkpoints.step} here, another "
            "elsewhere."
        )
    if found != here:
        raise RunError(
            "The machines of a run must all have the same settings and the "
            "same data. Received: others here than elsewhere; the settings "
            f"here are {json.dumps(checkpoints.run.config)}, and there are "
            f"{len(samplers[0].data):,} images to train on."
        )


def _checksum(config: Mapping[str, Any], samplers: Sequence[Episodes]) -> int:
    """Returns a number that tells settings and data of a run from others."""
    value = zlib.crc32(json.dumps(config, sort_keys=True).encode("utf-8"))
    for sampler in samplers:
        for name, labels in sorted(sampler.data.labels.items()):
            value = zlib.crc32(name.encode("utf-8"), value)
            value = zlib.crc32(labels.tobytes(), value)
    return value


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


@contextlib.contextmanager
def _lost_workers_are_told(
    strategy: tf.distribute.Strategy, run: Run
) -> Iterator[None]:
    """Raises a WorkerLostError where another machine of the run stops."""
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.UnavailableError,
    ) as error:
        if not distribute.has_several_machines(strategy):
            raise
        raise WorkerLostError(
            "Another machine of this run stopped, or cannot be reached. Start "
            "the same command on all of them: the run goes on from "
            f"{run.latest or 'its beginning'}."
        ) from error


def check_groupings(model: VHE, data: GroupedData) -> None:
    """Checks that data are grouped as the latents of a model are declared.

    Args:
        model: The model.
        data: The images.

    Raises:
        ValueError: If the data lack the grouping of a latent, or a group of a
            latent does not lie within one group of the latent's parent (a
            character in two alphabets).
    """
    for latent in model.latents:
        if latent.per_element:
            continue
        if latent.name not in data.labels:
            raise ValueError(
                f"Latent {latent.name!r} needs a grouping of that name: a "
                "group of images for each of its values. The data have "
                f"{sorted(data.labels)}."
            )
        for parent in latent.parents:
            check_nested(data, latent.name, parent)


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


def check_layout(model: VHE, batch_size: int) -> None:
    """Checks that a step can be taken on all replicas of a model's strategy.

    Args:
        model: The compiled model.
        batch_size: B, that of all replicas together.

    Raises:
        ValueError: If a batch cannot be split evenly, among the replicas or
            into the microbatches of each, or XLA is to compile a step of
            several replicas.
    """
    count = model.distribute_strategy.num_replicas_in_sync
    if batch_size % count:
        raise ValueError(
            "Every replica takes as many episodes as the others: the batch "
            f"size must be a multiple of their number, {count}. "
            f"Received: batch_size={batch_size}."
        )
    rows = batch_size // count
    if rows % model.accumulation:
        raise ValueError(
            "The episodes of a replica are split evenly into `accumulation` "
            f"microbatches: {rows} must be a multiple of it. Received: "
            f"accumulation={model.accumulation} with batch_size={batch_size} "
            f"on {count} replicas."
        )
    if count > 1 and model.jit_compile:
        raise ValueError(
            "XLA cannot compile a step of several replicas; leave "
            "`jit_compile` off, or train on one device. "
            f"Received: jit_compile=True with {count} replicas."
        )


@contextlib.contextmanager
def averaged_weights(model: VHE) -> Iterator[None]:
    """Lends a model the running average of its weights (Polyak averaging).

    Does nothing where the optimizer keeps none (`use_ema=False`) or has not
    taken a step.
    """
    # Mixed precision wraps the optimizer that keeps the averages.
    optimizer: Any = getattr(
        model.optimizer, "inner_optimizer", model.optimizer
    )
    if not optimizer.use_ema or not int(optimizer.iterations.numpy()):
        yield
        return
    raw = [variable.numpy() for variable in model.trainable_variables]
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(
        model.trainable_variables, averages, strict=True
    ):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, raw, strict=True):
            variable.assign(value)


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


def save_model(model: VHE, path: pathlib.Path) -> None:
    """Saves a model as a `.keras` file, whole or not at all.

    Only what inference needs: neither optimizer nor training settings.

    Raises:
        NotWrittenError: If it cannot be written.
    """
    bare = VHE.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    with atomic_io.beside(path) as partial:
        bare.save(partial)


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
