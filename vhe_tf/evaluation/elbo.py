"""The ELBO on unseen groups, and the KL on the training set."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf.data.augmentation import Augmentation
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import tasks
from vhe_tf.evaluation.evaluators import Evaluator
from vhe_tf.evaluation.measurement import NATS_PER_IMAGE
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.models.vhe import VHE

__all__ = ["Elbo", "TrainingKL"]

_BATCH_SIZE = 32


@dataclasses.dataclass(eq=False, repr=False)
class Elbo(Evaluator):
    """The lower bound on log p(X) that the model is trained by (Eq. 18).

    Rescale trains by no bound; its models have the VHE bound here.
    The KL of each latent is shared by its group. Values of models of the same
    images are comparable whatever their latents.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        num_shots: Integer. |D|, of every group latent. Defaults to 5.
        num_batches: Integer. Batches of 32 elements. Defaults to 200.
        seed: Integer. Seed of the episodes. Defaults to 0.

    Example:
    >>> [measurement] = Elbo(data, num_shots=1, num_batches=2)(model)
    >>> measurement.key, len(measurement.values)
    ('elbo', 2)
    """

    data: GroupedImages
    _: dataclasses.KW_ONLY
    num_shots: int = 5
    num_batches: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __call__(
        self, model: VHE, progress: Callable[[str], None] | None = None
    ) -> list[Measurement]:
        """See base class."""
        if self.left_out(model):
            return []
        tasks.check_ready(self.data, model)
        episodes = Episodes.for_model(
            model,
            self.data,
            batch_size=_BATCH_SIZE,
            support_size=self.num_shots,
            augmentation=Augmentation(binarization="none"),
            seed=self.seed,
            validation=True,
        )
        terms = self._scorers.get(_elbo_terms, model)
        batches = iter(episodes.dataset().take(self.num_batches))
        values: list[float] = []
        while at_once := list(itertools.islice(batches, terms.count)):
            elbos = terms([(episode,) for episode in at_once])
            values += [float(tf.reduce_mean(elbo)) for elbo in elbos]
            if progress:
                progress(
                    f"ELBO: batch {len(values)} of {self.num_batches}, "
                    f"{np.mean(values):.2f} nats per image so far"
                )
        return [Measurement.of("elbo", values, unit=NATS_PER_IMAGE)]

    def left_out(self, model: VHE) -> list[str]:
        """See base class."""
        for latent in _group_latents(model):
            if latent not in self.data.labels:
                return [f"the ELBO: the data have no grouping {latent!r}"]
            smallest = tasks.most_shots(self.data, latent) + 1
            if smallest < self.num_shots:
                return [
                    f"the ELBO with {self.num_shots} shots: the smallest "
                    f"{latent} has {smallest} image" + "s" * (smallest != 1)
                ]
        return []


@dataclasses.dataclass(eq=False, repr=False)
class TrainingKL(Evaluator):
    """The KL of each group latent on the training set (Table 1).

    It is `KL[q(c; D) || p(c)]` in nats, before division by |X| or |D|. The
    interval is over batches.

    Args:
        episodes: `Episodes`. Episodes of the groups that the model was trained
            on.
        num_batches: Integer. How many batches to take. Defaults to 100.

    Example:
    >>> episodes = Episodes.for_model(model, data, batch_size=4, support_size=1)
    >>> [measurement] = TrainingKL(episodes, num_batches=1)(model)
    >>> measurement.latent, measurement.unit
    ('character', 'nats')
    """

    episodes: Episodes
    _: dataclasses.KW_ONLY
    num_batches: int = 100

    def __post_init__(self) -> None:
        super().__init__()

    def __call__(
        self, model: VHE, progress: Callable[[str], None] | None = None
    ) -> list[Measurement]:
        """See base class."""

        def kl(episode: Any) -> dict[str, tf.Tensor]:
            return model(episode).kl

        compiled = tf.function(kl, reduce_retracing=True, autograph=False)
        latents = _group_latents(model)
        values: dict[str, list[float]] = {name: [] for name in latents}
        batches = self.episodes.dataset().take(self.num_batches)
        for index, episode in enumerate(batches):
            terms = compiled(episode)
            for name in latents:
                values[name].append(float(tf.reduce_mean(terms[name])))
            if progress:
                progress(
                    f"training KL: batch {index + 1} of {self.num_batches}"
                )
        sizes = self.episodes.min_support, self.episodes.max_support
        return [
            Measurement.of(
                "training_kl",
                values[name],
                unit="nats",
                latent=name,
                support_sizes=sizes,
            )
            for name in latents
        ]


def _elbo_terms(model: VHE) -> distribute.EachReplica:
    return distribute.EachReplica(
        model.distribute_strategy, lambda episode: model(episode).elbo
    )


def _group_latents(model: VHE) -> list[str]:
    return [v.name for v in model.latents if not v.per_element]
