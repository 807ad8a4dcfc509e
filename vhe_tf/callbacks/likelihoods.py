"""Likelihoods of unseen groups while a model trains."""

from collections.abc import Sequence
from typing import Any

import keras

from vhe_tf import distribute
from vhe_tf import evaluation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import classification
from vhe_tf.optimizers import ema_weights

__all__ = ["Likelihoods"]

# Images decoded at once: what bounds the memory beside that of training.
_MAX_DECODED = 2000


class Likelihoods(keras.callbacks.Callback):
    """Adds joint and conditional likelihoods of unseen groups to the logs.

    Coarse estimates from few groups and samples, to follow a trend:
    `joint_nll` and `conditional_nll_{N}shot` in nats per image, and
    `joint_effective_sample_size`. Measured with the EMA weights, on the chief
    if several workers train. Place it before the callbacks that write or
    monitor the logs.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are the sets X.
        shots: Sequence of integers. For each N, a conditional likelihood;
            lowered if a group has fewer images. Defaults to (1, 5).
        num_groups: Integer. Number of groups in the joint likelihood, the same
            in each epoch. Defaults to 10.
        num_queries: Integer. Number of images in a conditional likelihood.
            Defaults to 50.
        num_samples: Integer. Number of samples from q(c; D). Defaults to 10.
        every: Integer. Number of epochs between evaluations. Defaults to 1.

    Example:
    >>> import numpy as np
    >>> import vhe_tf
    >>> from vhe_tf.data import GroupedImages
    >>> model = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    >>> model.compile("adam")
    >>> images = np.random.default_rng(0).integers(0, 2, (20, 8, 8, 1))
    >>> data = GroupedImages(
    ...     images.astype("float32"), {"character": np.arange(20) // 5})
    >>> likelihoods = vhe_tf.callbacks.Likelihoods(
    ...     data, group="character", shots=[1], num_queries=1, num_samples=1)
    >>> history = model.fit(
    ...     data, steps_per_epoch=1, verbose=0, callbacks=[likelihoods])
    >>> "joint_nll" in history.history
    True
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
        super().__init__()
        self.data = data
        self.group = group
        self.shots = classification.lowered_shots(
            shots, classification.most_shots(data, group)
        )
        self.num_groups = num_groups
        self.num_queries = num_queries
        self.num_samples = num_samples
        self.every = every
        self._scorers: (
            tuple[evaluation.ClassScorer, evaluation.JointScorer] | None
        ) = None

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if (epoch + 1) % self.every or logs is None:
            return
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        if self._scorers is None or self._scorers[0].model is not self.model:
            self._scorers = (
                evaluation.ClassScorer(
                    self.model, group=self.group, num_samples=self.num_samples
                ),
                evaluation.JointScorer(self.model, self.group, 1, _MAX_DECODED),
            )
        scorer, joint_scorer = self._scorers
        with ema_weights(self.model):
            joint = evaluation.joint_nll(
                self.model,
                self.data,
                group=self.group,
                num_samples=self.num_samples,
                max_groups=self.num_groups,
                scorer=joint_scorer,
            )
            logs["joint_nll"] = joint.nats_per_image.mean
            logs["joint_effective_sample_size"] = joint.effective_sample_size
            for num_shots in self.shots:
                conditional = evaluation.conditional_nll(
                    scorer,
                    self.data,
                    num_shots=num_shots,
                    num_trials=self.num_queries,
                )
                logs[f"conditional_nll_{num_shots}shot"] = conditional.mean
