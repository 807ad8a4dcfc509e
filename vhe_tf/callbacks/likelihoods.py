"""Likelihoods of unseen groups while a model trains."""

import dataclasses
from collections.abc import Sequence

from vhe_tf import evaluation
from vhe_tf.callbacks.evaluate import Evaluate
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import tasks

__all__ = ["Likelihoods"]


@dataclasses.dataclass(eq=False, repr=False)
class Likelihoods(Evaluate):
    """Adds joint and conditional likelihoods of unseen groups to the logs.

    `joint_nll` and `conditional_nll_{N}shot`, in nats per image, and
    `joint_effective_sample_size` are coarse estimates from few groups and
    samples, to follow a trend. It measures with the EMA weights, on the chief
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
    >>> likelihoods = Likelihoods(
    ...     data, group="character", shots=[1], num_queries=1, num_samples=1)
    >>> history = model.fit(
    ...     data, steps_per_epoch=1, verbose=0, callbacks=[likelihoods])
    >>> "joint_nll" in history.history
    True
    """

    data: GroupedImages
    _: dataclasses.KW_ONLY
    group: str
    shots: Sequence[int] = (1, 5)
    num_groups: int = 10
    num_queries: int = 50
    num_samples: int = 10
    every: int = 1

    def __post_init__(self) -> None:
        most = tasks.most_shots(self.data, self.group)
        self.shots = tasks.lowered_shots(self.shots, most)
        sampling = evaluation.Sampling(self.num_samples)
        joint = evaluation.JointLikelihood(
            self.data,
            group=self.group,
            num_groups=self.num_groups,
            sampling=sampling,
        )
        conditional = evaluation.ConditionalLikelihood(
            self.data,
            group=self.group,
            shots=self.shots,
            num_queries=self.num_queries,
            sampling=sampling,
        )
        super().__init__([joint, conditional], every=self.every)
