"""The four objectives of the paper, as one expression.

Two independent choices give the four rows of Table 1:

    objective            decoded element x      KL of a group latent over
    neural_statistician  in D                   |D|      (Eq. 6)
    resample             sampled from X         |D|      (Eq. 19)
    rescale              in D                   |X|      (Eq. 20)
    vhe                  sampled from X         |X|      (Eq. 15, 16, 18)

Resampling is a property of the episodes (`vhe_tf.data.episodes`), rescaling
a property of the ELBO.

VHE and Resample are lower bounds on log p(X) / |X|. Neural Statistician is one
on log p(D) / |D|. Rescale is not a lower bound: q(c; D) has seen x, but is
charged only for its share of X, so that its expectation can exceed
log p(X) / |X|. Its models are validated, and their best epoch selected, by the
VHE bound (`Objective.validates_resampled`).

Equation, table and section numbers are those of Hewitt, Nye, Gane, Jaakkola and
Tenenbaum, "The Variational Homoencoder", UAI 2018.
"""

import enum
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

__all__ = ["ElboTerms", "Objective", "elbo_terms"]


class Objective(enum.StrEnum):
    """The name of one of the four objectives of Table 1.

    Example:
    >>> Objective("vhe").value
    'vhe'
    """

    NEURAL_STATISTICIAN = "neural_statistician"
    RESAMPLE = "resample"
    RESCALE = "rescale"
    VHE = "vhe"

    @property
    def resamples(self) -> bool:
        """True if x is sampled from the whole group X, not from D."""
        return self in (Objective.RESAMPLE, Objective.VHE)

    @property
    def rescales(self) -> bool:
        """True if the KL of a group latent is divided by |X|, not by |D|."""
        return self in (Objective.RESCALE, Objective.VHE)

    @property
    def is_bound(self) -> bool:
        """True if its expectation is a lower bound on a log-likelihood."""
        return self != Objective.RESCALE

    @property
    def validates_resampled(self) -> bool:
        """True if x is sampled from X in validation.

        The objective of Rescale, which is not a bound, is then the VHE bound.
        """
        return self.resamples or not self.is_bound


class ElboTerms(NamedTuple):
    """The terms of the ELBO for each element of a minibatch.

    Attributes:
        elbo: float32 tensor of shape `[B]`, nats per element.
            `log_likelihood` minus the sum of `scaled_kl`. Not a lower bound
            if the objective is Rescale and x is in D.
        log_likelihood: float32 tensor of shape `[B]`, `log p(x | latents)` in
            nats.
        kl: Dictionary of float32 tensors of shape `[B]`. For each latent,
            `KL[q || p]` in nats, not yet divided by `group_scale`.
        scaled_kl: Dictionary of float32 tensors of shape `[B]`. For each
            latent, `kl` divided by `group_scale`, in nats per element.

    Example:
    >>> terms = elbo_terms(
    ...     log_likelihood=tf.constant([-10.0]), kl={}, group_scale={})
    >>> float(terms.elbo[0])
    -10.0
    """

    elbo: tf.Tensor
    log_likelihood: tf.Tensor
    kl: dict[str, tf.Tensor]
    scaled_kl: dict[str, tf.Tensor]


def elbo_terms(
    *,
    log_likelihood: tf.Tensor,
    kl: Mapping[str, tf.Tensor],
    group_scale: Mapping[str, tf.Tensor],
) -> ElboTerms:
    """Assembles the objective of each element (Eq. 16, 18, 19, 20 and 21).

    Args:
        log_likelihood: float32 tensor of shape `[B]`, `log p(x | latents)` in
            nats.
        kl: Mapping from names to tensors. For each latent, a float32 tensor of
            shape `[B]`, `KL[q || p]` in nats.
        group_scale: Mapping from names to tensors. For each latent, a tensor of
            shape `[B]` or `[]`, the number by which its KL is divided: 1 for a
            per-element latent, |X| or |D| for a group latent.

    Returns:
        `ElboTerms`, each of shape `[B]`.

    Example:
    >>> terms = elbo_terms(
    ...     log_likelihood=tf.constant([-10.0]),
    ...     kl={"character": tf.constant([4.0])},
    ...     group_scale={"character": tf.constant([20])},
    ... )
    >>> float(terms.elbo[0])
    -10.199999809265137
    """
    scaled_kl = {
        name: kl[name] / tf.cast(group_scale[name], kl[name].dtype)
        for name in kl
    }
    elbo = log_likelihood - sum(scaled_kl.values())
    return ElboTerms(elbo, log_likelihood, dict(kl), scaled_kl)
