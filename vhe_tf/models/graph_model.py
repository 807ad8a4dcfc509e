"""A graph of latents with a likelihood."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf._utils import validation
from vhe_tf.distributions.discretized import pixel_levels
from vhe_tf.distributions.domain import Domain
from vhe_tf.models import _arguments
from vhe_tf.models import _checks
from vhe_tf.models import _gradients
from vhe_tf.models import _graph
from vhe_tf.models import _summary
from vhe_tf.models._graph import Samples
from vhe_tf.models._graph import Support
from vhe_tf.models.latents import Latent
from vhe_tf.models.latents import check_likelihood
from vhe_tf.models.latents import parents_first
from vhe_tf.models.trainer import EpisodeTrainer

__all__ = ["GraphModel"]


class GraphModel(EpisodeTrainer):
    """A graph of latents with a likelihood: posteriors, samples, decoding.

    Args:
        latents: Sequence of `Latent`s, in any order. Sorted parents first.
        likelihood: Keras layer. `likelihood(**latents)` returns the
            `tfd.Distribution` `p(x | latents)` with event shape `event_shape`
            and batch shape `[S..., B]`.
        event_shape: Positive integers. The shape of an element.
        **kwargs: Passed on to `keras.Model`.

    Attributes:
        num_levels: Integer or None. Number of levels per channel that the
            likelihood models; None if it is a density.
        domain: `Domain`. The values that the likelihood models. Elements with
            other values are rejected.

    Raises:
        ValueError: If the latents do not form a proper graph (see
            `parents_first`), the likelihood cannot be called with them, or
            `event_shape` is not positive integers.
    """

    def __init__(
        self,
        latents: Sequence[Latent],
        likelihood: keras.layers.Layer,
        *,
        event_shape: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latents = parents_first(latents)
        check_likelihood(likelihood, self.latents)
        self.likelihood = likelihood
        self.event_shape = _checks.checked_event_shape(event_shape)
        self._nodes: dict[str, _summary.Node] = {}
        likelihood = self._build_on_zeros()
        self.domain = Domain.of(likelihood)
        self.num_levels = 2 if self.domain.binary else pixel_levels(likelihood)
        self._event_ranks = {
            name: len(self._nodes[name].event_shape)
            for name in _graph.group_names(self.latents)
        }
        self.built = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`; a `ValueError` if the elements are not images."""
        return validation.image_shape_of(self.event_shape)

    def encode(self, support: Support | tf.Tensor) -> dict[str, Any]:
        """Returns the posteriors of group latents, for repeated use.

        The result can replace the support in every other method except
        `classify`. To score a class, pass its posteriors to `log_likelihood`.

        Args:
            support: Mapping from names of group latents to tensors of shape
                `[B, N, H, W, C]`. A model with one group latent also accepts
                the tensor.

        Returns:
            For each latent of `support` and each of its ancestors, a
            `tfd.Distribution` of batch shape `[B]`, q(latent; D, parents) at
            the means of the parents' posteriors.

        Raises:
            ValueError: If `support` holds results of `encode`.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six characters
        >>> posterior = model.encode(images[:, :2])["character"]
        >>> posterior.mean().shape
        TensorShape([6, 2])
        """
        support = _checks.checked_support(self, support)
        _checks.check_no_posteriors("encode", support)
        support = _graph.with_implied(self.latents, support)
        posteriors: dict[str, Any] = {}
        means: Samples = {}
        for latent in self.latents:
            if latent.name in support:
                posterior = latent.posterior(
                    support[latent.name], *_graph.parents_of(latent, means)
                )
                posteriors[latent.name] = posterior
                means[latent.name] = posterior.mean()
        return posteriors

    def infer(
        self,
        support: Support | tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int = 1,
        batch_size: int | tf.Tensor | None = None,
        temperature: float | tf.Tensor = 1.0,
        sample_unobserved: bool = True,
    ) -> Samples:
        """Samples the group latents given supports.

        Args:
            support: Mapping from names of some or all group latents to tensors
                of shape `[B, N, H, W, C]`. A latent with a support is sampled
                from its posterior. So are its ancestors: the elements of a
                group are elements of the groups that contain it. Any other
                latent is sampled from its fitted prior, see
                `vhe_tf.fit_prior`, or else from its prior.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: Integer, S. Number of joint samples per batch element.
                Defaults to 1.
            batch_size: Integer, B. Required if `support` is empty.
            temperature: Float. Temperature of the priors. Defaults to 1.
            sample_unobserved: Boolean. Whether to sample latents without a
                support from their prior. If False, they are omitted.
                Defaults to True.

        Returns:
            For each group latent, a tensor of shape `[S, B, E...]`.

        Raises:
            ValueError: If `support` names an unknown latent, is empty without
                `batch_size`, or has a posterior without those of its parents,
                or a number is not positive.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six characters
        >>> samples = model.infer(images[:, :2], seed=0, num_samples=5)
        >>> samples["character"].shape
        TensorShape([5, 6, 2])
        """
        num_samples = _arguments.checked_count("num_samples", num_samples)
        if not isinstance(support, Mapping) or support:
            support = self._with_implied(support)
            batch_size = _graph.batch_size_of(next(iter(support.values())))
        elif batch_size is None:
            raise ValueError(
                "Without a support, pass `batch_size`, the number of samples "
                "from the prior. Received: support={}, batch_size=None."
            )
        else:
            batch_size = _arguments.checked_count("batch_size", batch_size)
        samples, _ = _graph.sample_groups(
            self.latents,
            support,
            batch_shape=[num_samples, batch_size],
            seed=seed,
            temperature=temperature,
            sample_unobserved=sample_unobserved,
        )
        return samples

    def importance_sample(
        self,
        support: Support | tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int,
        sample_unobserved: bool = True,
    ) -> tuple[Samples, tf.Tensor]:
        """Samples the group latents with their importance weights.

        Args:
            support: As in `infer`.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: Integer, S.
            sample_unobserved: As in `infer`.

        Returns:
            The result of `infer`, and a tensor of shape `[S, B]` in nats: the
            sum of log p(latent | parents) - log q(latent; D, parents) over the
            group latents that are sampled from their posteriors.

        Raises:
            ValueError: As in `infer`.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six characters
        >>> _, log_weight = model.importance_sample(
        ...     images[:, :2], seed=0, num_samples=5)
        >>> log_weight.shape
        TensorShape([5, 6])
        """
        num_samples = _arguments.checked_count("num_samples", num_samples)
        support = self._with_implied(support)
        batch_size = _graph.batch_size_of(next(iter(support.values())))
        samples, posteriors = _graph.sample_groups(
            self.latents,
            support,
            batch_shape=[num_samples, batch_size],
            seed=seed,
            temperature=1.0,
            sample_unobserved=sample_unobserved,
        )
        ratios = [
            _graph.log_ratio(latent, posteriors[latent.name], samples=samples)
            for latent in self.latents
            if latent.name in posteriors
        ]
        return samples, tf.add_n(ratios)

    def _with_implied(self, support: Support | tf.Tensor) -> Support:
        support = _checks.checked_support(self, support)
        support = _graph.with_implied(self.latents, support)
        _checks.check_given(self, "support", given=support)
        return support

    def decode(
        self, samples: Samples, *, seed: int | tf.Tensor, query: Any = None
    ) -> tfd.Distribution:
        """Returns the likelihood p(x | latents); samples missing latents.

        Args:
            samples: Mapping from names of group latents to tensors of shape
                `[S..., B, E...]`.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            query: Tensor of shape `[B, H, W, C]`, or None. With a query, the
                latents that `samples` lacks are sampled from their posterior
                given these elements (reconstruction), else from their prior
                (generation). Defaults to None.

        Returns:
            A distribution of batch shape `[S..., B]`, event shape
            `[H, W, C]`.

        Raises:
            ValueError: If `samples` is empty, names an unknown latent, or has
                a latent without its parents or values that are not finite, or
                if `query` is not a batch of images of this model.

        Example:
        >>> samples = model.infer(data.images[None, :2], seed=0)
        >>> model.decode(samples, seed=1).event_shape
        TensorShape([8, 8, 1])
        """
        return self.likelihood(
            **self._completed(samples, seed=seed, query=query)
        )

    def _completed(
        self, samples: Samples, *, seed: int | tf.Tensor, query: Any
    ) -> Samples:
        """Returns all latents, those that are missing as in `decode`."""
        _checks.check_given(self, "samples", given=samples)
        _arguments.check_finite_samples(samples)
        if query is not None:
            query = self._as_query(query, samples)
        return self._complete(samples, query=query, seed=seed)[0]

    def _as_query(self, query: Any, samples: Samples) -> tf.Tensor:
        batch_shape = _graph.batch_shape_of(samples, self._event_ranks)
        return _checks.checked_query(self, query, batch_size=batch_shape[-1])

    def _complete(
        self,
        samples: Samples,
        *,
        query: Any,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        allow_unregistered: bool = False,
    ) -> tuple[Samples, tf.Tensor]:
        return _graph.sample_rest(
            self.latents,
            samples,
            batch_shape=_graph.batch_shape_of(samples, self._event_ranks),
            query=query,
            seed=seed,
            temperature=temperature,
            allow_unregistered=allow_unregistered,
        )

    def _build_on_zeros(self) -> tfd.Distribution:
        """Builds every layer; returns p(x | latents)."""
        image = tf.zeros((1, *self.event_shape))
        samples: Samples = {}
        for latent in self.latents:
            observed = image if latent.per_element else image[:, tf.newaxis]
            parents = _graph.parents_of(latent, samples)
            posterior, prior = latent(observed, *parents)
            _gradients.check_reparameterized(latent, posterior)
            value = _graph.sample(posterior, [1], seed=tf.zeros([2], tf.int32))
            _checks.check_kl(latent, latent.kl(posterior, prior, sample=value))
            _gradients.check_posterior_learns(latent, observed, parents=parents)
            if latent.fitted_prior is not None:
                latent.fitted_prior().log_prob(value)
            samples[latent.name] = value
            self._nodes[latent.name] = _summary.Node(
                tuple(value.shape[1:]),
                _summary.family_of(prior),
                _summary.family_of(posterior),
            )
        likelihood = _gradients.check_all_used(
            self, self.likelihood, samples=samples
        )
        self._nodes["x"] = _summary.Node(
            self.event_shape, _summary.family_of(likelihood), "-"
        )
        return likelihood
