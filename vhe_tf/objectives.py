"""The four lower bounds of the paper, as one expression.

Two independent choices give the four rows of Table 1:

    objective            decoded element x      KL of a group latent over
    neural_statistician  in D                   |D|      (Eq. 6)
    resample             drawn afresh from X    |D|      (Eq. 19)
    rescale              in D                   |X|      (Eq. 20)
    vhe                  drawn afresh from X    |X|      (Eq. 15, 16, 18)

Resampling is a property of the episodes (`vhe_tf.data.episodes`), rescaling
one of the bound. Equation, table and section numbers are those of Hewitt, Nye,
Gane, Jaakkola and Tenenbaum, "The Variational Homoencoder", UAI 2018.
"""

import enum
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

__all__ = ["ElboTerms", "Objective", "elbo_terms"]


class Objective(enum.StrEnum):
    """Names one of the four lower bounds of Table 1."""

    NEURAL_STATISTICIAN = "neural_statistician"
    RESAMPLE = "resample"
    RESCALE = "rescale"
    VHE = "vhe"

    @property
    def resamples(self) -> bool:
        """Whether x is drawn from the whole group X, not from D."""
        return self in (Objective.RESAMPLE, Objective.VHE)

    @property
    def rescales(self) -> bool:
        """Whether the KL of a group latent is shared by X, not by D."""
        return self in (Objective.RESCALE, Objective.VHE)


class ElboTerms(NamedTuple):
    """The terms of the bound for each element of a minibatch.

    Attributes:
        elbo: `[B]`, `log_likelihood - sum of shared_kl`, nats an element.
        log_likelihood: `[B]`, `log p(x | latents)`, nats.
        kl: For each latent, `[B]`, `KL[q || p]` before any sharing, nats.
        shared_kl: For each latent, `[B]`, the part of that KL that one
            element carries, nats.
    """

    elbo: tf.Tensor
    log_likelihood: tf.Tensor
    kl: dict[str, tf.Tensor]
    shared_kl: dict[str, tf.Tensor]


def elbo_terms(
    *,
    log_likelihood: tf.Tensor,
    kl: Mapping[str, tf.Tensor],
    sharing: Mapping[str, tf.Tensor],
) -> ElboTerms:
    """Assembles the lower bound of each element (Eq. 16, 18, 19, 20 and 21).

    Args:
        log_likelihood: `[B]`, `log p(x | latents)`, nats.
        kl: For each latent, `[B]`, `KL[q || p]`, nats.
        sharing: For each latent, `[B]` or `[]`, the number of elements among
            which its KL is shared: 1 for a latent of the element's own, |X|
            or |D| for one of a group.

    Returns:
        The bound and its terms, each of shape `[B]`.
    """
    shared_kl = {
        name: kl[name] / tf.cast(sharing[name], kl[name].dtype) for name in kl
    }
    elbo = log_likelihood - sum(shared_kl.values())
    return ElboTerms(elbo, log_likelihood, dict(kl), shared_kl)
