"""Functions of an export: what TensorFlow Serving computes for its clients."""

import functools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.models import classification
from vhe_tf.models import open_set
from vhe_tf.models.vhe import VHE
from vhe_tf.serving import _rows

__all__ = ["plain_functions", "signatures"]

# Images that are decoded at once, over samples and classes. Bounds the memory.
_MAX_DECODED = 160

# As in `VHE.classify`.
_MAX_ERROR = 0.001

# Images that are encoded at once, and rows that are encoded or sampled at once.
# A sample under guidance decodes seven images.
_MAX_ENCODED = 1280
_MAX_ROWS = 64


_SEED = tf.TensorSpec([None], tf.int64, name="seed")


def signatures(
    model: VHE,
    *,
    num_samples: int = 20,
    num_element_samples: int = 1,
    max_rows: int = 256,
    sample_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the functions of an export by name.

    If the model has one group latent, the functions are `classify`,
    `classify_encoded`, `encode`, `log_likelihood`, `sample`, `sample_encoded`
    and `sample_prior`. The support is called `support`, the parameters of the
    posterior `mean` and `stddev`.

    PixelCNNs of binary 28x28 images have also `novelty`, which takes the
    `log_likelihood` of `classify`; see `VHE.novelty`.

    If the model has several group latents, there are two kinds of functions:

    - For each group latent g, `classify_{g}`, `encode_{g}` and `sample_{g}`
      take images that share g, as `support`. They infer the parents of g from
      the same images. All other latents are sampled from their priors in
      `sample_{g}` and integrated out in `classify_{g}`. `encode_{g}` returns
      the posterior of g given the means of its parents. `classify` is that of
      the last group latent in the graph.
    - `encode`, `log_likelihood`, `sample`, `sample_encoded` and
      `sample_prior` use all group latents. They take `support_{g}`, or
      `{g}_mean` and `{g}_stddev`, for each. In a factorial model `sample` is
      style transfer: the content of one support in the style of another.

    Args:
        model: `VHE`. The model.
        num_samples: Integer. As in `export`.
        num_element_samples: Integer. As in `export`.
        max_rows: Integer. As in `export`.
        sample_options: As in `export`.

    Returns:
        Mapping from names to `tf.function`s with input signatures.

    Raises:
        ValueError: If one of several latents has the name of a joint function,
            or `max_rows` or a number of samples is not positive.

    Example:
    >>> functions = signatures(model, num_samples=1)
    >>> functions["sample_prior"](tf.constant([7], tf.int64))["images"].shape
    TensorShape([1, 8, 8, 1])
    """
    counts = _counts(num_samples, num_element_samples)
    max_rows = validation.positive("max_rows", max_rows)
    options = sample_options or {}
    names = _group_names(model)
    if len(names) > 1 and {"encoded", "prior"} & set(names):
        raise ValueError(
            "`sample_encoded` and `sample_prior` are signatures of all group "
            "latents, so a latent cannot be named 'encoded' or 'prior'. Rename "
            f"the latent. Received: latents={names}."
        )
    with model.contrasts_fixed():  # as the weights are
        return _functions(
            names,
            lambda some: _Signatures(model, some, counts, max_rows, options),
        )


def plain_functions(
    model: VHE,
    *,
    num_samples: int,
    num_element_samples: int,
    sample_options: Mapping[str, Any] | None,
) -> dict[str, tuple[_rows.Function, list[Any]]]:
    """Returns the functions of a portable export by name.

    Args:
        model: `VHE`. The model.
        num_samples: Integer. As in `export`.
        num_element_samples: Integer. As in `export`.
        sample_options: As in `export`.

    Returns:
        Mapping from names to pairs: a function from inputs to outputs by name,
        and the specs of the inputs but `seed`.
    """
    return _Signatures(
        model,
        _group_names(model),
        _counts(num_samples, num_element_samples),
        max_rows=1,
        options=sample_options or {},
    ).plain()


def _counts(num_samples: int, num_element_samples: int) -> dict[str, int]:
    return {
        "num_samples": validation.positive("num_samples", num_samples),
        "num_element_samples": validation.positive(
            "num_element_samples", num_element_samples
        ),
    }


def _group_names(model: VHE) -> list[str]:
    return [latent.name for latent in model.latents if not latent.per_element]


def _functions(
    names: Sequence[str],
    signatures_of: Callable[[Sequence[str]], "_Signatures"],
) -> dict[str, Any]:
    """Returns the functions of all group latents and of each."""
    joint = signatures_of(names)
    functions = {
        "encode": joint.encode(),
        "log_likelihood": joint.log_likelihood(),
        "sample": joint.sample(),
        "sample_encoded": joint.sample_encoded(),
        "sample_prior": joint.sample_prior(),
    }
    if len(names) == 1:
        functions["classify"] = joint.classify()
        functions["classify_encoded"] = joint.classify_encoded()
        if joint.has_novelty:
            functions["novelty"] = joint.novelty()
        return functions
    for name in names:
        alone = signatures_of([name])
        functions[f"classify_{name}"] = alone.classify()
        functions[f"encode_{name}"] = alone.encode()
        functions[f"sample_{name}"] = alone.sample()
    functions["classify"] = functions[f"classify_{names[-1]}"]
    return functions


class _Signatures:
    """Functions that take supports or parameters of some group latents.

    Args:
        model: `VHE`. The model.
        names: Strings. The latents. If there is only one, the names of inputs
            and outputs omit it.
        sample_counts: Mapping. The numbers of samples, arguments of
            `VHE.log_likelihood`.
        max_rows: Integer. Largest number of rows of a batch.
        options: Mapping. How to sample images, arguments of `VHE.sample`.
    """

    def __init__(
        self,
        model: VHE,
        names: Sequence[str],
        sample_counts: Mapping[str, int],
        max_rows: int,
        options: Mapping[str, Any],
    ) -> None:
        self._model = model
        self._names = names
        self._sample_counts = sample_counts
        self._max_rows = max_rows
        self._options = options
        self._piece = max(1, _MAX_DECODED // math.prod(sample_counts.values()))
        example = {name: tf.zeros((1, 1, *model.image_shape)) for name in names}
        posteriors = model.encode(example)
        self._event_shapes = {
            name: tuple(posteriors[name].event_shape) for name in names
        }
        self._are_parameters_enough = all(
            _is_diagonal_normal(posteriors[latent.name]) and not latent.parents
            for latent in model.latents
            if latent.name in names
        )

    # Signatures --------------------------------------------------------------

    def classify(self) -> Any:
        return self._with_query(self._classify, self._supports(2))

    def classify_encoded(self) -> Any:
        return self._with_query(self._classify, self._parameters(2))

    @property
    def has_novelty(self) -> bool:
        return open_set.is_calibrated(self._model)

    def novelty(self) -> Any:
        scores = _spec("log_likelihood", [None, None])
        specs = [*self._supports(2), self._query_spec(), scores, _SEED]
        return self._function(self._novelty, specs)

    def encode(self) -> Any:
        return self._function(self._encode, self._supports(1))

    def log_likelihood(self) -> Any:
        return self._with_query(self._log_likelihood, self._supports(1))

    def sample(self) -> Any:
        return self._function(self._sample, [*self._supports(1), _SEED])

    def sample_encoded(self) -> Any:
        return self._function(self._sample, [*self._parameters(1), _SEED])

    def sample_prior(self) -> Any:
        return self._function(self._sample_prior, [_SEED])

    def plain(self) -> dict[str, tuple[_rows.Function, list[Any]]]:
        """Returns functions that take `inputs["seed"]` as it is.

        They compute all rows at once, without checks. With each come the specs
        of its other inputs.
        """
        options = {k: v for k, v in self._options.items() if k != "best_of"}
        return {
            "encode": (self._posteriors, self._supports(1)),
            "log_likelihood_encoded": (
                lambda inputs: {"log_likelihood": self._scores(inputs)},
                [*self._parameters(1), self._query_spec()],
            ),
            "sample_encoded": (
                functools.partial(self._samples, options=options),
                self._parameters(1),
            ),
        }

    def _query_spec(self) -> Any:
        return _spec("query", [None, *self._model.image_shape])

    def _with_query(
        self, function: _rows.Function, specs: Sequence[Any]
    ) -> Any:
        return self._function(function, [*specs, self._query_spec(), _SEED])

    def _function(self, function: _rows.Function, specs: Sequence[Any]) -> Any:
        return _rows.checked(
            function,
            specs,
            max_rows=self._max_rows,
            domain=self._model.domain,
        )

    def _supports(self, num_leading: int) -> list[Any]:
        """Returns the specs of `[leading..., shot, H, W, C]` for latents."""
        shape = [None] * (num_leading + 1) + [*self._model.image_shape]
        return [_spec(self._support_name(name), shape) for name in self._names]

    def _parameters(self, num_leading: int) -> list[Any]:
        """Returns the specs of means and standard deviations."""
        return [
            _spec(parameter, [None] * num_leading + [*self._event_shapes[name]])
            for name in self._names
            for parameter in self._parameter_names(name)
        ]

    def _support_name(self, latent: str) -> str:
        return "support" if len(self._names) == 1 else f"support_{latent}"

    def _parameter_names(self, latent: str) -> tuple[str, str]:
        prefix = "" if len(self._names) == 1 else f"{latent}_"
        return f"{prefix}mean", f"{prefix}stddev"

    # What they compute -------------------------------------------------------

    def _classify(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        groups = {k: v for k, v in inputs.items() if k not in ("query", "seed")}
        num_ways = tf.shape(next(iter(groups.values())))[1]
        folded = self._encoded({k: _folded(v) for k, v in groups.items()})
        rows = {name: _unfolded(v, num_ways) for name, v in folded.items()}

        def score(row: Any) -> tf.Tensor:
            of_row, query, seed = row
            return classification.class_scores(
                self._model,
                self._samples_of_classes(of_row, seed),
                query=query,
                seed=seed,
                num_element_samples=self._sample_counts["num_element_samples"],
                max_error=_MAX_ERROR,
                max_decoded=_MAX_DECODED,
            )

        log_likelihood = tf.map_fn(
            score,
            (rows, inputs["query"], _seeds(inputs)),
            fn_output_signature=tf.TensorSpec([None], tf.float32),
            parallel_iterations=1,
        )
        return {
            "log_likelihood": log_likelihood,
            "probabilities": tf.nn.softmax(log_likelihood),
            "label": tf.argmax(log_likelihood, axis=1, output_type=tf.int32),
        }

    def _novelty(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        [name] = self._names

        def score(row: Any) -> tf.Tensor:
            support, query, log_likelihood, seed = row
            best = support[tf.argmax(log_likelihood)]
            return open_set.novelty(
                self._model,
                {name: _rows.without_absent(best[tf.newaxis])[0]},
                query=query,
                log_likelihood=log_likelihood,
                seed=seed,
                num_element_samples=self._sample_counts["num_element_samples"],
                max_decoded=_MAX_DECODED,
            )

        novelty = tf.map_fn(
            score,
            (
                inputs[self._support_name(name)],
                inputs["query"],
                inputs["log_likelihood"],
                _seeds(inputs),
            ),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return {"novelty": novelty}

    def _samples_of_classes(
        self, classes: Mapping[str, tf.Tensor], seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns samples `[S, K, E...]` of latents of the K classes."""
        num_samples = self._sample_counts["num_samples"]

        def samples(piece: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            values = classification.infer_classes(
                self._model,
                self._support(piece),
                seed=seed,
                num_samples=num_samples,
            )
            return {k: tf.einsum("sk...->ks...", v) for k, v in values.items()}

        shapes = classification.inferred_shapes(
            self._model, {name: tf.zeros([1, 1]) for name in self._names}
        )
        values = self._images_in_pieces(
            samples, classes, {k: (num_samples, *v) for k, v in shapes.items()}
        )
        return {k: tf.einsum("ks...->sk...", v) for k, v in values.items()}

    def _log_likelihood(
        self, inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, Any]:
        scores = self._scores_in_pieces(self._scores, self._encoded(inputs))
        return {"log_likelihood": scores}

    def _scores_in_pieces(
        self,
        scores: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
        inputs: Mapping[str, tf.Tensor],
    ) -> tf.Tensor:
        return _rows.in_pieces(
            lambda piece: {"scores": scores(piece)},
            inputs,
            most=self._piece,
            shapes={"scores": ()},
        )["scores"]

    def _scores(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns log E_q(c; D) p(x | c) of each row, all rows at once."""
        return self._model.log_likelihood(
            self._support(inputs),
            inputs["query"],
            seed=_seeds(inputs),
            **self._sample_counts,
        )

    def _encode(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        shapes = {
            parameter: self._event_shapes[name]
            for name in self._names
            if self._support_name(name) in inputs
            for parameter in self._parameter_names(name)
        }
        return self._images_in_pieces(self._posteriors, inputs, shapes)

    def _posteriors(
        self, inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Returns the parameters of latents with supports, all rows at once."""
        posteriors = self._model.encode(self._support(inputs))
        outputs = {}
        for name in self._names:
            if self._support_name(name) in inputs:
                mean, stddev = self._parameter_names(name)
                outputs[mean] = posteriors[name].mean()
                outputs[stddev] = posteriors[name].stddev()
        return outputs

    def _encoded(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns inputs with parameters in place of supports, if possible.

        Each support is encoded once, even if it is that of many rows. Where
        posteriors depend on samples of other latents, supports remain.
        """
        outputs = dict(inputs)
        for name in map(self._support_name, self._names):
            if name in inputs and self._are_parameters_enough:
                support, index = _rows.distinct(outputs.pop(name))
                encoded = self._encode({name: support})
                outputs.update(_rows.gathered(encoded, index))
        return outputs

    def _sample(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        options = dict(self._options)
        if self._support_name(self._names[0]) not in inputs:
            options["best_of"] = 1  # there are no images to explain
        elif options.get("best_of", 1) == 1:
            inputs = self._encoded(inputs)

        return self._images_in_pieces(
            functools.partial(self._samples, options=options),
            inputs,
            self._image_shapes,
        )

    def _samples(
        self, inputs: Mapping[str, tf.Tensor], options: Mapping[str, Any]
    ) -> dict[str, tf.Tensor]:
        """Returns a sample of each row, all rows at once."""
        support, seeds = self._support(inputs), _seeds(inputs)
        return _images(self._model.sample(support, seed=seeds, **options))

    def _sample_prior(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        options = {k: v for k, v in self._options.items() if k != "best_of"}

        def images(piece: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return _images(
                self._model.sample_prior(
                    tf.size(piece["seed"]), seed=_seeds(piece), **options
                )
            )

        return self._images_in_pieces(images, inputs, self._image_shapes)

    @property
    def _image_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"images": self._model.image_shape}

    def _images_in_pieces(
        self,
        function: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]],
        inputs: Mapping[str, tf.Tensor],
        shapes: Mapping[str, Sequence[int]],
    ) -> dict[str, tf.Tensor]:
        """Returns outputs of all rows, whose images are encoded in pieces."""
        shots = [
            tf.shape(inputs[name])[1]
            for name in map(self._support_name, self._names)
            if name in inputs
        ]
        most = _MAX_ENCODED // tf.reduce_max(shots) if shots else _MAX_ROWS
        return _rows.in_pieces(
            function,
            inputs,
            most=tf.clip_by_value(most, 1, _MAX_ROWS),
            shapes=shapes,
        )

    def _support(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """Returns the support or posterior of each latent, for the model."""
        support = {}
        for name in self._names:
            mean, stddev = self._parameter_names(name)
            if self._support_name(name) in inputs:
                support[name] = inputs[self._support_name(name)]
            elif mean in inputs:
                support[name] = tfd.Independent(
                    tfd.Normal(inputs[mean], inputs[stddev]),
                    reinterpreted_batch_ndims=len(self._event_shapes[name]),
                )
        return support


def _spec(name: str, shape: Sequence[Any]) -> Any:
    return tf.TensorSpec(shape, tf.float32, name=name)


def _folded(values: tf.Tensor) -> tf.Tensor:
    """Folds the axes of rows and classes into one."""
    shape = tf.concat([[-1], tf.shape(values)[2:]], axis=0)
    return tf.ensure_shape(tf.reshape(values, shape), [None, *values.shape[2:]])


def _unfolded(values: tf.Tensor, num_ways: tf.Tensor) -> tf.Tensor:
    """Returns `[B, K, ...]` of `[B K, ...]`."""
    shape = tf.concat([[-1, num_ways], tf.shape(values)[1:]], axis=0)
    shaped = tf.reshape(values, shape)
    return tf.ensure_shape(shaped, [None, None, *values.shape[1:]])


def _is_diagonal_normal(posterior: tfd.Distribution) -> bool:
    """Returns whether mean and standard deviation say all of a posterior."""
    if isinstance(posterior, tfd.Independent):
        posterior = posterior.distribution
    return type(posterior) in (tfd.Normal, tfd.MultivariateNormalDiag)


def _images(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns images clipped to [0, 1]; Gaussian pixels can lie outside."""
    return {"images": tf.clip_by_value(images, 0.0, 1.0)}


def _seeds(inputs: Mapping[str, Any]) -> Any:
    """Returns one seed per row, `[..., 2]` int32, or noise as it is."""
    seed = inputs["seed"]
    return (
        seed if isinstance(seed, random.Noise) else tf.bitcast(seed, tf.int32)
    )
