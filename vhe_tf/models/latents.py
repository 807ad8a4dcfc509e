"""Declared latents and their acyclic graph (Section 3.2)."""

import inspect
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions import divergences
from vhe_tf.layers import base
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.layers import spatial_inference

__all__ = ["Latent", "check_likelihood", "parents_first"]

_DIVERGENCES = ("closed_form", "one_sample")


@keras.saving.register_keras_serializable(package="vhe_tf")
class Latent(base.BaseLayer):
    """A latent variable with a name, a prior and a posterior.

    `Latent.vector` and `Latent.template` declare the two usual kinds.

    A group latent (`per_element=False`) is shared by all elements of a group
    and inferred from a support set D of its elements. A per-element latent
    belongs to one element and is inferred from that element.

    Args:
        name: String. The name of the latent. For a group latent it is also the
            name of the grouping in the data (`"character"`, `"alphabet"`).
        prior: Keras layer. `prior(*parents)` returns the `tfd.Distribution`
            `p(latent | parents)`. Without parents its batch shape is `[]`.
        posterior: Keras layer. `posterior(observed, *parents)` returns
            `q(latent; observed, parents)`, with the event shape of the prior.
            `observed` is the support, `[B, N, H, W, C]`, or for a per-element
            latent the query, `[B, H, W, C]`. Parents can have sample axes,
            `[S..., B, E...]`. The posterior then has batch shape `[S..., B]`.
        parents: Sequence of strings. Names of the latents on which it is
            conditioned. Defaults to none.
        per_element: Boolean. Whether each element has its own value. Defaults
            to False.
        divergence: String. `"closed_form"`, or `"one_sample"` if the KL of
            posterior and prior has no closed form. Defaults to
            `"closed_form"`.
        fitted_prior: Keras layer or None. `fitted_prior()` returns the
            distribution from which new groups are sampled instead of the
            prior; see `vhe_tf.fit_prior`. It is not trained by `fit`, and no
            likelihood uses it. Defaults to None.

    Call arguments:
        observed: Tensor. The support or the query, see `posterior`.
        *parents: Tensors of shape `[S..., B, E...]`, the values of the
            parents, in the order of `parents`.

    Returns:
        The posterior and the prior, two `tfd.Distribution`s.

    Raises:
        ValueError: If `divergence` is unknown, a latent is its own parent, or
            a latent with parents has a fitted prior.

    Example:
    >>> from vhe_tf import layers
    >>> latent = Latent(
    ...     "character",
    ...     prior=layers.StandardNormal(3),
    ...     posterior=layers.SupportPosterior(keras.layers.Flatten(), 3, 8),
    ... )
    >>> posterior, prior = latent(tf.zeros([2, 5, 8, 8, 1]))
    >>> latent.kl(posterior, prior, sample=posterior.mean()).shape
    TensorShape([2])
    """

    def __init__(
        self,
        name: str,
        *,
        prior: keras.layers.Layer,
        posterior: keras.layers.Layer,
        parents: Sequence[str] = (),
        per_element: bool = False,
        divergence: str = "closed_form",
        fitted_prior: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, autocast=False, **kwargs)
        if divergence not in _DIVERGENCES:
            raise ValueError(
                f"`divergence` of latent {name!r} must be one of "
                f"{_DIVERGENCES}. Received: divergence={divergence!r}."
            )
        if name in parents:
            raise ValueError(
                f"Latent {name!r} cannot be its own parent. "
                f"Received: parents={tuple(parents)}."
            )
        if fitted_prior is not None and (parents or per_element):
            raise ValueError(
                "Only a group latent without parents can have a fitted prior. "
                f"Received: latent {name!r}, parents={tuple(parents)}, "
                f"per_element={per_element}."
            )
        _check_call(name, "prior", layer=prior, inputs=parents)
        _check_call(
            name, "posterior", layer=posterior, inputs=["observed", *parents]
        )
        if fitted_prior is not None:
            _check_layer(f"`fitted_prior` of latent {name!r}", fitted_prior)
        self.prior = prior
        self.posterior = posterior
        self.parents = tuple(parents)
        self.per_element = per_element
        self.divergence = divergence
        self.fitted_prior = fitted_prior
        if fitted_prior is not None:
            fitted_prior.trainable = False

    @classmethod
    def vector(
        cls,
        name: str,
        size: int,
        *,
        encoder: keras.layers.Layer,
        units: int = 128,
        parents: Sequence[str] = (),
        per_element: bool = False,
    ) -> "Latent":
        """Declares a vector with a diagonal Gaussian posterior.

        Its prior is N(0, I), or given parents a diagonal Gaussian that a dense
        layer computes from them.

        Args:
            name: String. As in `Latent`.
            size: Positive integer. Number of dimensions.
            encoder: Keras layer from elements `[B, ...]` to features `[B, F]`.
            units: Integer. Width of the dense layers. Defaults to 128.
            parents: As in `Latent`; vectors too.
            per_element: As in `Latent`.

        Example:
        >>> encoder = keras.layers.Flatten()
        >>> latent = Latent.vector("character", 16, encoder=encoder)
        >>> latent(tf.zeros([2, 5, 8, 8, 1]))[0].event_shape
        TensorShape([16])
        """
        posterior = (
            inference.QueryPosterior
            if per_element
            else inference.SupportPosterior
        )
        return cls(
            name,
            prior=inference.ConditionalNormal(size, units)
            if parents
            else heads.StandardNormal(size),
            posterior=posterior(encoder, size, units),
            parents=parents,
            per_element=per_element,
        )

    @classmethod
    def template(
        cls,
        name: str,
        template_shape: Sequence[int],
        *,
        filters: Sequence[int] = (16, 32, 48),
        kernel_size: int = 3,
        prior_filters: int = 16,
        prior_blocks: int = 2,
        initial_scale: float | None = None,
        parents: Sequence[str] = (),
    ) -> "Latent":
        """Declares a template, an image with a PixelCNN prior (Figure 3).

        Args:
            name: String. As in `Latent`.
            template_shape: Three positive integers, `(H, W, L)`. The height and
                width of the images, and the number of channels.
            filters: Integers. Filters of each scale of the posterior. Defaults
                to `(16, 32, 48)`.
            kernel_size: Integer. Kernel size of its convolutions. Defaults to
                3.
            prior_filters: Integer. Filters of the prior. Defaults to 16.
            prior_blocks: Integer. Number of its blocks. Defaults to 2.
            initial_scale: Float or None. As in `layers.TemplatePosterior`.
            parents: As in `Latent`; vectors.

        Example:
        >>> latent = Latent.template("character", (8, 8, 3), prior_blocks=1)
        >>> latent(tf.zeros([2, 5, 8, 8, 1]))[0].event_shape
        TensorShape([8, 8, 3])
        """
        return cls(
            name,
            prior=spatial_inference.PixelCNNPrior(
                template_shape,
                prior_filters,
                prior_blocks,
                conditional=bool(parents),
            ),
            posterior=spatial_inference.TemplatePosterior(
                template_shape[2],
                filters,
                kernel_size,
                initial_scale=initial_scale,
                conditional=bool(parents),
            ),
            parents=parents,
            divergence="one_sample",
        )

    def call(
        self, observed: tf.Tensor, *parents: tf.Tensor
    ) -> tuple[tfd.Distribution, tfd.Distribution]:
        return self.posterior(observed, *parents), self.prior(*parents)

    def generator(self, *parents: tf.Tensor) -> tfd.Distribution:
        """Returns what new groups are sampled from.

        Args:
            *parents: As in `call`.

        Returns:
            The fitted prior if there is one, else p(latent | parents).
        """
        if self.fitted_prior is None:
            return self.prior(*parents)
        return self.fitted_prior()

    def kl(
        self,
        posterior: tfd.Distribution,
        prior: tfd.Distribution,
        *,
        sample: tf.Tensor,
    ) -> tf.Tensor:
        """Returns `KL[posterior || prior]`, `[S..., B]`, nats.

        Raises:
            ValueError: If their event shapes differ, or `divergence` is
                `"closed_form"` and no closed form is known.
        """
        if not posterior.event_shape.is_compatible_with(prior.event_shape):
            raise ValueError(
                f"Prior and posterior of latent {self.name!r} must have the "
                f"same event shape. Received: {prior.event_shape} and "
                f"{posterior.event_shape}."
            )
        if self.divergence == "one_sample":
            return divergences.kl_from_sample(posterior, prior, sample=sample)
        try:
            return tfd.kl_divergence(posterior, prior)
        except NotImplementedError as error:
            raise ValueError(
                f"No closed form of the KL of latent {self.name!r} is known. "
                "Declare it with divergence='one_sample'. Received: a "
                f"posterior {type(posterior).__name__} and a prior "
                f"{type(prior).__name__}."
            ) from error

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["trainable"], config["dtype"]
        return config


