"""Export of a trained VHE as a SavedModel for TensorFlow Serving.

The signatures work over gRPC, in both JSON formats of the REST API, and with
batching by the server. Every input and output has rank 1 or more and the same
unknown first dimension, the batch. Each row has one seed, and its result does
not depend on the other rows, even if they are invalid. The output `status` is
empty for a valid row. A row with pixels outside [0, 1], NaN, or parameters that
no posterior has gets NaN, the label -1, and a status that names the input.

A batch with more rows than the export allows is rejected. All signatures
compute a bounded number of rows at once, so that the memory of a request is
bounded. The graph contains only operations of TensorFlow itself and does not
require XLA; the server does not need this package.
"""

import contextlib
import math
import os
import pathlib
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf._utils import atomic_io
from vhe_tf._utils import validation
from vhe_tf.models.vhe import VHE
from vhe_tf.serving import _rows
from vhe_tf.serving import _saved_model

__all__ = ["export", "signatures"]

# Images that are decoded at once, over samples and classes. Bounds the memory.
_MAX_DECODED = 160

# Images that are encoded at once, and rows that are encoded or sampled at once.
# A sample under guidance decodes seven images.
_MAX_ENCODED = 1280
_MAX_ROWS = 64


_SEED = tf.TensorSpec([None], tf.int64, name="seed")


def export(
    model: VHE,
    folder: str | os.PathLike[str],
    *,
    num_samples: int = 20,
    num_element_samples: int = 1,
    max_rows: int = 256,
    sample_options: Mapping[str, Any] | None = None,
    version: int | None = None,
    warmup: bool = True,
) -> pathlib.Path:
    """Writes a SavedModel atomically.

    Args:
        model: `VHE`. The model.
        folder: Path of the model's folder, which TensorFlow Serving watches.
            The version becomes a folder in it.
        num_samples: Integer. Number of posterior samples of the group latents
            per classification and likelihood, fixed in the export. Defaults to
            20, as in the paper.
        num_element_samples: Integer. Number of samples of the per-element
            latents per sample of the group latents. Defaults to 1.
        max_rows: Integer. Largest number of rows of a batch. Larger batches are
            rejected, since their memory is not bounded. Defaults to 256.
        sample_options: Mapping or None. `guidance`, `best_of` and
            `temperature` of `VHE.sample`. Defaults to its defaults.
        version: Positive integer. Defaults to one more than the largest
            version in the folder.
        warmup: Boolean. Whether to write one request per signature, which the
            server runs before it reports that it is ready. Needs
            `vhe_tf[serving]`. Defaults to True.

    Returns:
        Path of the version.

    Raises:
        FileExistsError: If the version exists.
        NotWrittenError: If writing fails, for example because the disk is full.
            No partial version remains.
        ValueError: If `version`, `max_rows` or a number of samples is not
            positive.
        ImportError: If `warmup` is True and `vhe_tf[serving]` is not installed.

    Example:
    >>> export(model, folder / "new", num_samples=1).name
    '1'
    """
    folder = pathlib.Path(folder)
    if version is None:
        version = 1 + max([0, *versions(folder)])
    if version < 1:
        raise ValueError(
            f"`version` must be positive. Received: version={version!r}."
        )
    target = folder / str(version)
    if target.exists() or version in versions(folder):
        raise FileExistsError(
            f"{target} exists. A server may use it, so it is never "
            "overwritten. Omit `version` to write the next version."
        )
    if warmup:
        _serving_apis()  # before the work
    functions = signatures(
        model,
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        max_rows=max_rows,
        sample_options=sample_options,
    )
    module = tf.Module()
    # Not the model itself, whose optimizer would come along.
    module.variables_of_model = [v.value for v in model.variables]
    with _beside(target) as partial:
        tf.saved_model.save(
            module,
            str(partial),
            signatures={
                **functions,
                "serving_default": functions["classify"],
            },
            # A server computes no gradients; they are a fifth of the graph.
            options=tf.saved_model.SaveOptions(
                experimental_custom_gradients=False
            ),
        )
        if warmup:
            _write_warmup(partial, folder.name, functions)
    return target


def versions(folder: pathlib.Path) -> list[int]:
    """Returns the versions in a model's folder, the smallest first.

    Example:
    >>> versions(folder)
    [1]
    """
    return list(_saved_model.version_folders(folder))


