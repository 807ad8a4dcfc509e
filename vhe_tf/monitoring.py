"""Keras callbacks that show a run in TensorBoard while it trains."""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from vhe_tf import evaluation
from vhe_tf import visualization
from vhe_tf._utils import atomic_io
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import tasks
from vhe_tf.models.vhe import VHE
from vhe_tf.training import averaged_weights

__all__ = [
    "Cues",
    "FewShotAccuracy",
    "ImageGrids",
    "Likelihoods",
    "Scalars",
    "fixed_cues",
]

# Bytes that the scalars of an epoch do not reach.
_SCALARS_SIZE = 2**16


@dataclasses.dataclass(frozen=True)
class Cues:
    """The images that every picture of a run starts from.

    Attributes:
        group: The group latent that the cues are supports of.
        support: `[G, N, H, W, C]`.
        query: `[G, Q, H, W, C]`, other images of the same groups.
    """

    group: str
    support: np.ndarray
    query: np.ndarray

    def grids(
        self, model: VHE, *, num_samples: int = 8, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Draws the pictures of a model; see `vhe_tf.pictures`."""
        return {
            "conditional": visualization.conditional_grid(
                model,
                [self.support[:, :1], self.support],
                group=self.group,
                num_samples=num_samples,
                seed=(seed, 0),
            ),
            "reconstruction": visualization.reconstruction_grid(
                model,
                self.support,
                self.query,
                group=self.group,
                seed=(seed, 10),
            ),
            "unconditional": visualization.prior_grid(model, seed=(seed, 20)),
        }


def fixed_cues(
    data: GroupedImages,
    *,
    group: str,
    num_groups: int = 10,
    num_shots: int = 5,
    num_queries: int = 8,
    seed: int = 0,
) -> Cues:
    """Chooses the cues of a run from images ready for the model.

    Where no group has `num_shots + num_queries` images, there are fewer.

    Raises:
        ValueError: If no group has two images.
    """
    known = data.labels[group][data.labels[group] != MISSING]
    ids, counts = np.unique(known, return_counts=True)
    if counts.max() < 2:
        raise ValueError(
            f"Pictures need a {group} with 2 images, a cue and another; give "
            "each class more. Received: 1 image each."
        )
    # Groups that are large enough, or else all there can be of the largest.
    needed = min(num_shots + num_queries, int(counts.max()))
    num_shots = min(num_shots, needed - 1)
    large = ids[counts >= needed]
    generator = np.random.default_rng(seed)
    chosen = generator.choice(large, min(num_groups, len(large)), replace=False)
    images = np.stack(
        [
            data.images[
                generator.choice(
                    np.flatnonzero(data.labels[group] == group_id),
                    needed,
                    replace=False,
                )
            ]
            for group_id in chosen
        ]
    )
    return Cues(group, images[:, :num_shots], images[:, num_shots:])


class _Evaluation(keras.callbacks.Callback):
    """Adds the measurements of evaluators to the logs.

    Args:
        evaluators: The evaluators; EMA weights are measured.
        every: Integer. Evaluate after every so many epochs.
    """

    def __init__(
        self, evaluators: Sequence[evaluation.Evaluator], *, every: int
    ) -> None:
        super().__init__()
        self.evaluators = list(evaluators)
        self.every = every
        for evaluator in self.evaluators:
            evaluator.share_scorers(self.evaluators[0])

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Measures."""
        if (epoch + 1) % self.every or logs is None:
            return
        with averaged_weights(self.model):
            for evaluator in self.evaluators:
                for measurement in evaluator(self.model):
                    name = measurement.key.replace(".", "_")
                    logs[name] = measurement.mean
                    effective = measurement.effective_sample_size
                    if effective is not None:
                        logs["joint_effective_sample_size"] = effective


class FewShotAccuracy(_Evaluation):
    """Adds few-shot accuracy on unseen groups to the logs.

    Place it before the callbacks that write or use the logs.

    Args:
        data: Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are the classes.
        num_ways: Integer. K; lowered to the number of classes. Defaults to 20.
        shots: Sequence of integers. For each N, a metric
            `accuracy_{K}way_{N}shot`; lowered where a class has fewer images
            (with `spread`, groups of that). Defaults to `(1, 5)`.
        spread: String or None. As in `TaskDesign`; with it, the metric's name
            ends in `_by_{group}`.
        num_tasks: Integer. Tasks per evaluation, the same ones each time.
            Defaults to 10.
        num_samples: Integer. Samples from q(c; D). Defaults to 5.
        every: Integer. Evaluate after every so many epochs. Defaults to 1.
    """

    def __init__(
        self,
        data: GroupedImages,
        *,
        group: str,
        num_ways: int = 20,
        shots: Sequence[int] = (1, 5),
        spread: str | None = None,
        num_tasks: int = 10,
        num_samples: int = 5,
        every: int = 1,
    ) -> None:
        evaluator = evaluation.FewShotClassification(
            data,
            group=group,
            ways=[num_ways],
            shots=shots,
            spread=spread,
            num_tasks=num_tasks,
            sampling=evaluation.Sampling(num_samples),
        )
        super().__init__([evaluator], every=every)


class Likelihoods(_Evaluation):
    """Adds joint and conditional likelihoods of unseen groups to the logs.

    Rough ones, of few groups and samples, to see a trend; `joint_nll` and
    `conditional_nll_{N}shot` in nats per image, `joint_effective_sample_size`.
    Place it before the callbacks that write or use the logs.

    Args:
        data: Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are the sets X.
        shots: Sequence of integers. For each N, a conditional likelihood;
            lowered where a group has fewer images. Defaults to `(1, 5)`.
        num_groups: Integer. Groups in the joint likelihood, the same ones each
            time. Defaults to 10.
        num_queries: Integer. Images in a conditional likelihood. Defaults to
            50.
        num_samples: Integer. Samples from q(c; D). Defaults to 10.
        every: Integer. Evaluate after every so many epochs. Defaults to 1.
    """

    def __init__(
        self,
        data: GroupedImages,
        *,
        group: str,
        shots: Sequence[int] = (1, 5),
        num_groups: int = 10,
        num_queries: int = 50,
        num_samples: int = 10,
        every: int = 1,
    ) -> None:
        sampling = evaluation.Sampling(num_samples)
        joint = evaluation.JointLikelihood(
            data, group=group, num_groups=num_groups, sampling=sampling
        )
        conditional = evaluation.ConditionalLikelihood(
            data,
            group=group,
            shots=tasks.lowered_shots(shots, tasks.most_shots(data, group)),
            num_queries=num_queries,
            sampling=sampling,
        )
        super().__init__([joint, conditional], every=every)


class Scalars(keras.callbacks.Callback):
    """Writes the logs of each epoch, by optimizer step, and the settings.

    Unlike `keras.callbacks.TensorBoard`, it writes what other callbacks added
    to the logs, and its step goes on after a resume.

    Args:
        folder: Where the event files go.
        settings: What HParams shows as the settings of the run.
    """

    def __init__(
        self, folder: pathlib.Path, settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._folder = folder
        self._writer = tf.summary.create_file_writer(str(folder))
        self._settings = {
            key: value if isinstance(value, bool | int | float) else str(value)
            for key, value in settings.items()
        }

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Writes the settings."""
        with self._writer.as_default():
            hparams.hparams(self._settings)

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Writes the scalars; `validation/` beside `train/`."""
        atomic_io.check_room(self._folder, _SCALARS_SIZE)
        step = _step(self, epoch)
        with self._writer.as_default(), tf.summary.record_if(True):
            for name, value in (logs or {}).items():
                tf.summary.scalar(_tag(name), value, step=step)
            rate = self.model.optimizer.learning_rate
            tf.summary.scalar("train/learning_rate", rate, step=step)
        self._writer.flush()


class ImageGrids(keras.callbacks.Callback):
    """Writes pictures of the same cues each few epochs.

    Args:
        folder: Where the event files go.
        draw: Returns the pictures of a model by name, such as `Cues.grids`.
        every: Write each so many epochs.
        ink: Whether 1 is ink, to be shown as black on white (`Source.ink`).
    """

    def __init__(
        self,
        folder: pathlib.Path,
        draw: Callable[[VHE], Mapping[str, np.ndarray]],
        *,
        every: int = 1,
        ink: bool = True,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._writer = tf.summary.create_file_writer(
            str(folder), filename_suffix=".pictures"
        )
        self._draw = draw
        self._every = every
        self._ink = ink

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Draws and writes the pictures."""
        if (epoch + 1) % self._every:
            return
        with averaged_weights(self.model):
            grids = self._draw(self.model)
        # A PNG is hardly larger than its pixels.
        size = 2 * sum(grid.size for grid in grids.values())
        atomic_io.check_room(self._folder, size)
        with self._writer.as_default(), tf.summary.record_if(True):
            visualization.write_summaries(
                grids, step=_step(self, epoch), ink=self._ink
            )
        self._writer.flush()


def _tag(name: str) -> str:
    """Returns the tag of a metric of the logs."""
    if name.startswith(("accuracy", "joint_", "conditional_")):
        return f"few_shot/{name}"
    if name.startswith("val_"):
        return f"validation/{name.removeprefix('val_')}"
    return f"train/{name}"


def _step(callback: keras.callbacks.Callback, epoch: int) -> int:
    """Returns the number of steps that a run has taken at an epoch's end.

    Those of the optimizer, which leave out what mixed precision skips, only
    where nobody knows how many there are in an epoch.
    """
    steps = callback.params["steps"]
    if steps is None:
        return int(callback.model.optimizer.iterations.numpy())
    return (epoch + 1) * int(steps)