def _check_call(
    name: str, role: str, *, layer: keras.layers.Layer, inputs: Sequence[str]
) -> None:
    """Rejects layers that cannot be called with the latent's inputs."""
    _check_layer(f"`{role}` of latent {name!r}", layer)
    signature = inspect.signature(layer.call)
    try:
        signature.bind(*inputs)
    except TypeError:
        fits = False
    else:
        fits = bool(signature.parameters)  # Keras cannot call it without
    if not fits:
        wanted = "*parents" if role == "prior" else "observed, *parents"
        raise ValueError(
            f"The {role} of latent {name!r} is called with {len(inputs)} "
            f"tensors, {list(inputs)}: define `def call(self, {wanted})`. "
            f"Received: {type(layer).__name__}.call{signature}."
        )


def _check_layer(what: str, layer: Any) -> None:
    if isinstance(layer, keras.layers.Layer):
        return
    raise ValueError(
        f"{what} must be a Keras layer whose `call` returns a "
        "`tfd.Distribution`, so that its weights are trained and saved. Give "
        "an instance of one of `vhe_tf.layers` or of your own. Received: "
        f"{layer!r:.200} of type {type(layer).__name__}."
    )


def check_likelihood(likelihood: Any, latents: Sequence[Latent]) -> None:
    """Rejects likelihoods that cannot be called with the latents by name.

    Args:
        likelihood: Keras layer. The likelihood of a model.
        latents: Sequence of `Latent`s. Those of the model.

    Raises:
        ValueError: If it is not a layer, or its `call` has other arguments.
    """
    _check_layer("`likelihood`", likelihood)
    names = [latent.name for latent in latents]
    signature = inspect.signature(likelihood.call)
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise ValueError(
            "The likelihood is called with the values of the latents by name: "
            f"define `def call(self, {', '.join(names)})`, or `def call(self, "
            "**latents)`. Received: "
            f"{type(likelihood).__name__}.call{signature}."
        ) from error