@contextlib.contextmanager
def _beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that is renamed to the target at the end."""
    # Not a number, so that a server does not load it as a version.
    partial = atomic_io.partial_path(target)
    with atomic_io.failures_are_told(target), contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with contextlib.suppress(OSError):  # a file system without locks
            stack.enter_context(atomic_io.locked(partial))
        _remove_abandoned(target.parent)
        yield partial
        for path in [*partial.rglob("*"), partial]:
            atomic_io.settle(path)
        partial.rename(target)


def _remove_abandoned(folder: pathlib.Path) -> None:
    """Removes the partial folders of exports that were killed."""
    for partial in filter(atomic_io.is_partial, folder.iterdir()):
        with contextlib.suppress(OSError), atomic_io.locked(partial):
            shutil.rmtree(partial)


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
    draws = {
        "num_samples": validation.positive("num_samples", num_samples),
        "num_element_samples": validation.positive(
            "num_element_samples", num_element_samples
        ),
    }
    max_rows = validation.positive("max_rows", max_rows)
    options = sample_options or {}
    names = [latent.name for latent in model.latents if not latent.per_element]
    if len(names) > 1 and {"encoded", "prior"} & set(names):
        raise ValueError(
            "`sample_encoded` and `sample_prior` are signatures of all group "
            "latents, so a latent cannot be named 'encoded' or 'prior'. Rename "
            f"the latent. Received: latents={names}."
        )
    joint = _Signatures(model, names, draws, max_rows, options)
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
        return functions
    for name in names:
        alone = _Signatures(model, [name], draws, max_rows, options)
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
        draws: Mapping. The numbers of samples, arguments of
            `VHE.log_likelihood`.
        max_rows: Integer. Largest number of rows of a batch.
        options: Mapping. How to sample images, arguments of `VHE.sample`.
    """

    def __init__(
        self,
        model: VHE,
        names: Sequence[str],
        draws: Mapping[str, int],
        max_rows: int,
        options: Mapping[str, Any],
    ) -> None:
        self._model = model
        self._names = names
        self._draws = draws
        self._max_rows = max_rows
        self._options = options
        self._piece = max(1, _MAX_DECODED // math.prod(draws.values()))
        example = {name: tf.zeros((1, 1, *model.image_shape)) for name in names}
        posteriors = model.encode(example)
        self._event_shapes = {
            name: tuple(posteriors[name].event_shape) for name in names
        }

    # Signatures --------------------------------------------------------------

    def classify(self) -> Any:
        return self._with_query(self._classify, self._supports(2))

    def classify_encoded(self) -> Any:
        return self._with_query(self._classify, self._parameters(2))

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

    def _with_query(
        self, function: _rows.Function, specs: Sequence[Any]
    ) -> Any:
        query = _spec("query", [None, *self._model.image_shape])
        return self._function(function, [*specs, query, _SEED])

    def _function(self, function: _rows.Function, specs: Sequence[Any]) -> Any:
        return _rows.checked(function, specs, max_rows=self._max_rows)

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
        shape = tf.shape(next(iter(groups.values())))
        num_rows, num_ways = shape[0], shape[1]

        def scores(indices: tf.Tensor) -> tf.Tensor:
            # The same seed for each class, so that only supports differ.
            rows = indices // num_ways
            ways = tf.stack([rows, indices % num_ways], axis=1)
            return self._scores(
                {
                    "query": tf.gather(inputs["query"], rows),
                    "seed": tf.gather(inputs["seed"], rows),
                    **{k: tf.gather_nd(v, ways) for k, v in groups.items()},
                }
            )

        log_likelihood = tf.reshape(
            self._scores_in_pieces(scores, num_rows * num_ways),
            [num_rows, num_ways],
        )
        return {
            "log_likelihood": log_likelihood,
            "probabilities": tf.nn.softmax(log_likelihood),
            "label": tf.argmax(log_likelihood, axis=1, output_type=tf.int32),
        }

    def _log_likelihood(
        self, inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, Any]:
        scores = self._scores_in_pieces(
            lambda rows: self._scores(_rows.gathered(inputs, rows)),
            tf.shape(inputs["query"])[0],
        )
        return {"log_likelihood": scores}

    def _scores_in_pieces(
        self, scores: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor
    ) -> tf.Tensor:
        return _rows.in_pieces(
            lambda indices: {"scores": scores(indices)},
            count,
            most=self._piece,
            shapes={"scores": ()},
        )["scores"]

    def _scores(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns log E_q(c; D) p(x | c) of each row, all rows at once."""
        return self._model.log_likelihood(
            self._support(inputs),
            inputs["query"],
            seed=_seeds(inputs),
            **self._draws,
        )

    def _encode(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        def encoded(rows: tf.Tensor) -> dict[str, tf.Tensor]:
            posteriors = self._model.encode(
                self._support(_rows.gathered(inputs, rows))
            )
            outputs = {}
            for name in self._names:
                mean, stddev = self._parameter_names(name)
                outputs[mean] = posteriors[name].mean()
                outputs[stddev] = posteriors[name].stddev()
            return outputs

        shapes = {
            parameter: self._event_shapes[name]
            for name in self._names
            for parameter in self._parameter_names(name)
        }
        return self._images_in_pieces(encoded, inputs, shapes)

    def _sample(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        options = dict(self._options)
        if self._support_name(self._names[0]) not in inputs:
            options["best_of"] = 1  # there are no images to explain

        def images(rows: tf.Tensor) -> dict[str, tf.Tensor]:
            piece = _rows.gathered(inputs, rows)
            support, seeds = self._support(piece), _seeds(piece)
            return _images(self._model.sample(support, seed=seeds, **options))

        return self._images_in_pieces(images, inputs, self._image_shapes)

    def _sample_prior(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        def images(rows: tf.Tensor) -> dict[str, tf.Tensor]:
            seed = _seeds(_rows.gathered(inputs, rows))
            return _images(self._model.sample_prior(tf.size(rows), seed=seed))

        return self._images_in_pieces(images, inputs, self._image_shapes)

    @property
    def _image_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"images": self._model.image_shape}

    def _images_in_pieces(
        self,
        function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
        inputs: Mapping[str, tf.Tensor],
        shapes: Mapping[str, Sequence[int]],
    ) -> dict[str, tf.Tensor]:
        """Returns outputs of all rows, whose images are encoded in pieces."""
        value = next(iter(inputs.values()))
        shots = [
            tf.shape(inputs[name])[1]
            for name in map(self._support_name, self._names)
            if name in inputs
        ]
        most = _MAX_ENCODED // tf.reduce_max(shots) if shots else _MAX_ROWS
        return _rows.in_pieces(
            function,
            tf.shape(value)[0],
            most=tf.clip_by_value(most, 1, _MAX_ROWS),
            shapes=shapes,
        )

    def _support(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """Returns the support or posterior of each latent, for the model."""
        support = {}
        for name in self._names:
            if self._support_name(name) in inputs:
                support[name] = inputs[self._support_name(name)]
            else:
                mean, stddev = self._parameter_names(name)
                support[name] = tfd.Independent(
                    tfd.Normal(inputs[mean], inputs[stddev]),
                    reinterpreted_batch_ndims=len(self._event_shapes[name]),
                )
        return support


def _spec(name: str, shape: Sequence[Any]) -> Any:
    return tf.TensorSpec(shape, tf.float32, name=name)


def _images(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns images clipped to [0, 1]; Gaussian pixels can lie outside."""
    return {"images": tf.clip_by_value(images, 0.0, 1.0)}


def _seeds(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns one seed per row, `[..., 2]` int32."""
    return tf.bitcast(inputs["seed"], tf.int32)


def _serving_apis() -> tuple[Any, Any]:
    """Returns the modules of TensorFlow Serving's messages."""
    try:
        from tensorflow_serving.apis import predict_pb2
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need `tensorflow-serving-api`: pip install "
            "'vhe_tf[serving]', or export without them (warmup=False, "
            "--nowarmup)."
        ) from error
    return predict_pb2, prediction_log_pb2


def _write_warmup(
    folder: pathlib.Path, model_name: str, functions: Mapping[str, Any]
) -> None:
    """Writes a small request for each signature (TensorFlow Serving's own)."""
    predict_pb2, prediction_log_pb2 = _serving_apis()
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, function in functions.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = name
            for spec in function.structured_input_signature[0]:
                shape = [1 if size is None else size for size in spec.shape]
                fill = 1 if spec.name.endswith("stddev") else 0
                value = np.full(shape, fill, spec.dtype.as_numpy_dtype)
                request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
