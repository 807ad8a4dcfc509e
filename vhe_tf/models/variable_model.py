"""Generation and scores by models of declared latent variables."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.distributions import depth_upscaling
from vhe_tf.distributions import pixel_cnn
from vhe_tf.distributions import tempering
from vhe_tf.models import _arguments
from vhe_tf.models import _checks
from vhe_tf.models import _graph
from vhe_tf.models._batching import batch_axis_optional
from vhe_tf.models._best_of import best_of_samples
from vhe_tf.models._graph import Samples
from vhe_tf.models._graph import Support
from vhe_tf.models.graph_model import GraphModel

__all__ = ["LatentVariableModel"]

# Where drawings stand nearest to people's, see docs/drawings.md.
_GUIDANCE = 0.6
_NUM_CONTRASTS = 6
_CONTRAST_SEED = 0


class LatentVariableModel(GraphModel):
    """A hierarchical model of grouped images, without an objective.

    It generates, reconstructs and scores images. `Recognizer` adds
    classification.
    """

    guidance: float | None = None
    _fixed_contrasts: Samples | None = None

    def render(
        self,
        samples: Samples,
        *,
        seed: int | tf.Tensor,
        query: Any = None,
        temperature: float | tf.Tensor = 1.0,
        guidance: float | None = None,
    ) -> tf.Tensor:
        """Returns an image to look at for each sample of the group latents.

        Args:
            samples: As in `decode`.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            query: As in `decode`.
            temperature: As in `sample`.
            guidance: As in `sample`.

        Returns:
            Tensor of shape `[S..., B, H, W, C]`. The mean of p(x | latents) if
            its pixels are independent, else a sample.

        Example:
        >>> samples = model.infer(data.images[None, :2], seed=0)
        >>> model.render(samples, seed=1).shape
        TensorShape([1, 1, 8, 8, 1])
        """
        samples = self._completed(
            samples, seed=random.fold_in(seed, 0), query=query
        )
        likelihood = tempering.tempered(
            self._guided(self.likelihood(**samples), samples, guidance),
            temperature,
        )
        try:
            return likelihood.mean()
        except NotImplementedError:
            return _graph.sample(likelihood, seed=random.fold_in(seed, 1))

    @batch_axis_optional()
    def sample(
        self,
        support: Support | tf.Tensor,
        *,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        latent_temperature: float | tf.Tensor = 1.0,
        guidance: float | None = None,
        best_of: int = 1,
    ) -> tf.Tensor:
        """Samples a new element of each group (few-shot generation).

        Args:
            support: As in `infer`. Without the axis B, of shape
                `[N, H, W, C]`, it is one group, and the result has no axis B.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: Float. Temperature of p(x | latents), see `tempered`.
                Below 1, binary images of a PixelCNN lose ink and strokes; use
                `guidance` instead. Defaults to 1.
            latent_temperature: Float. Temperature of the priors of latents
                without a support, such as a pose. Defaults to 1.
            guidance: Float, w, or None. For PixelCNNs of binary pixels: each
                pixel has the logit (1 + w) l - w m. l is the logit given c,
                and m that of the mean probability given six samples of the
                prior p(c), which are always the same. Sampling takes seven
                times as long. For pixels with levels see
                `GuidedDiscretizedPixels`; if the higher bits come first, these
                alone are guided. In a model with several group
                latents, the contrasts differ in the first one and those
                related to it. With 0, images are samples of p(x | D).
                Defaults to None: that of the model.
            best_of: Integer. Number of samples per element. The one with the
                largest log p(support | sample) is returned. If there are
                several supports, those of the latents that guidance contrasts
                count. Defaults to 1.

        Returns:
            Tensor of shape `[B, H, W, C]`, samples of p(x | D). Gaussian
            pixels can lie outside 0..1.

        Raises:
            ValueError: If `guidance` is not a finite non-negative number, or
                not 0 for a model without guidance; if a temperature or
                `best_of` is not positive, or `best_of` is above 1 for a result
                of `encode`.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six characters
        >>> model.sample(images[:, :2], seed=0).shape
        TensorShape([6, 8, 8, 1])
        """
        support = _checks.checked_support(self, support)
        validation.positive("best_of", best_of)
        if best_of > 1:
            return best_of_samples(
                self,
                support,
                count=best_of,
                seed=seed,
                temperature=temperature,
                latent_temperature=latent_temperature,
                guidance=guidance,
            )
        samples = self.infer(
            support,
            seed=random.fold_in(seed, 0),
            temperature=latent_temperature,
        )
        return self._sample_images(
            samples,
            temperature,
            seed=seed,
            latent_temperature=latent_temperature,
            guidance=guidance,
        )

    def sample_prior(
        self,
        batch_size: int,
        *,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        latent_temperature: float | tf.Tensor = 1.0,
        guidance: float | None = None,
    ) -> tf.Tensor:
        """Samples elements of new groups (unconditional generation).

        Group latents are sampled from their fitted priors, if they have one
        (see `vhe_tf.fit_prior`), else from their priors.

        Args:
            batch_size: Integer, B. Number of groups.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: As in `sample`.
            latent_temperature: Float. Temperature of the priors of the group
                latents. Defaults to 1.
            guidance: As in `sample`.

        Returns:
            Tensor of shape `[B, H, W, C]`, one element of each group.

        Raises:
            ValueError: If `batch_size` or a temperature is not positive, or
                `guidance` is not a finite non-negative number.

        Example:
        >>> model.sample_prior(3, seed=0).shape
        TensorShape([3, 8, 8, 1])
        """
        samples = self.infer(
            {},
            seed=random.fold_in(seed, 0),
            batch_size=batch_size,
            temperature=latent_temperature,
        )
        return self._sample_images(
            samples, temperature, seed=seed, guidance=guidance
        )

    @batch_axis_optional()
    def reconstruct(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Reconstructs elements from their latents.

        Args:
            support: As in `sample`. Group latents without a support are
                inferred from the query.
            query: Tensor of shape `[B, H, W, C]`, the elements.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: As in `sample`.

        Returns:
            Tensor of shape `[B, H, W, C]`, see `render`.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six characters
        >>> model.reconstruct(images[:, :2], images[:, 2], seed=0).shape
        TensorShape([6, 8, 8, 1])
        """
        query = _checks.checked_images(self, "query", images=query)
        samples = self.infer(
            _checks.checked_support(self, support, query=query),
            seed=random.fold_in(seed, 0),
            sample_unobserved=False,
        )
        return self.render(
            samples,
            seed=random.fold_in(seed, 1),
            query=query,
            temperature=temperature,
            guidance=0.0,  # a reconstruction is of the image as it is
        )[0]

    @batch_axis_optional()
    def interpolate(
        self,
        support: Support | tf.Tensor,
        other: Support | tf.Tensor,
        *,
        num_steps: int,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Samples elements of groups between two groups.

        All steps use the same randomness, so that only the group changes.

        Args:
            support: As in `sample`.
            other: As in `sample`. The same latents, for the groups at the other
                end.
            num_steps: Integer, T. Number of steps, both ends included.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: As in `sample`.

        Returns:
            Tensor of shape `[B, T, H, W, C]`, see `render`. The group latents
            lie on a straight line between two samples.

        Raises:
            ValueError: If `num_steps` is below 2.

        Example:
        >>> one, other = data.images[:2], data.images[7:9]
        >>> model.interpolate(one, other, num_steps=4, seed=0).shape
        TensorShape([4, 8, 8, 1])
        """
        if num_steps < 2:
            raise ValueError(
                "`num_steps` counts both ends, so it is 2 or more. "
                f"Received: num_steps={num_steps!r}."
            )
        start = self.infer(
            _checks.checked_support(self, support), seed=random.fold_in(seed, 0)
        )
        end = self.infer(
            _checks.checked_support(self, other), seed=random.fold_in(seed, 0)
        )
        for name in start:
            tf.debugging.assert_equal(
                tf.shape(start[name]),
                tf.shape(end[name]),
                "`support` and `other` must have the same B.",
            )

        def render(weight: tf.Tensor) -> tf.Tensor:
            between = {
                name: (1.0 - weight) * start[name] + weight * end[name]
                for name in start
            }
            return self.render(
                between, seed=random.fold_in(seed, 1), temperature=temperature
            )[0]

        images = tf.map_fn(
            render, tf.linspace(0.0, 1.0, num_steps), parallel_iterations=1
        )
        return tf.einsum("tb...->bt...", images)

    def log_likelihood_given(
        self,
        samples: Samples,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Estimates log p(x | group latents) for given group latents.

        Per-element latents are integrated out by importance weighting with
        their posterior: log (1/T) sum{ p(x, z_t | c) / q(z_t; c, x) }.

        Args:
            samples: As in `decode`. Group latents that it lacks are integrated
                out like the per-element latents, with q(c; {x}).
            query: Tensor of shape `[B, H, W, C]`, x.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_element_samples: Integer, T. Defaults to 1.

        Returns:
            Tensor of shape `[S..., B]`, nats. Exact if `samples` has every
            latent, else a lower bound in expectation, tight for large T.

        Raises:
            ValueError: As in `decode`, or if `num_element_samples` is not
                positive.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six characters
        >>> samples = model.infer(images[:, :2], seed=0, num_samples=5)
        >>> model.log_likelihood_given(samples, images[:, 2], seed=1).shape
        TensorShape([5, 6])
        """
        _checks.check_given(self, "samples", given=samples)
        _arguments.check_finite_samples(samples)
        validation.positive("num_element_samples", num_element_samples)
        return self._log_likelihood_given(
            samples,
            self._as_query(query, samples),
            seed=seed,
            num_element_samples=num_element_samples,
        )

    def _log_likelihood_given(
        self,
        samples: Samples,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_element_samples: int,
        allow_unregistered: bool = False,
    ) -> tf.Tensor:
        if all(latent.name in samples for latent in self.latents):
            return self.likelihood(**samples).log_prob(query)
        repeated = {
            name: tf.repeat(value[tf.newaxis], num_element_samples, axis=0)
            for name, value in samples.items()
        }  # [T, S..., B, E...]
        complete, log_weight = self._complete(
            repeated,
            query=query,
            seed=seed,
            allow_unregistered=allow_unregistered,
        )
        log_weight += self.likelihood(**complete).log_prob(query)
        return _graph.log_mean_exp(log_weight)

    @batch_axis_optional()
    def log_likelihood(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int = 20,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Estimates the conditional log-likelihood log E_q(c; D) p(x | c).

        Args:
            support: As in `sample`. Group latents without a support are
                integrated out, see `log_likelihood_given`.
            query: Tensor of shape `[B, H, W, C]`, x.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: Integer, S. Number of samples of the group latents.
                Defaults to 20.
            num_element_samples: Integer, T. Number of samples of the
                per-element latents for each of them. Defaults to 1.

        Returns:
            Tensor of shape `[B]`, nats (Section 4.1).

        Raises:
            ValueError: If a number is not positive.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six characters
        >>> model.log_likelihood(images[:, :2], images[:, 2], seed=0).shape
        TensorShape([6])
        """
        query = _checks.checked_images(self, "query", images=query)
        samples = self.infer(
            _checks.checked_support(self, support, query=query),
            seed=random.fold_in(seed, 0),
            num_samples=num_samples,
            sample_unobserved=False,
        )
        return _graph.log_mean_exp(
            self.log_likelihood_given(
                samples,
                query,
                seed=random.fold_in(seed, 1),
                num_element_samples=num_element_samples,
            )
        )

    def _sample_images(
        self,
        samples: Samples,
        temperature: float | tf.Tensor,
        *,
        seed: int | tf.Tensor,
        latent_temperature: float | tf.Tensor = 1.0,
        guidance: float | None,
    ) -> tf.Tensor:
        _arguments.check_finite_samples(samples)
        samples, _ = self._complete(
            samples,
            query=None,
            seed=random.fold_in(seed, 1),
            temperature=latent_temperature,
        )
        likelihood = self.likelihood(**samples)
        likelihood = self._guided(likelihood, samples, guidance)
        likelihood = tempering.tempered(likelihood, temperature)
        return _graph.sample(likelihood, seed=random.fold_in(seed, 2))[0]

    def _guided(
        self, likelihood: Any, samples: Samples, guidance: float | None
    ) -> Any:
        """Returns the likelihood `[S..., B]` with guidance."""
        if guidance is None:
            guidance = self._default_guidance(likelihood)
        if guidance == 0.0:
            return likelihood
        contrasts = self._fixed_contrasts or self._contrasts()
        # Contrasts of each element have its own pose, and its other latents.
        shown: Samples = {}
        for name, value in samples.items():
            other = value[tf.newaxis]
            if name in contrasts:
                other = contrasts[name]
                while other.shape.rank <= value.shape.rank:
                    other = other[:, tf.newaxis]
            shown[name] = tf.broadcast_to(
                other, tf.concat([[_NUM_CONTRASTS], tf.shape(value)], axis=0)
            )  # [K, S..., B, E...]
        return depth_upscaling.guided(
            likelihood, self.likelihood(**shown), guidance=guidance
        )

    def _default_guidance(self, likelihood: Any) -> float:
        if self.guidance is not None:
            return self.guidance
        return _GUIDANCE if pixel_cnn.has_binary_pixels(likelihood) else 0.0

    def _contrasts(self) -> Samples:
        """Returns classes to guide away from, `[K, 1, E...]`.

        Latents that are independent of the classes, such as styles, are not
        among them: the contrasts have the style of the element.
        """
        samples, _ = _graph.sample_groups(
            self.latents,
            {},
            batch_shape=[_NUM_CONTRASTS, 1],
            seed=_CONTRAST_SEED,
            temperature=1.0,
            sample_unobserved=True,
            fitted=False,
        )
        related = _graph.related_to_first(self.latents)
        return {name: samples[name] for name in related}

    @contextlib.contextmanager
    def contrasts_fixed(self) -> Iterator[None]:
        """Computes the contrasts of guided samples once, for constant weights.

        Graphs that are traced meanwhile hold them as constants.
        """
        self._fixed_contrasts = self._contrasts()
        try:
            yield
        finally:
            self._fixed_contrasts = None