def parents_first(latents: Iterable[Latent]) -> tuple[Latent, ...]:
    """Sorts latents so that each follows its parents.

    Args:
        latents: Iterable of `Latent`s. Declared latents. If the parents of
            several are placed, the latent declared first is next.

    Returns:
        Tuple of the same latents, parents first.

    Raises:
        ValueError: If there are no latents or no group latent, a name occurs
            twice, a parent is unknown, a group latent has a per-element
            parent, or the graph has a cycle.
    """
    waiting = {}
    for latent in latents:
        if latent.name in waiting:
            raise ValueError(
                "The names of latents must differ. Received: two latents "
                f"named {latent.name!r}."
            )
        waiting[latent.name] = latent
    if all(latent.per_element for latent in waiting.values()):
        raise ValueError(
            "A VHE needs at least one group latent (per_element=False). "
            f"Received: {sorted(waiting)}."
        )
    for latent in waiting.values():
        _check_parents(latent, waiting)
    order: list[Latent] = []
    while waiting:
        placed = {latent.name for latent in order}
        ready = [v for v in waiting.values() if placed.issuperset(v.parents)]
        if not ready:
            raise ValueError(
                "The latents must form an acyclic graph. Received a cycle "
                f"among {sorted(waiting)}."
            )
        order.append(ready[0])
        del waiting[ready[0].name]
    return tuple(order)


def _check_parents(latent: Latent, latents: dict[str, Latent]) -> None:
    for parent in latent.parents:
        if parent not in latents:
            raise ValueError(
                f"Latent {latent.name!r} names a parent that is not declared. "
                f"Declared: {sorted(latents)}. Received: parent={parent!r}."
            )
        if latents[parent].per_element and not latent.per_element:
            raise ValueError(
                f"Group latent {latent.name!r} is shared by many elements and "
                "cannot depend on a latent of one element. "
                f"Received: parent={parent!r}, which has per_element=True."
            )
