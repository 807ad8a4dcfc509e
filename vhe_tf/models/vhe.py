"""The Variational Homoencoder over any declared graph of latents.

One ELBO covers the class-structured, per-element, hierarchical and factorial
models of the paper (Eq. 15, 16, 18 and 21):

    elbo(x) =   E_q [ log p(x | every latent) ]
              - sum over per-element latents   KL[q(z; x) || p(z)]
              - sum over group latents g of x  KL[q(c_g; D_g) || p(c_g)] / |X_g|

(q and p of each latent given its parents). One class is therefore enough:
latents are declared (`vhe_tf.Latent`), not subclassed.
`call` is a pure function of weights, episode and seed. It assigns no variable,
and the episode seeds all its randomness. The same code therefore trains,
compiles, resumes exactly and exports.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf import objectives
from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.layers import dropout
from vhe_tf.models import _checks
from vhe_tf.models import _graph
from vhe_tf.models import _summary
from vhe_tf.models.latents import Latent
from vhe_tf.models.recognizer import Recognizer

__all__ = ["VHE"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class VHE(Recognizer):
    """A hierarchical Bayesian model of grouped elements (Section 3).

    Elements are arrays of one shape: images, vectors, sequences, numbers. Where
    the documentation has images of shape `[H, W, C]`, other elements have their
    own `event_shape`; pictures and augmentation are for images alone.

    To save a model with layers of your own, define their `get_config` and
    register their classes by `@keras.saving.register_keras_serializable()`.

    Args:
        latents: Sequence of `Latent`s, in any order. Sorted parents first.
        likelihood: Keras layer. `likelihood(**latents)` returns the
            `tfd.Distribution` `p(x | latents)` with event shape `event_shape`
            and batch shape `[S..., B]`.
        event_shape: Positive integers. The shape of an element, `(H, W, C)` of
            an image, `()` of a number.
        objective: `Objective` or its name. The objective to train. Defaults
            to `"vhe"`.
        guidance: Float or None. Guidance of samples unless a call says
            otherwise, see `sample`. Defaults to None: 0.6 for PixelCNNs of
            binary pixels, where drawings stand nearest to people's, and 0 for
            other likelihoods.
        **kwargs: Passed on to `keras.Model`.

    Call arguments:
        episode: Mapping with these keys.
            `query`: float32 tensor of shape `[B, H, W, C]`, the elements x.
            `support`: for each group latent, a float32 tensor of shape
            `[B, N, H, W, C]`, D.
            `group_size`: for each group latent, an int32 tensor of shape
            `[B]`, |X|, augmented copies included. Required by objectives that
            rescale and by `fit`, which reports it.
            `has_label`: optional. For some group latents, a boolean tensor of
            shape `[B]`, whether the group of x has a label. Without a label,
            the latent is sampled from its prior and its KL is 0.
            `seed`: int32 tensor of shape `[B, 2]`, one seed per row. The only
            source of randomness in `call`. If the families of distributions
            are registered (see `vhe_tf.random.register`), a row's samples
            depend on its own seed alone; otherwise also on the other rows, and
            so on the number of replicas and microbatches.
        training: Boolean. Whether dropout is active. Defaults to False.

    Returns:
        `ElboTerms`.

    Raises:
        ValueError: If the latents do not form a valid graph (see
            `parents_first`), `objective` is unknown, or `event_shape` is not
            positive integers. `call` raises it if the shapes of an episode do
            not agree with each other or with `event_shape`.

    Example:
    >>> from vhe_tf import layers
    >>> encoder = keras.layers.Flatten()
    >>> character = Latent.vector("character", 3, encoder=encoder)
    >>> likelihood = layers.ImageLikelihood(
    ...     layers.ConvolutionalDecoder((8, 8, 1), filters=[8]),
    ...     layers.BernoulliImageHead(),
    ... )
    >>> model = VHE([character], likelihood, event_shape=(8, 8, 1))
    >>> model.sample(tf.zeros([5, 8, 8, 1]), seed=(0, 1)).shape
    TensorShape([8, 8, 1])
    """

    def __init__(
        self,
        latents: Sequence[Latent],
        likelihood: keras.layers.Layer,
        *,
        event_shape: Sequence[int],
        objective: objectives.Objective | str = objectives.Objective.VHE,
        guidance: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(latents, likelihood, event_shape=event_shape, **kwargs)
        known = map(str, objectives.Objective)
        validation.check_choice(known, objective=objective)
        self.objective = objectives.Objective(objective)
        self.guidance = guidance
        self.kl_warmup_steps: dict[str, int] = {}
        self.accumulation = 1
        self._trackers = {
            name: keras.metrics.Mean(name=name) for name in self._metric_names()
        }

    # ELBO --------------------------------------------------------------------

    def call(
        self, episode: _graph.Episode, training: bool = False
    ) -> objectives.ElboTerms:
        episode = _checks.checked_episode(
            self, episode, rescales=self.objective.rescales
        )
        seeds = random.fold_in(episode["seed"], len(self.latents))
        with dropout.seed_scope(seeds, training=training):
            return self._terms(episode)

    def _terms(self, episode: _graph.Episode) -> objectives.ElboTerms:
        query = episode["query"]
        batch_shape = tf.shape(query)[:1]
        samples: _graph.Samples = {}
        kl: dict[str, tf.Tensor] = {}
        group_scale: dict[str, tf.Tensor] = {}
        for index, latent in enumerate(self.latents):
            name = latent.name
            observed = query if latent.per_element else episode["support"][name]
            posterior, prior = latent(
                observed, *_graph.parents_of(latent, samples)
            )
            seeds = random.fold_in(episode["seed"], index)
            samples[name] = _graph.sample(
                posterior, batch_shape, seed=seeds, allow_unregistered=True
            )
            kl[name] = latent.kl(posterior, prior, sample=samples[name])
            group_scale[name] = self._group_scale(latent, episode)
            if name in episode.get("has_label", {}):
                has_label = episode["has_label"][name]
                from_prior = _graph.sample(
                    prior, batch_shape, seed=seeds, allow_unregistered=True
                )
                samples[name] = _graph.where_rows(
                    has_label, samples[name], other=from_prior
                )
                kl[name] = tf.where(has_label, kl[name], 0.0)
        log_likelihood = self.likelihood(**samples).log_prob(query)
        return objectives.elbo_terms(
            log_likelihood=log_likelihood, kl=kl, group_scale=group_scale
        )

    def _group_scale(
        self, latent: Latent, episode: _graph.Episode
    ) -> tf.Tensor:
        """Returns the number by which the KL of a latent is divided."""
        if latent.per_element:
            return tf.constant(1)
        if self.objective.rescales:
            # 0 for an element without a label, whose KL is 0.
            return tf.maximum(episode["group_size"][latent.name], 1)
        return tf.shape(episode["support"][latent.name])[1]

    # Training ----------------------------------------------------------------

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        *,
        kl_warmup_steps: Mapping[str, int] | None = None,
        accumulation: int = 1,
        **kwargs: Any,
    ) -> None:
        """Configures training.

        Args:
            optimizer: Keras optimizer or its name. Defaults to `"adam"`.
            kl_warmup_steps: Mapping from names of latents to integers. Number
                of optimizer steps over which the weight of the KL in the loss
                grows linearly from 0 to 1. The metrics always report the ELBO
                itself. Defaults to no warm-up.
            accumulation: Integer. Number of gradient-accumulation steps per
                device batch, a divisor of B. The result agrees with one batch
                up to rounding and needs less memory. Defaults to 1.
            **kwargs: Passed on to `keras.Model.compile`. `jit_compile=None` is
                its default: XLA on GPUs. With several replicas XLA compiles
                the gradients of each.

        Raises:
            ValueError: If a name is not a latent of this model, a number is
                negative, or `accumulation` is not a positive integer.

        Example:
        >>> model.compile("adam", kl_warmup_steps={"character": 100})
        >>> model.kl_warmup_steps["character"]
        100
        """
        jit_compile = kwargs.pop("jit_compile", None)
        several = self.distribute_strategy.num_replicas_in_sync > 1
        if jit_compile in (None, "auto"):
            gpus = tf.config.list_physical_devices("GPU")
            jit_compile = bool(gpus) if several else "auto"
        # XLA cannot compile what replicas exchange: metrics, the mean gradient.
        self._compiles_each_replica = several and bool(jit_compile)
        self._differentiate = (
            tf.function(
                self._loss_and_gradients, jit_compile=True, autograph=False
            )
            if self._compiles_each_replica
            else self._loss_and_gradients
        )
        jit_compile = not several and jit_compile
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.kl_warmup_steps = _checks.checked_by_latent(
            self, "kl_warmup_steps", values=kl_warmup_steps
        )
        self.accumulation = validation.positive("accumulation", accumulation)

    def loss_of_terms(
        self, terms: objectives.ElboTerms, step: tf.Tensor
    ) -> tf.Tensor:
        """Returns the training loss: the negative ELBO with annealed KLs.

        Args:
            terms: `ElboTerms`, the result of `call`.
            step: Scalar integer tensor. Number of optimizer steps so far.

        Returns:
            Scalar float32 tensor, nats per element. It is
            `-mean(terms.elbo)` after every warm-up.
        """
        loss = -tf.reduce_mean(terms.log_likelihood)
        for name, scaled_kl in terms.scaled_kl.items():
            cost = tf.reduce_mean(scaled_kl)
            if self.kl_warmup_steps.get(name):
                progress = tf.cast(step, tf.float32) / float(
                    self.kl_warmup_steps[name]
                )
                cost *= tf.minimum(progress, 1.0)
            loss += cost
        return loss

    def train_step(self, episode: _graph.Episode) -> dict[str, Any]:
        """Performs one step of Algorithm 1 on a minibatch of episodes."""
        gradients = distribute.accumulated(
            self._gradients,
            episode,
            count=self.accumulation,
            variables=self.trainable_variables,
        )
        self.optimizer.apply(
            distribute.summed_once(gradients), self.trainable_variables
        )
        return self._results()

    def _gradients(self, episode: _graph.Episode) -> list[tf.Tensor | None]:
        """Returns the gradients of a microbatch and updates the metrics."""
        terms, loss, gradients = self._differentiate(episode)
        self._track(terms, loss, episode)
        return gradients

    def _loss_and_gradients(
        self, episode: _graph.Episode
    ) -> tuple[objectives.ElboTerms, tf.Tensor, list[tf.Tensor | None]]:
        with tf.GradientTape() as tape:
            terms = self(episode, training=True)
            loss = self.loss_of_terms(terms, self.optimizer.iterations)
            # Divided first: float16 gradients of a microbatch stay in range.
            scaled_loss = self.optimizer.scale_loss(loss / self.accumulation)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        return terms, loss, gradients

    def test_step(self, episode: _graph.Episode) -> dict[str, Any]:
        """Evaluates the ELBO on a minibatch of episodes."""
        terms = self(episode, training=False)
        self._track(terms, -tf.reduce_mean(terms.elbo), episode)
        return self._results()

    def predict_step(self, images: Any) -> dict[str, tf.Tensor]:
        """Returns an embedding of each image, one for each group latent.

        This is what `predict(images)` computes: the mean of the posterior
        q(c; {x}) given the image alone.
        """
        images, _, _ = keras.utils.unpack_x_y_sample_weight(images)
        if isinstance(images, Mapping):
            raise ValueError(
                "`predict` takes images, `[M, H, W, C]`; `evaluate` takes "
                f"episodes. Received: a mapping with {sorted(images)}."
            )
        support = dict.fromkeys(
            _graph.group_names(self.latents), images[:, tf.newaxis]
        )
        posteriors = self.encode(support)
        return {name: value.mean() for name, value in posteriors.items()}

    def predict(self, x: Any, *args: Any, **options: Any) -> Any:
        """Returns an embedding of each image; see `predict_step`.

        Args:
            x: Array of shape `[M, H, W, C]`, the images.
            *args: Passed on to `keras.Model.predict`.
            **options: Passed on to `keras.Model.predict`.

        Returns:
            Mapping from names of group latents to arrays, one row per image.

        Raises:
            ValueError: If `x` is not a batch of images of this model.

        Example:
        >>> model.predict(data.images, verbose=0)["character"].shape
        (42, 2)
        """
        if isinstance(x, np.ndarray | tf.Tensor):
            x = _checks.checked_images(self, "images", images=x)
            if x.shape.rank != 1 + len(self.event_shape):
                raise ValueError(
                    "`predict` takes images, `[M, H, W, C]`; a single one has "
                    "the first axis by `images[None]`. "
                    f"Received: images of shape {tuple(x.shape)}."
                )
        return super().predict(x, *args, **options)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over elements that `fit` reports and resets each epoch.

        Units are nats, except for `group_size_{latent}`. Elements without a
        label count as a KL of 0 and a group size of 0.
        """
        return list(self._trackers.values())

    def _metric_names(self) -> list[str]:
        names = ["loss", "elbo", "log_likelihood"]
        for latent in self.latents:
            names.append(f"kl_{latent.name}")
            if not latent.per_element:
                names.append(f"kl_{latent.name}_scaled")
                names.append(f"group_size_{latent.name}")
        return names

    def _track(
        self,
        terms: objectives.ElboTerms,
        loss: tf.Tensor,
        episode: _graph.Episode,
    ) -> None:
        sized = _graph.group_names(self.latents)
        _checks.check_keys(episode, sized, with_sizes=True)  # all are reported
        values = {
            "loss": loss,
            "elbo": terms.elbo,
            "log_likelihood": terms.log_likelihood,
        }
        for name in terms.kl:
            values[f"kl_{name}"] = terms.kl[name]
            values[f"kl_{name}_scaled"] = terms.scaled_kl[name]
        for name, size in episode["group_size"].items():
            values[f"group_size_{name}"] = tf.cast(size, tf.float32)
        for name, tracker in self._trackers.items():
            tracker.update_state(values[name])

    def _results(self) -> dict[str, Any]:
        return {name: t.result() for name, t in self._trackers.items()}

    # Description -------------------------------------------------------------

    def summary(
        self,
        *args: Any,
        print_fn: Callable[[str], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prints the graph of latents, and then Keras' table of layers.

        The arguments are those of `keras.Model.summary`.

        Example:
        >>> lines = []
        >>> model.summary(print_fn=lines.append)
        >>> "character" in lines[0]
        True
        """
        table = _summary.graph_table(
            self.latents, self.likelihood, nodes=self._nodes
        )
        (print_fn or print)(table)
        super().summary(*args, print_fn=print_fn, **kwargs)

    # Configuration -----------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "latents": [serialize(latent) for latent in self.latents],
            "likelihood": serialize(self.likelihood),
            "event_shape": list(self.event_shape),
            "objective": str(self.objective),
            "guidance": self.guidance,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VHE":
        revive = keras.saving.deserialize_keras_object
        config = dict(config)
        if "image_shape" in config:  # saved by version 0.2.0
            config["event_shape"] = config.pop("image_shape")
        return cls(
            **{
                **config,
                "latents": [revive(latent) for latent in config["latents"]],
                "likelihood": revive(config["likelihood"]),
            }
        )

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "kl_warmup_steps": dict(self.kl_warmup_steps),
            "accumulation": self.accumulation,
            "jit_compile": self.jit_compile or self._compiles_each_replica,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        revive = keras.saving.deserialize_keras_object
        self.compile(**{**config, "optimizer": revive(config["optimizer"])})
        self.optimizer.build(self.trainable_variables)
