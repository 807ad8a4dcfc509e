"""Few-shot accuracy while a model trains."""

from collections.abc import Sequence
from typing import Any

import keras

from vhe_tf import distribute
from vhe_tf import evaluation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import classification
from vhe_tf.optimizers import ema_weights

__all__ = ["FewShotAccuracy"]


class FewShotAccuracy(keras.callbacks.Callback):
    """Adds few-shot accuracy on unseen groups to the logs of an epoch.

    Measured with the EMA weights, on the chief if several workers train. Place
    it before the callbacks that write or monitor the logs.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are the classes.
        num_ways: Integer. K, lowered if there are fewer classes. Defaults to
            20.
        shots: Sequence of integers. For each N, a metric
            `accuracy_{K}way_{N}shot`; lowered if a class (with `spread`, a
            group) has fewer images. Defaults to (1, 5).
        spread: String. Tasks by groups of another grouping, see
            `evaluation.few_shot_trials`; names of metrics then end in
            `_by_{group}`. Defaults to None.
        num_tasks: Integer. Number of tasks, the same in each epoch. Defaults
            to 10.
        num_samples: Integer. Number of samples from q(c; D). Defaults to 5.
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
    >>> accuracy = vhe_tf.callbacks.FewShotAccuracy(
    ...     data, group="character", shots=[1], num_tasks=1, num_samples=1)
    >>> history = model.fit(
    ...     data, steps_per_epoch=1, verbose=0, callbacks=[accuracy])
    >>> [name for name in history.history if name.startswith("accuracy")]
    ['accuracy_4way_1shot']
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
        super().__init__()
        self.data = data
        self.group = group
        self.num_ways = min(num_ways, len(data.group_ids(group)))
        self.shots = classification.lowered_shots(
            shots, classification.most_shots(data, group, spread=spread)
        )
        self.spread = spread
        self.num_tasks = num_tasks
        self.num_samples = num_samples
        self.every = every
        self._scorer: evaluation.ClassScorer | None = None

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if (epoch + 1) % self.every or logs is None:
            return
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        if self._scorer is None or self._scorer.model is not self.model:
            self._scorer = evaluation.ClassScorer(
                self.model, group=self.group, num_samples=self.num_samples
            )
        with ema_weights(self.model):
            for num_shots in self.shots:
                accuracy = evaluation.few_shot_accuracy(
                    self._scorer,
                    self.data,
                    num_ways=self.num_ways,
                    num_shots=num_shots,
                    num_trials=self.num_tasks,
                    spread=self.spread,
                )
                name = f"accuracy_{self.num_ways}way_{num_shots}shot"
                by = f"_by_{self.group}" if self.spread else ""
                logs[name + by] = accuracy.mean
