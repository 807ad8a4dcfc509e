"""Runs that can be killed at any moment and go on as if they had not been.

Nothing random has hidden state: episodes and seeds are functions of the step,
so a checkpoint of weights, optimizer and the best bound so far is all there
is. Files are written beside and renamed: none is ever half there.

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
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import replicas
from vhe_tf.data.episodes import EpisodeSampler
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.label_table import check_nested
from vhe_tf.models.vhe import VHE
from vhe_tf.progress import status_line
from vhe_tf.worker_loop import WorkerLoop

__all__ = [
    "NonFiniteLossError",
    "Run",
    "WorkerLostError",
    "averaged_weights",
    "check_groupings",
    "check_layout",
    "data_settings",
    "fit",
    "mistakes_end_quietly",
    "save_model",
    "write_json",
]


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


class WorkerLostError(RuntimeError):
    """Another machine of the run stopped."""


class Run:
    """A folder that holds one training run.

        config.json        what was asked for
        checkpoints/       weights, optimizer, best bound: to resume from
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
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = dict(config)
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
    def tensorboard(self) -> pathlib.Path:
        """Where TensorBoard's files are."""
        return self.folder / "tensorboard"

    @property
    def pictures(self) -> pathlib.Path:
        """Where the pictures are."""
        return self.folder / "pictures"

    def begin(self) -> None:
        """Writes the settings, once all that may refuse them has passed."""
        write_json(self.folder / "config.json", self.config)

    def _check_config(self) -> None:
        if not (self.checkpoints / "checkpoint").exists():
            return
        path = self.folder / "config.json"
        if not path.exists():
            raise ValueError(
                f"{self.folder} holds checkpoints of a run without its "
                "config.json; name another folder, or delete this one."
            )
        earlier = json.loads(path.read_text(encoding="utf-8"))
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

    Place it after the callback that adds `monitor` to the logs.

    Args:
        run: The run.
        model: The compiled model.
        monitor: The name in the epoch's logs of a bound to maximise.
    """

    def __init__(self, run: Run, model: VHE, *, monitor: str) -> None:
        super().__init__()
        self.run = run
        self.monitor = monitor
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        self._chief = replicas.is_chief(model.distribute_strategy)
        self.best = tf.Variable(-np.inf, dtype=tf.float64, trainable=False)
        # Not `optimizer.iterations`, which leaves out the steps that mixed
        # precision skips.
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        folder = run.checkpoints
        if not self._chief:
            # To save is to add up the metrics of all workers: all take part.
            self._scratch = tempfile.TemporaryDirectory()
            folder = pathlib.Path(self._scratch.name)
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                model=model,
                optimizer=model.optimizer,
                best=self.best,
                step=self.step,
            ),
            folder,
            max_to_keep=2,
        )

    @property
    def latest(self) -> str | None:
        """The last good checkpoint, or None."""
        latest: str | None = tf.train.latest_checkpoint(self.run.checkpoints)
        return latest

    def restore(self, model: VHE) -> int:
        """Restores the latest checkpoint, if any; returns its step."""
        if self.latest:
            status = self._manager.checkpoint.restore(self.latest)
            status.assert_existing_objects_matched()
        return int(self.step.numpy())

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Counts the step, and stops at a loss that is not finite."""
        self.step.assign_add(1)
        # The running mean of the epoch, which any bad step spoils.
        if not np.isfinite(float((logs or {})["loss"])):
            raise self._not_finite("loss", logs or {})

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Saves the model if it is the best, then the checkpoint."""
        value = float((logs or {})[self.monitor])
        weights = self.model.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            # The last step of the epoch spoiled them.
            raise self._not_finite("model", logs or {})
        if value > float(self.best.numpy()):
            if self._chief:
                with averaged_weights(self.model):
                    save_model(self.model, self.run.best)
            self.best.assign(value)
        # Last: whatever a kill interrupts before is done again on resume.
        self._manager.save(int(self.step.numpy()))

    def _not_finite(
        self, what: str, logs: Mapping[str, Any]
    ) -> NonFiniteLossError:
        terms = ", ".join(f"{k}={float(v):.6g}" for k, v in logs.items())
        return NonFiniteLossError(
            f"The {what} is not finite at step {int(self.step.numpy())}; means "
            f"over the epoch so far: {terms}. The last good checkpoint is "
            f"{self.latest}. Lower the learning rate or the clipping norm, and "
            "start in another folder."
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
        self._start = 0.0

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Starts the line of an epoch."""
        self._epoch = epoch
        self._start = time.monotonic()
        self._line = contextlib.ExitStack()
        self._show = self._line.enter_context(status_line())
        self._show(f"epoch {epoch + 1}/{self._epochs}: starting")

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Rewrites the line."""
        done = batch + 1
        seconds = time.monotonic() - self._start
        left = seconds / done * (self._steps_per_epoch - done)
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
        self._line.close()
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
    train: EpisodeSampler,
    validation: EpisodeSampler,
    *,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    validation_steps: int = 20,
) -> None:
    """Trains a compiled model, from where its run was left.

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
        NonFiniteLossError: If the loss becomes NaN or infinite.
        ValueError: As `check_groupings` and `check_layout`, and if machines
            do not see the same checkpoints.
        WorkerLostError: If another machine stopped. The same `fit` on all of
            them goes on from the last checkpoint.
    """
    strategy = model.distribute_strategy
    for sampler in (train, validation):
        check_groupings(model, sampler.data)
        check_layout(model, sampler.batch_size)
    progress = [Progress(steps_per_epoch, epochs)]
    if replicas.is_chief(strategy):
        run.begin()
    else:
        callbacks, progress = [], []
    checkpoints = Checkpoints(run, model, monitor="val_elbo")
    first_step = checkpoints.restore(model)
    if first_step:
        print(f"Going on from step {first_step} of {run.folder}.", flush=True)
    fit_model, evaluate = _loops(model)
    validate = functools.partial(
        evaluate,
        replicas.split(strategy, validation.dataset()),
        steps=validation_steps,
    )
    with _lost_workers_are_told(strategy, checkpoints):
        _check_all_begin_at(first_step, strategy)
        fit_model(
            replicas.split(strategy, train.dataset(first_step)),
            initial_epoch=first_step // steps_per_epoch,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            callbacks=[
                Validation(validate),
                *callbacks,
                checkpoints,
                *progress,
            ],
        )
    if replicas.is_chief(strategy):
        save_model(model, run.last)


def _loops(model: VHE) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns what fits and what evaluates a model."""
    if _has_several_machines(model.distribute_strategy):
        loop = WorkerLoop(model)
        return loop.fit, loop.evaluate
    return (
        functools.partial(model.fit, shuffle=False, verbose=0),
        functools.partial(model.evaluate, return_dict=True, verbose=0),
    )


