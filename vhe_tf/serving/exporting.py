"""Export of a trained VHE as a SavedModel for TensorFlow Serving.

The signatures work over gRPC, in both JSON formats of the REST API, and with
batching by the server. Every input and output has rank 1 or more and the same
unknown first dimension, the batch. Each row has one seed, and its result does
not depend on the other rows, even if they are invalid. The output `status` is
empty for a valid row. A row with pixels outside [0, 1], NaN, or parameters that
no posterior has gets NaN, the label -1, and a status that names the input.

Supports may hold absent images, whose pixels are all -1. They are left out, so
that requests of different shots agree in shape and share a batch.

A batch with more rows than the export allows is rejected. All signatures
compute a bounded number of rows at once, so that the memory of a request is
bounded. The graph contains only operations of TensorFlow itself and does not
require XLA; the server does not need this package.
"""

import contextlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from vhe_tf._utils import atomic_io
from vhe_tf._utils import validation
from vhe_tf.models.vhe import VHE
from vhe_tf.serving import _saved_model
from vhe_tf.serving._signatures import signatures

__all__ = ["export", "versions", "written_aside"]


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
            `temperature` of `VHE.sample`; all but `best_of` also of
            `VHE.sample_prior`. Defaults to their defaults.
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
    validation.positive("version", version)
    target = folder / str(version)
    if target.exists() or version in versions(folder):
        raise FileExistsError(
            "An exported version is never overwritten, since a server may use "
            "it. Omit `version` to write the next version. "
            f"Received: {target}, which exists."
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
    with written_aside(target) as partial:
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
        _shrink(partial)
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
def written_aside(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that is renamed to the target at the end."""
    # Not a number, so that a server does not load it as a version.
    partial = atomic_io.partial_path(target)
    with (
        atomic_io.translate_write_errors(target),
        contextlib.ExitStack() as stack,
    ):
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with contextlib.suppress(OSError):  # a file system without locks
            stack.enter_context(atomic_io.locked(partial))
        _remove_abandoned(target.parent)
        yield partial
        for path in [*partial.rglob("*"), partial]:
            atomic_io.settle(path)
        partial.rename(target)


def _shrink(folder: pathlib.Path) -> None:
    """Makes a graph half as large.

    Removes the inferred shapes of nodes, which loaders infer again, and gives
    the nodes of functions short names.
    """
    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta_graph in saved_model.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            _shorten_names(function)
            for node in function.node_def:
                node.attr.pop("_output_shapes", None)
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))


def _shorten_names(function: function_pb2.FunctionDef) -> None:
    """Renames the nodes of a function: a graph is mostly names and inputs."""
    arguments = {argument.name for argument in function.signature.input_arg}
    fresh = (f"n{k}" for k in itertools.count() if f"n{k}" not in arguments)
    names = {
        node.name: name
        for node, name in zip(function.node_def, fresh, strict=False)
    }

    def renamed(reference: str) -> str:
        """Returns `name`, `^name` or `name:output:0` with the new name."""
        control = "^" if reference.startswith("^") else ""
        name, colon, output = reference.removeprefix("^").partition(":")
        return f"{control}{names.get(name, name)}{colon}{output}"

    for node in function.node_def:
        node.name = names[node.name]
        node.input[:] = [renamed(reference) for reference in node.input]
        node.attr.pop("_class", None)  # names of nodes on the same device
    for returned in (function.ret, function.control_ret):
        for key, reference in list(returned.items()):
            returned[key] = renamed(reference)


def _remove_abandoned(folder: pathlib.Path) -> None:
    """Removes the partial folders of exports that were killed."""
    for partial in filter(atomic_io.is_partial, folder.iterdir()):
        with contextlib.suppress(OSError), atomic_io.locked(partial):
            shutil.rmtree(partial)


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
