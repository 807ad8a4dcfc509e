"""Exports a trained VHE as a SavedModel that TensorFlow Serving can serve.

The signatures hold for gRPC, for both JSON formats of the REST front end, and
for batching by the server: every input and output has rank 1 or more and the
same unknown first dimension, chance comes from one seed a row, and what a row
gets does not depend on the rows beside it. Only TensorFlow's own operations
occur, none that demands XLA; this package is not needed where it is served.
"""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.models.vhe import VHE

__all__ = ["export", "signatures"]


def export(
    model: VHE,
    folder: str | os.PathLike[str],
    *,
    num_samples: int = 20,
    num_element_samples: int = 1,
    version: int | None = None,
    warmup: bool = True,
) -> pathlib.Path:
    """Writes a SavedModel, whole or not at all.

    Args:
        model: The model.
        folder: The model's folder, which TensorFlow Serving watches; the
            version is a folder in it.
        num_samples: Draws of the group latents to classify and to estimate
            likelihoods; 20 in the paper. Fixed in the export.
        num_element_samples: Draws of the per-element latents for each.
        version: Positive int; default one more than the largest there is.
        warmup: Write a request for each signature, which the server runs
            before it says that it is ready. Needs `vhe_tf[serving]`.

    Returns:
        The folder of the version.

    Raises:
        FileExistsError: If that version exists.
        ValueError: If `version` is not positive.
        ImportError: If `warmup` is asked for without `vhe_tf[serving]`.
    """
    folder = pathlib.Path(folder)
    if version is None:
        version = 1 + max([0, *versions(folder)])
    if version < 1:
        raise ValueError(
            f"`version` must be positive. Received: version={version!r}."
        )
    target = folder / str(version)
    if target.exists():
        raise FileExistsError(
            f"{target} exists, and a version that may be served is never "
            "overwritten. Leave `version` out for the next one."
        )
    if warmup:
        _serving_apis()  # before the work
    functions = signatures(
        model, num_samples=num_samples, num_element_samples=num_element_samples
    )
    module = tf.Module()
    # Not the model itself, whose optimizer would come along.
    module.variables_of_model = [v.value for v in model.variables]
    folder.mkdir(parents=True, exist_ok=True)
    with _beside(target) as partial:
        tf.saved_model.save(
            module,
            str(partial),
            signatures={
                **functions,
                "serving_default": functions["classify"],
            },
        )
        if warmup:
            _write_warmup(partial, folder.name, functions)
    return target


def versions(folder: pathlib.Path) -> list[int]:
    """Returns the versions in a model's folder, the smallest first."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


@contextlib.contextmanager
def _beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder beside the target that takes its name at the end."""
    # No number, so that no server takes it for a version.
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def signatures(
    model: VHE, *, num_samples: int = 20, num_element_samples: int = 1
) -> dict[str, Any]:
    """Returns the functions that a server offers, by name.

    With one group latent its support is called `support` and its parameters
    `mean` and `stddev`; with several, `support_{latent}` and `{latent}_mean`
    and `{latent}_stddev`. The class of an image is told by the last group
    latent in the graph; the others are the same for every class of a row.
    `encode` gives a latent with parents at the means of those.

    Args:
        model: The model.
        num_samples: As in `export`.
        num_element_samples: As in `export`.

    Returns:
        `tf.function`s with input signatures: `classify`, `classify_encoded`,
        `encode`, `log_likelihood`, `sample`, `sample_encoded` and
        `sample_prior`.
    """
    return _Signatures(model, num_samples, num_element_samples).functions()