def _has_several_machines(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _check_all_begin_at(
    first_step: int, strategy: tf.distribute.Strategy
) -> None:
    """Raises a ValueError if other machines found other checkpoints."""
    if not _has_several_machines(strategy):
        return

    @tf.function
    def mean() -> Any:
        return strategy.run(
            lambda: replicas.mean(tf.constant(first_step, tf.float64))
        )

    found = strategy.experimental_local_results(mean())[0]
    if float(found) != first_step:
        raise ValueError(
            "The machines of a run must all see its folder, on storage that "
            f"they share. Received: step {first_step} here, another elsewhere."
        )


@contextlib.contextmanager
def _lost_workers_are_told(
    strategy: tf.distribute.Strategy, checkpoints: Checkpoints
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
        if not _has_several_machines(strategy):
            raise
        raise WorkerLostError(
            "Another machine of this run stopped, or cannot be reached. Start "
            "the same command on all of them: the run goes on from "
            f"{checkpoints.latest or 'its beginning'}."
        ) from error


def check_groupings(model: VHE, data: GroupedImages) -> None:
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


def check_layout(model: VHE, batch_size: int) -> None:
    """Checks that a step can be taken on all replicas of a model's strategy.

    Args:
        model: The compiled model.
        batch_size: B, that of all replicas together.

    Raises:
        ValueError: If a batch cannot be split evenly, or XLA is to compile a
            step of several replicas.
    """
    count = model.distribute_strategy.num_replicas_in_sync
    if batch_size % count:
        raise ValueError(
            "Every replica takes as many episodes as the others: the batch "
            f"size must be a multiple of their number, {count}. "
            f"Received: batch_size={batch_size}."
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


def save_model(model: VHE, path: pathlib.Path) -> None:
    """Saves a model as a `.keras` file, whole or not at all.

    Only what inference needs: neither optimizer nor training settings.
    """
    bare = VHE.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    beside = path.with_name(f".{path.stem}.partial.keras")
    bare.save(beside)
    os.replace(beside, path)


def data_settings(model: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns which data the run of a saved model used.

    Args:
        model: The .keras file, beside the `config.json` of its run; without
            that, what the trainer uses by default.

    Returns:
        `dataset`, `split`, `images` and `seed`: which classes are unseen; for
        styled images `num_styles` and `copies`, for photographs
        `skip_unreadable` instead of a recipe; `image_size` where it was given.
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
    if run.get("image_size"):
        height, width = run["image_size"].split("x")
        settings["image_size"] = int(height), int(width)
    return settings


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
