"""Evaluators while a model trains."""

from collections.abc import Sequence
from typing import Any

import keras

from vhe_tf import distribute
from vhe_tf import evaluation
from vhe_tf._utils.progress import status_line
from vhe_tf.optimizers import ema_weights

__all__ = ["Evaluate"]


class Evaluate(keras.callbacks.Callback):
    """Adds the measurements of evaluators to the logs of an epoch.

    It measures with the EMA weights, on the chief if several workers train.
    Place it before the callbacks that write or monitor the logs.

    Args:
        evaluators: Sequence of `evaluation.Evaluator`s. A measurement has the
            name of its `key`, with underscores for dots.
        every: Integer. Number of epochs between evaluations. Defaults to 1.

    Example:
    >>> joint = evaluation.JointLikelihood(
    ...     data, group="character", num_groups=1)
    >>> history = model.fit(data, steps_per_epoch=1, verbose=0,
    ...                     callbacks=[Evaluate([joint])])
    >>> "joint_nll" in history.history
    True
    """

    def __init__(
        self, evaluators: Sequence[evaluation.Evaluator], *, every: int = 1
    ) -> None:
        super().__init__()
        self.evaluators = list(evaluators)
        self.every = every
        for evaluator in self.evaluators:
            evaluator.share_scorers(self.evaluators[0])

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if (epoch + 1) % self.every or logs is None:
            return
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        title = f"epoch {epoch + 1}/{(self.params or {}).get('epochs', '?')}"
        stage = status_line(f"{title}: evaluation on unseen groups")
        with stage as show, ema_weights(self.model):
            for evaluator in self.evaluators:
                for measurement in evaluator(
                    self.model, lambda text: show(f"{title}: {text}")
                ):
                    name = measurement.key.replace(".", "_")
                    logs[name] = measurement.mean
                    effective = measurement.effective_sample_size
                    if effective is not None:
                        logs["joint_effective_sample_size"] = effective
