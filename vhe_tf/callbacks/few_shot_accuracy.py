"""Few-shot accuracy while a model trains."""

import dataclasses
from collections.abc import Sequence

from vhe_tf import evaluation
from vhe_tf.callbacks.evaluate import Evaluate
from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["FewShotAccuracy"]


@dataclasses.dataclass(eq=False, repr=False)
class FewShotAccuracy(Evaluate):
    """Adds few-shot accuracy on unseen groups to the logs of an epoch.

    It measures with the EMA weights, on the chief if several workers train.
    Place it before the callbacks that write or monitor the logs.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        group: String. The grouping whose groups are the classes.
        num_ways: Integer. K, lowered if there are fewer classes. Defaults to
            20.
        shots: Sequence of integers. For each N, a metric
            `accuracy_{K}way_{N}shot`; lowered if a class (with `spread`, a
            group) has fewer images. Defaults to (1, 5).
        spread: String. Tasks by groups of another grouping, see
            `evaluation.TaskDesign`; names of metrics then end in
            `_by_{group}`. Defaults to None.
        num_tasks: Integer. Number of tasks, the same in each epoch. Defaults
            to 10.
        num_samples: Integer. Number of samples from q(c; D). Defaults to 5.
        every: Integer. Number of epochs between evaluations. Defaults to 1.

    Example:
    >>> accuracy = FewShotAccuracy(
    ...     data, group="character", shots=[1], num_tasks=1, num_samples=1)
    >>> history = model.fit(
    ...     data, steps_per_epoch=1, verbose=0, callbacks=[accuracy])
    >>> [name for name in history.history if name.startswith("accuracy")]
    ['accuracy_6way_1shot']
    """

    data: GroupedImages
    _: dataclasses.KW_ONLY
    group: str
    num_ways: int = 20
    shots: Sequence[int] = (1, 5)
    spread: str | None = None
    num_tasks: int = 10
    num_samples: int = 5
    every: int = 1

    def __post_init__(self) -> None:
        evaluator = evaluation.FewShotClassification(
            self.data,
            group=self.group,
            ways=[self.num_ways],
            shots=self.shots,
            spread=self.spread,
            num_tasks=self.num_tasks,
            sampling=evaluation.Sampling(self.num_samples),
        )
        super().__init__([evaluator], every=self.every)
