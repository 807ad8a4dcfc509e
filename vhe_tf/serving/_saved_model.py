"""SavedModels in a session, as TensorFlow Serving runs them."""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np

from vhe_tf.serving.client._transport import HTTP_STATUS
from vhe_tf.serving.json_tensors import RequestError
from vhe_tf.serving.json_tensors import TensorInfo

__all__ = [
    "SavedModel",
    "Signature",
    "loadable_versions",
    "readable_error",
    "version_folders",
]


class Signature(NamedTuple):
    """Inputs and outputs of a signature, by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


class SavedModel:
    """One version of a model.

    The graph-mode loader and a session run it, as in TensorFlow Serving;
    `tf.saved_model.load` can behave differently.

    Args:
        folder: Path of the model's folder, which contains one folder per
            version.
        version: Integer, or None for the largest version.

    Raises:
        FileNotFoundError: If the folder does not contain the version.

    Example:
    >>> model = SavedModel(folder, None)
    >>> model.name, model.version
    ('omniglot', 1)
    """

    def __init__(self, folder: pathlib.Path, version: int | None) -> None:
        path = _version_folder(folder, version)
        import tensorflow as tf
        from google.protobuf import json_format

        from vhe_tf._utils.atomic_io import plainly_named

        self.folder = folder
        self.path = path
        self.version = int(path.name)
        self.name = folder.resolve().name
        self._errors = tf.errors.OpError
        config = tf.compat.v1.ConfigProto()
        config.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with (
            self._session.graph.as_default(),
            quiet(tf.get_logger()),
            plainly_named(path) as plain,
        ):
            meta_graph = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(plain)
            )
        self.signatures = {
            name: Signature(
                _tensors(tf, signature.inputs), _tensors(tf, signature.outputs)
            )
            for name, signature in meta_graph.signature_def.items()
            if signature.inputs  # the loader's own signature has none
        }
        self.signature_json = {
            name: json_format.MessageToDict(
                signature,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, signature in meta_graph.signature_def.items()
        }

    def run(
        self, signature: Signature, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs by name.

        Raises:
            RequestError: If the graph rejects the inputs or fails.
        """
        try:
            return self._session.run(
                {name: t.name for name, t in signature.outputs.items()},
                {t.name: inputs[name] for name, t in signature.inputs.items()},
            )
        except self._errors as error:
            raise RequestError(
                readable_error(error.message),
                HTTP_STATUS.get(error.error_code, 500),
            ) from error

    def warm_up(self) -> int:
        """Runs the warm-up requests of the export, as TensorFlow Serving does.

        Returns:
            Integer. How many there are; 0 if the export has none, or if
            `vhe_tf[serving]` is not installed.

        Raises:
            RequestError: If the graph rejects a request or fails.
        """
        records = self.path / "assets.extra" / "tf_serving_warmup_requests"
        if not records.exists():
            return 0
        import tensorflow as tf

        try:
            from tensorflow_serving.apis import prediction_log_pb2
        except ImportError:
            return 0
        count = 0
        for record in tf.data.TFRecordDataset(str(records)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            self.run(
                self.signatures[request.model_spec.signature_name],
                {k: tf.make_ndarray(v) for k, v in request.inputs.items()},
            )
            count += 1
        return count


def version_folders(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns the folders of versions in a model's folder, the smallest first.

    As in TensorFlow Serving, a version is a number, with or without leading
    zeros.

    Example:
    >>> list(version_folders(folder))
    [1]
    """
    if not folder.is_dir():
        return {}
    found = {
        int(path.name): path
        for path in sorted(folder.iterdir())
        if re.fullmatch("[0-9]{1,18}", path.name) and path.is_dir()
    }
    return dict(sorted(found.items()))


def loadable_versions(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns the folders of versions that hold a SavedModel.

    Example:
    >>> list(loadable_versions(folder))
    [1]
    """
    return {
        number: path
        for number, path in version_folders(folder).items()
        if (path / "saved_model.pb").exists()
    }


def _version_folder(folder: pathlib.Path, version: int | None) -> pathlib.Path:
    folders = loadable_versions(folder)
    if not folders or version not in (None, *folders):
        wanted = "a version" if version is None else f"version {version}"
        raise FileNotFoundError(
            f"Expected {wanted} of a SavedModel, such as {folder / '1'} with "
            f"its saved_model.pb. Received: {folder} with the versions "
            f"{list(folders)}."
        )
    return folders[max(folders) if version is None else version]


@contextlib.contextmanager
def quiet(logger: Any) -> Iterator[None]:
    # The session loader warns that it is deprecated.
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _tensors(tf: Any, infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            info.name,
            np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype),
            None
            if info.tensor_shape.unknown_rank
            else tuple(d.size for d in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    }


def readable_error(message: str) -> str:
    """Returns an error of the graph without names of nodes and stack traces.

    Example:
    >>> readable_error("assertion failed: [`a` is low.] [x (a:0) = ] [[-1]]")
    '`a` is low.'
    """
    message = message.removeprefix("Graph execution error:\n\n")
    message = message.rpartition("<stack traces unavailable>\n")[2]
    message = re.sub(r"^.*?\(0\) [A-Z_]+: ", "", message, flags=re.DOTALL)
    message = message.partition("\n\t [[")[0]
    assertion = re.match(
        r"assertion failed: \[(.*?)\](?: \[|$)", message, re.DOTALL
    )
    return assertion[1] if assertion else message
