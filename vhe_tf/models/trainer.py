"""`keras.Model.fit` for models that train on episodes."""

import contextlib
import functools
import json
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf._utils import atomic_io
from vhe_tf.data.datasets.records.recorded_images import name_corrupt_records
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.errors import RunError
from vhe_tf.errors import StoppedOnRequest
from vhe_tf.errors import WorkerLostError
from vhe_tf.models import _checks
from vhe_tf.models._fit_callbacks import EpisodeCallbacks
from vhe_tf.optimizers import ema_weights

__all__ = ["EpisodeTrainer", "Preempts", "Resumes"]

_BATCH_SIZE = 32
_VALIDATION_STEPS = 20
_STOP = "stop_requested"
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


@runtime_checkable
class Resumes(Protocol):
    """A callback that resumes runs, such as `callbacks.ExactResume`."""

    def resume(
        self,
        model: keras.Model,
        *,
        epochs: int,
        steps_per_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> tuple[int, int]:
        """Restores a run; returns its epoch, and the steps taken of that."""

    def stopped(self) -> None:
        """Saves the step at which training was stopped on request."""

    def kept(self) -> str:
        """Describes what a run that fails now can resume from."""


@runtime_checkable
class Preempts(Protocol):
    """A callback that stops runs on request: `callbacks.Preemption`."""

    requested: bool

    def open(self) -> None:
        """Listens to requests from now on."""


class EpisodeTrainer(keras.Model):
    """A `keras.Model` whose `fit` takes episodes and resumes at any step.

    One step is Keras' own on one device and under `MirroredStrategy`. With
    several workers, where `keras.Model.fit` of Keras 3.15 fails
    (https://github.com/keras-team/keras/issues/20585), the functions that
    `fit` calls run the same step through `strategy.run`.

    Subclasses have `latents` and `objective`, as `VHE` does.
    """

    latents: Any
    objective: Any
    accumulation: int
    train_function: Any
    test_function: Any

    _steps_to_skip = 0
    _preempts: Preempts | None = None
    _all_preempted = False

    # Training ----------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        validation_data: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        **options: Any,
    ) -> keras.callbacks.History:
        """Trains the model; see `keras.Model.fit`.

        Args:
            x: `Episodes`; or `GroupedImages`, of which episodes are made; or
                images `[M, H, W, C]` with their labels `y`; or a
                `tf.data.Dataset` of episodes.
            y: Integer array of shape `[M]`, or a mapping from the name of each
                group latent to one. Only with images.
            epochs: Integer. Number of epochs of the whole run. Defaults to 1.
            steps_per_epoch: Integer. Defaults to one pass over the elements of
                the episodes.
            validation_data: As `x`, or a pair `(images, labels)`. Evaluated
                with the EMA weights if the optimizer keeps them, and for
                Rescale by the VHE bound. Each validation sees the same
                `validation_steps` batches, 20 by default.
            callbacks: List of Keras callbacks. `callbacks.ExactResume` lets a
                run that was interrupted resume at its last step.
            **options: Passed on to `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If the episodes do not match the objective, the latents
                or the image shape of the model, or a batch cannot be split
                evenly among replicas and microbatches.
            NonFiniteLossError: If `ExactResume` finds a loss that is not
                finite.
            NotWrittenError: If a file cannot be written. The last checkpoint
                stays valid.
            StoppedOnRequest: If `Preemption` was asked to stop.
            RunError: If `ExactResume` cannot resume the run.
            WorkerLostError: If another worker stopped.

        Example:
        >>> history = model.fit(data.images, data.labels["character"],
        ...                     steps_per_epoch=1, verbose=0)
        >>> sorted(history.history)[:2]
        ['elbo', 'group_size_character']
        """
        self._assert_compile_called("fit")
        batch_size = options.pop("batch_size", None)
        _checks.check_fit_options(options)
        episodes = self._as_episodes(x, y, batch_size)
        options["validation_data"] = self._validation_data(
            validation_data, batch_size, options
        )
        options.setdefault("shuffle", False)
        called = list(callbacks or [])
        resume = _only(Resumes, called)
        # Last: what others do at the end of an epoch is done by then, and a
        # step is counted before a run stops after it.
        called.sort(key=lambda c: isinstance(c, Resumes | Preempts))
        called.sort(key=lambda c: isinstance(c, Preempts))
        with self._session(called, resume):
            if isinstance(episodes, Episodes):
                steps = steps_per_epoch or episodes.steps_per_epoch
                return self._fit_episodes(
                    episodes, called, resume, steps, epochs=epochs, **options
                )
            if resume:
                raise ValueError(
                    f"{type(resume).__name__} resumes runs on `Episodes`, "
                    "which can begin at any step. Pass `Episodes`, "
                    "`GroupedImages`, or images and labels. "
                    f"Received: x of type {type(x).__name__}."
                )
            return super().fit(
                episodes,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                callbacks=called,
                **options,
            )

    def _fit_episodes(
        self,
        episodes: Episodes,
        callbacks: Sequence[keras.callbacks.Callback],
        resume: Resumes | None,
        steps: int,
        *,
        epochs: int,
        initial_epoch: int = 0,
        verbose: Any = "auto",
        **options: Any,
    ) -> keras.callbacks.History:
        if resume and self.steps_per_execution != 1:
            raise ValueError(
                f"{type(resume).__name__} counts each step: compile the model "
                "with steps_per_execution=1. Received: "
                f"steps_per_execution={self.steps_per_execution}."
            )
        epoch, taken = initial_epoch, 0
        if resume:
            epoch, taken = resume.resume(
                self, epochs=epochs, steps_per_epoch=steps, callbacks=callbacks
            )
        self._check_workers_agree(episodes, epoch * steps + taken)
        self._steps_to_skip = taken
        return super().fit(
            self._distributed(episodes, epoch * steps + taken),
            epochs=epochs,
            initial_epoch=epoch,
            steps_per_epoch=steps,
            verbose=verbose,
            callbacks=EpisodeCallbacks(
                callbacks,
                first_batch=taken,
                add_history=True,
                add_progbar=verbose != 0,
                model=self,
                verbose=verbose,
                epochs=epochs,
                steps=steps,
            ),
            **options,
        )

    def evaluate(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Returns the metrics on episodes; see `keras.Model.evaluate`.

        Args:
            x: As in `fit`.
            y: As in `fit`.
            **options: Passed on to `keras.Model.evaluate`. `steps` defaults to
                20 where `x` is not a `tf.data.Dataset`.

        Example:
        >>> found = model.evaluate(data, steps=1, verbose=0, return_dict=True)
        >>> "elbo" in found
        True
        """
        if "_use_cached_eval_dataset" in options:  # within `fit`
            with ema_weights(self):
                return super().evaluate(x, y, **options)
        size = options.pop("batch_size", None)
        episodes = self._as_episodes(x, y, size, validation=True)
        if isinstance(episodes, Episodes):
            options.setdefault("steps", _VALIDATION_STEPS)
            episodes = self._distributed(episodes)
        return super().evaluate(episodes, **options)

    @property
    def preempted(self) -> bool:
        """True if the run is to stop; the same on all workers."""
        if distribute.has_several_machines(self.distribute_strategy):
            return self._all_preempted
        return self._preempts is not None and self._preempts.requested

    # What Keras' `fit` calls -------------------------------------------------

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force:
            return
        if distribute.has_several_machines(self.distribute_strategy):
            step = self._train_on_workers()
        else:
            super().make_train_function(force=True)
            step = self.train_function

        def step_unless_taken(iterator: Any) -> Any:
            if not self._steps_to_skip:
                return step(iterator)
            # Taken before the run was resumed; `EpisodeCallbacks` hides it.
            self._steps_to_skip -= 1
            return self._results_of_skipped()

        self.train_function = step_unless_taken

    def make_test_function(self, force: bool = False) -> None:
        if not distribute.has_several_machines(self.distribute_strategy):
            super().make_test_function(force)
            return
        if self.test_function is not None and not force:
            return

        @tf.function(reduce_retracing=True)
        def test(episodes: Iterator[Any]) -> dict[str, Any]:
            return self._on_all_replicas(self.test_step, next(episodes))

        self.test_function = test

    def get_metrics_result(self) -> dict[str, Any]:
        several = distribute.has_several_machines(self.distribute_strategy)
        if not several or not tf.distribute.in_cross_replica_context():
            return super().get_metrics_result()
        return self._results_of_workers()

    def _maybe_symbolic_build(self, *_: Any, **__: Any) -> None:
        # Built already, but for the optimizer. Keras would average an episode
        # over the replicas, labels and all, only to see its shapes.
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _results_of_skipped(self) -> dict[str, Any]:
        if self._steps_to_skip:
            return {}
        # The last of them: its logs are those of the epoch so far.
        return self.get_metrics_result()

    def _train_on_workers(self) -> Callable[[Any], dict[str, Any]]:
        def train_step(episode: Any, stop: tf.Tensor) -> dict[str, Any]:
            # Cast on the replica, or it would be on no device to reduce from.
            stop = tf.cast(stop, tf.float32)
            return {**self.train_step(episode), _STOP: stop}

        @tf.function(reduce_retracing=True)
        def train(episodes: Iterator[Any], stop: tf.Tensor) -> dict[str, Any]:
            return self._on_all_replicas(train_step, next(episodes), stop)

        def step(episodes: Iterator[Any]) -> dict[str, Any]:
            stop = self._preempts is not None and self._preempts.requested
            logs = train(episodes, tf.constant(stop))
            self._all_preempted = float(logs.pop(_STOP)) > 0
            return logs

        return step

    @functools.cached_property
    def _results_of_workers(self) -> Callable[[], dict[str, Any]]:
        @tf.function
        def results() -> dict[str, Any]:
            return self._on_all_replicas(
                super(EpisodeTrainer, self).get_metrics_result
            )

        return results

    def _on_all_replicas(
        self, function: Callable[..., dict[str, Any]], *args: Any
    ) -> dict[str, Any]:
        """Returns the means over all replicas of what a function returns."""
        strategy = self.distribute_strategy
        means = strategy.run(
            lambda *a: distribute.mean(function(*a)), args=args
        )
        return {
            name: strategy.experimental_local_results(value)[0]
            for name, value in means.items()
        }

    # Data --------------------------------------------------------------------

    def _as_episodes(
        self, x: Any, y: Any, batch_size: int | None, validation: bool = False
    ) -> Any:
        """Returns `Episodes` that match the model, or what Keras may know."""
        if isinstance(x, Episodes):
            if batch_size not in (None, x.batch_size):
                raise ValueError(
                    "Leave `batch_size` out: `Episodes` have their own, "
                    f"{x.batch_size}. Received: batch_size={batch_size}."
                )
            _checks.check_episodes(self, x, validation=validation)
            return x
        if isinstance(x, tf.data.Dataset):
            x = _checks.checked_dataset(self, x, validation=validation)
        if isinstance(x, np.ndarray | tf.Tensor):
            if y is None:
                raise ValueError(
                    "Training needs to know which images belong together: "
                    "pass their labels, `fit(images, labels)`. "
                    f"Received: images of shape {tuple(x.shape)} without `y`."
                )
            x, y = self._grouped(x, y), None
        if isinstance(x, GroupedData):
            size = batch_size or _BATCH_SIZE
            make = functools.partial(Episodes.for_model, batch_size=size)
            x, y = make(self, x, validation=validation), None
            return self._as_episodes(x, y, size, validation)
        if x is None or y is not None:
            raise ValueError(
                "Training data are `Episodes`, `GroupedImages`, images with "
                "labels, or a `tf.data.Dataset` of episodes. Received: x of "
                f"type {type(x).__name__}, y of type {type(y).__name__}."
            )
        return x

    def _grouped(self, images: Any, labels: Any) -> GroupedImages:
        groups = [v.name for v in self.latents if not v.per_element]
        if not isinstance(labels, Mapping):
            if len(groups) > 1:
                raise ValueError(
                    f"This model has the group latents {groups}: pass labels "
                    "for each, `y={name: labels}`. Received: y of type "
                    f"{type(labels).__name__}."
                )
            labels = {groups[0]: labels}
        return GroupedImages(
            np.asarray(images),
            {name: np.asarray(value) for name, value in labels.items()},
        )

    def _validation_data(
        self, data: Any, batch_size: int | None, options: dict[str, Any]
    ) -> Any:
        if data is None:
            return None
        x, y = _checks.checked_validation_data(data)
        episodes = self._as_episodes(x, y, batch_size, validation=True)
        if not isinstance(episodes, Episodes):
            return episodes
        options.setdefault("validation_steps", _VALIDATION_STEPS)
        return self._distributed(episodes)

    def _distributed(self, episodes: Episodes, first_step: int = 0) -> Any:
        return distribute.split(
            self.distribute_strategy,
            functools.partial(episodes.dataset, first_step),
        )

    def _check_workers_agree(self, episodes: Episodes, step: int) -> None:
        """Raises a RunError if other workers have another run."""
        strategy = self.distribute_strategy
        if not distribute.has_several_machines(strategy):
            return
        here = [float(step), float(_checks.settings_checksum(self, episodes))]
        found = self._means_of_workers(here)
        if found[0] != here[0]:
            raise RunError(
                "All workers must see the folder of the run, on shared "
                f"storage. Received: step {step} on this worker, another step "
                "on others."
            )
        if found != here:
            raise RunError(
                "All workers must have the same settings and the same data. "
                "Received: other settings or data on other workers. Here: "
                f"{json.dumps(episodes.settings(), default=str)}."
            )

    def _means_of_workers(self, values: Sequence[float]) -> list[float]:
        strategy = self.distribute_strategy

        @tf.function
        def mean() -> Any:
            return strategy.run(
                lambda: distribute.mean(tf.constant(values, tf.float64))
            )

        found = strategy.experimental_local_results(mean())[0].numpy()
        return [float(value) for value in found]

    # Failures ----------------------------------------------------------------

    @contextlib.contextmanager
    def _session(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        resume: Resumes | None,
    ) -> Iterator[None]:
        """Saves a preempted run; adds to errors what it can resume from."""
        self._preempts = _only(Preempts, callbacks)
        self._all_preempted = False
        several = distribute.has_several_machines(self.distribute_strategy)
        try:
            with atomic_io.translate_disk_full(), name_corrupt_records():
                try:
                    if self._preempts:
                        self._preempts.open()
                    yield
                    # After the last step, in which workers agreed.
                    if several and self._preempts:
                        asked = [float(self._preempts.requested)]
                        [share] = self._means_of_workers(asked)
                        self._all_preempted = share > 0
                    if self.preempted:
                        raise StoppedOnRequest
                except StoppedOnRequest:
                    if resume:
                        resume.stopped()
                    raise
                finally:
                    _close(callbacks)
                    self._preempts = None
        except atomic_io.NotWrittenError as error:
            if not resume:
                raise
            raise atomic_io.NotWrittenError(
                f"{error} {resume.kept()}"
            ) from error
        except _LOST as error:
            if not several:
                raise
            kept = resume.kept() if resume else "There is no checkpoint."
            raise WorkerLostError(
                "Another worker of this run stopped, or cannot be reached. "
                f"Start the same command on all workers again. {kept}"
            ) from error


def _only(kind: Any, callbacks: Sequence[Any]) -> Any:
    """Returns the callback of a kind, or None."""
    found = [c for c in callbacks if isinstance(c, kind)]
    if len(found) > 1:
        raise ValueError(
            f"Pass one {type(found[0]).__name__}. "
            f"Received: {len(found)} of them."
        )
    return found[0] if found else None


def _close(callbacks: Sequence[Any]) -> None:
    """Closes what callbacks hold open, also where training has failed."""
    for callback in callbacks:
        close = getattr(callback, "close", None)
        if close:
            close()