class _Signatures:
    """The functions of one model; see `signatures`."""

    def __init__(
        self, model: VHE, num_samples: int, num_element_samples: int
    ) -> None:
        self._model = model
        self._counts = {
            "num_samples": num_samples,
            "num_element_samples": num_element_samples,
        }
        self._names = [v.name for v in model.latents if not v.per_element]
        example = {
            name: tf.zeros((1, 1, *model.image_shape)) for name in self._names
        }
        self._event_shapes = {
            name: tuple(posterior.event_shape)
            for name, posterior in model.encode(example).items()
        }
        self._seed = _spec("seed", [None], tf.int64)
        self._query = _spec("query", [None, *model.image_shape])

    # Names -------------------------------------------------------------------

    def _alone(self) -> bool:
        return len(self._names) == 1

    def _support_name(self, latent: str) -> str:
        return "support" if self._alone() else f"support_{latent}"

    def _parameter_name(self, latent: str, parameter: str) -> str:
        return parameter if self._alone() else f"{latent}_{parameter}"

    def _supports(self, leading: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Returns the specs of `[leading..., shot, H, W, C]` for latents."""
        return [
            _spec(
                self._support_name(name),
                [*axes, None, *self._model.image_shape],
            )
            for name, axes in leading.items()
        ]

    def _parameters(self, leading: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Returns the specs of means and standard deviations."""
        return [
            _spec(
                self._parameter_name(name, parameter),
                [*axes, *self._event_shapes[name]],
            )
            for name, axes in leading.items()
            for parameter in ("mean", "stddev")
        ]

    # Signatures --------------------------------------------------------------

    def functions(self) -> dict[str, Any]:
        """Returns every signature."""
        one = {name: [None] for name in self._names}
        ways = {**one, self._names[-1]: [None, None]}
        seed, query = self._seed, self._query
        return {
            "classify": _function(
                self._classify, [*self._supports(ways), query, seed]
            ),
            "classify_encoded": _function(
                self._classify, [*self._parameters(ways), query, seed]
            ),
            "encode": _function(self._encode, self._supports(one)),
            "log_likelihood": _function(
                self._log_likelihood, [*self._supports(one), query, seed]
            ),
            "sample": _function(self._sample, [*self._supports(one), seed]),
            "sample_encoded": _function(
                self._sample, [*self._parameters(one), seed]
            ),
            "sample_prior": _function(self._sample_prior, [seed]),
        }

    def _classify(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        log_likelihood = _one_by_one(self._class_scores, inputs)
        return {
            "log_likelihood": log_likelihood,
            "probabilities": tf.nn.softmax(log_likelihood),
            "label": tf.argmax(log_likelihood, axis=1, output_type=tf.int32),
        }

    def _class_scores(self, row: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns log E_q(c; D_k) p(x | c), `[way]`, for one row."""
        groups = self._groups(row)
        ways = tf.shape(groups[self._names[-1]][0])[0]
        by_class = {
            name: parts
            if name == self._names[-1]
            else [tf.repeat(part[tf.newaxis], ways, axis=0) for part in parts]
            for name, parts in groups.items()
        }

        def score(way: tf.Tensor) -> tf.Tensor:
            of_way = {
                name: [part[way][tf.newaxis] for part in parts]
                for name, parts in by_class.items()
            }
            # The same seed for each class: they differ by support alone.
            return self._model.log_likelihood(
                self._as_support(of_way),
                row["query"][tf.newaxis],
                seed=_seeds(row)[tf.newaxis],
                **self._counts,
            )[0]

        return tf.map_fn(
            score,
            tf.range(ways),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )

    def _encode(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        posteriors = self._model.encode(self._as_support(self._groups(inputs)))
        outputs = {}
        for name, posterior in posteriors.items():
            outputs[self._parameter_name(name, "mean")] = posterior.mean()
            outputs[self._parameter_name(name, "stddev")] = posterior.stddev()
        return outputs

    def _log_likelihood(
        self, inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, Any]:
        def of_row(row: Mapping[str, tf.Tensor]) -> tf.Tensor:
            one = {name: value[tf.newaxis] for name, value in row.items()}
            return self._model.log_likelihood(
                self._as_support(self._groups(one)),
                one["query"],
                seed=_seeds(one),
                **self._counts,
            )[0]

        return {"log_likelihood": _one_by_one(of_row, inputs)}

    def _sample(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        return {
            "images": self._model.sample(
                self._as_support(self._groups(inputs)), seed=_seeds(inputs)
            )
        }

    def _sample_prior(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        count = tf.shape(inputs["seed"])[0]
        return {"images": self._model.sample_prior(count, seed=_seeds(inputs))}

    def _input_names(self, latent: str) -> list[str]:
        return [
            self._support_name(latent),
            self._parameter_name(latent, "mean"),
            self._parameter_name(latent, "stddev"),
        ]

    def _groups(
        self, inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, list[tf.Tensor]]:
        """Returns for each latent its support, or mean and deviation."""
        return {
            name: [
                inputs[key] for key in self._input_names(name) if key in inputs
            ]
            for name in self._names
        }

    def _as_support(
        self, groups: Mapping[str, Sequence[tf.Tensor]]
    ) -> dict[str, Any]:
        support = {}
        for name, parts in groups.items():
            if len(parts) == 1:
                support[name] = parts[0]
            else:
                mean, stddev = parts
                support[name] = tfd.Independent(
                    tfd.Normal(mean, stddev),
                    reinterpreted_batch_ndims=len(self._event_shapes[name]),
                )
        return support


def _spec(name: str, shape: Sequence[Any], dtype: Any = tf.float32) -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


def _function(
    function: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]],
    specs: Sequence[tf.TensorSpec],
) -> Any:
    """Makes a signature: named inputs, each checked before it is used."""

    def checked(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = {
            spec.name: value for spec, value in zip(specs, values, strict=True)
        }
        num_rows = tf.shape(values[0])[0]
        with tf.control_dependencies(_checks(inputs)):
            # TensorFlow's kernels fail on no rows at all: then compute one.
            lacking = tf.maximum(0, 1 - num_rows)
            padded = {
                name: tf.pad(
                    value, [(0, lacking)] + [(0, 0)] * (value.shape.rank - 1)
                )
                for name, value in inputs.items()
            }
        outputs = function(padded)
        return {name: value[:num_rows] for name, value in outputs.items()}

    return tf.function(
        checked, input_signature=specs, autograph=False
    ).get_concrete_function()


def _checks(inputs: Mapping[str, tf.Tensor]) -> list[tf.Operation]:
    """Returns assertions, each of which names the input that it is about."""
    checks = []
    rows = {name: tf.shape(value)[0] for name, value in inputs.items()}
    first = next(iter(rows))
    for name, value in inputs.items():
        checks.append(
            tf.debugging.assert_equal(
                rows[name],
                rows[first],
                f"`{name}` and `{first}` must have the same number of rows.",
            )
        )
        if name.startswith("support") or name == "query":
            in_range = tf.reduce_all((value >= 0.0) & (value <= 1.0))
            checks.append(
                tf.debugging.Assert(
                    in_range,
                    [f"`{name}` must hold pixels from 0 to 1, ink 1; no NaN."],
                )
            )
        if name.endswith(("mean", "stddev")):
            finite = tf.reduce_all(tf.math.is_finite(value))
            checks.append(
                tf.debugging.Assert(finite, [f"`{name}` must be finite."])
            )
        if name.endswith("stddev"):
            checks.append(
                tf.debugging.Assert(
                    tf.reduce_all(value > 0.0), [f"`{name}` must be positive."]
                )
            )
        if value.shape.rank > 1:
            # Rows may be none; ways and shots may not.
            checks.append(
                tf.debugging.Assert(
                    tf.reduce_all(tf.shape(value)[1:] > 0),
                    [f"`{name}` must have a class and an image at least."],
                )
            )
    return checks


def _one_by_one(
    function: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
    inputs: Mapping[str, tf.Tensor],
) -> tf.Tensor:
    """Maps over rows: memory does not grow with their number."""
    return tf.map_fn(
        function,
        dict(inputs),
        fn_output_signature=tf.float32,
        parallel_iterations=1,
    )


def _seeds(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns a seed a row, `[..., 2]` int32."""
    return tf.bitcast(inputs["seed"], tf.int32)


def _serving_apis() -> tuple[Any, Any]:
    """Returns the modules of TensorFlow Serving's messages."""
    try:
        from tensorflow_serving.apis import predict_pb2
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up requests are written by `tensorflow-serving-api`: "
            "pip install 'vhe_tf[serving]', or export without "
            "(warmup=False, --nowarmup)."
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
