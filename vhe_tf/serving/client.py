"""A client of a served VHE: NumPy in, NumPy out.

    client = Client("http://127.0.0.1:8501", model="omniglot")
    client.classify(support, query).label
    client.sample(support, seed=range(16))
    classes = client.encode(support)      # once; then as often as you like
    client.classify(classes, query)

A model with several group latents is asked about one of them by its name, with
images that share it, or about all at once, with images for each:

    client.sample(support, latent="style")
    client.sample({"character": some, "style": others})

It speaks to TensorFlow Serving and to `vhe_tf.serving.local` alike. Over REST
it imports neither TensorFlow nor Keras. Over gRPC it imports TensorFlow, since
the stubs of `tensorflow-serving-api` do, and only once a gRPC address is given.
"""

import json
import math
import types
import urllib.parse
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Protocol
from typing import Self

import numpy as np
import numpy.typing as npt
import requests

__all__ = ["Classification", "Client", "ServingError"]

_DTYPES: dict[str, Any] = {
    "DT_BOOL": np.bool_,
    "DT_DOUBLE": np.float64,
    "DT_FLOAT": np.float32,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
}

# The kinds of NumPy dtype that may stand for a kind; strings are not carried.
_KINDS_FOR = {"b": "b", "f": "biuf", "i": "biu", "u": "biu", "O": ""}

# What the REST front end of TensorFlow Serving makes of gRPC's codes.
_HTTP_STATUS = {
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "CANCELLED": 499,
    "FAILED_PRECONDITION": 400,
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "OUT_OF_RANGE": 400,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "UNAUTHENTICATED": 401,
    "UNIMPLEMENTED": 501,
}


class ServingError(RuntimeError):
    """A request that the server refused, or that no server answered.

    Attributes:
        status: The HTTP status, or its like over gRPC; None where no answer
            came.
        message: What the server said.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message


class Classification(NamedTuple):
    """Which of K classes each query is.

    Attributes:
        log_likelihood: `[B, K]`, log E_q(c; D_k) p(x | c), nats.
        probabilities: `[B, K]`, of the classes, each as likely beforehand.
        label: `[B]` int32, the likeliest class, in 0..K-1.
    """

    log_likelihood: np.ndarray
    probabilities: np.ndarray
    label: np.ndarray


# An array, or a mapping from the names of latents or of inputs to arrays.
Support = npt.ArrayLike | Mapping[str, npt.ArrayLike]


class Client:
    """A connection to one served model.

    Every method works on rows, the first axis. An input of one row stands for
    as many as the others have: one support set serves all queries, and
    `seed=range(16)` draws 16 images from one. (It travels once a row all the
    same: `encode` makes it small.) All chance of a row comes from
    its seed; an int s stands for the seeds s, s + 1, ... of the rows.

    For a model with several group latents, `latent` says which one the images
    of a support share. Without it `classify` is about the last one in the
    model's graph, and the other methods are about all of them at once: a
    support is then a mapping from the latents' names to arrays.

    The signatures are read from the server once, at the first request. Threads
    need a client each.

    Args:
        address: `http://host:port` or `https://...` for REST (port 8501 by
            custom); `grpc://host:port` for gRPC (8500), not encrypted, which
            needs `vhe_tf[serving]` and imports TensorFlow.
        model: The model's name on the server.
        version: The version; default the newest that the server has.
        timeout: Seconds to wait for an answer.

    Raises:
        ValueError: If the address has another scheme.
        ImportError: If gRPC is asked for without `vhe_tf[serving]`.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8501",
        *,
        model: str,
        version: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        transports: dict[str, type[_Rest | _Grpc]] = {
            "http": _Rest,
            "https": _Rest,
            "grpc": _Grpc,
        }
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in transports or not parts.netloc:
            raise ValueError(
                "Expected an address such as http://127.0.0.1:8501 or "
                f"grpc://127.0.0.1:8500. Received: address={address!r}."
            )
        self.address = address
        self.model = model
        self.version = version
        self.timeout = timeout
        self._transport: _Transport = transports[parts.scheme](
            address, model, version, timeout
        )
        self._signatures: dict[str, _Signature] = {}

    def classify(
        self,
        support: Support,
        query: npt.ArrayLike,
        *,
        latent: str | None = None,
        seed: npt.ArrayLike = 0,
    ) -> Classification:
        """Tells which class each query belongs to.

        Args:
            support: `[B, way, shot, H, W, C]`, pixels in [0, 1], or, with one
                group latent, what `encode` made of it.
            query: `[B, H, W, C]`.
            latent: The group latent that tells the classes apart.
            seed: `[B]` or an int.

        Returns:
            Log-likelihoods, probabilities and labels.

        Raises:
            ServingError: If the server refuses, or does not answer.
            ValueError: If the inputs are no arrays, differ in rows, or are not
                those that the model takes.
        """
        outputs = self._predict(
            "classify", latent, support, query=query, seed=seed
        )
        return Classification(
            **{name: outputs[name] for name in Classification._fields}
        )

    def sample(
        self,
        support: Support,
        *,
        latent: str | None = None,
        seed: npt.ArrayLike = 0,
    ) -> np.ndarray:
        """Draws one more image of the class of each row.

        Args:
            support: `[B, shot, H, W, C]`, pixels in [0, 1], or what `encode`
                made of it. With several group latents, such arrays by their
                names: of a factorial model, the content of one support in the
                style of another.
            latent: The group latent that the support is about, alone: what it
                says nothing of is drawn.
            seed: `[B]` or an int.

        Returns:
            `[B, H, W, C]`.

        Raises:
            ServingError: If the server refuses, or does not answer.
            ValueError: If the inputs are no arrays, differ in rows, or are not
                those that the model takes.
        """
        return self._predict("sample", latent, support, seed=seed)["images"]

    def sample_prior(self, *, seed: npt.ArrayLike = 0) -> np.ndarray:
        """Draws an image of a new class for each seed, `[B, H, W, C]`.

        Args:
            seed: `[B]` or an int.

        Returns:
            `[B, H, W, C]`.

        Raises:
            ServingError: If the server refuses, or does not answer.
        """
        return self.predict("sample_prior", _rows({"seed": seed}))["images"]

    def encode(
        self, support: Support, *, latent: str | None = None
    ) -> dict[str, np.ndarray]:
        """Infers the latents' parameters, to be used in place of the support.

        Args:
            support: `[..., shot, H, W, C]`, pixels in [0, 1]: `[B, way, shot,
                H, W, C]` for what `classify` takes, `[B, shot, H, W, C]` for
                what `sample` takes. With several group latents, such arrays by
                their names.
            latent: The group latent to infer alone; to look at, since nothing
                takes the parameters of one among several.

        Returns:
            The parameters by name, `mean` and `stddev`, or `{latent}_mean` and
            so on, each with the leading axes of the support.

        Raises:
            ServingError: If the server refuses, or does not answer.
            ValueError: If the support has too few axes, or is not what the
                model takes.
        """
        signature = _signature_name("encode", latent)
        named = self._named(signature, support)
        arrays = {name: _array(name, value) for name, value in named.items()}
        leading = {array.shape[:-4] for array in arrays.values()}
        if len(leading) != 1 or () in leading:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise ValueError(
                "Expected supports [..., shot, H, W, C] with the same leading "
                f"axes, at least one. Received: {shapes}."
            )
        (axes,) = leading
        count = math.prod(axes)
        outputs = self.predict(
            signature,
            {n: a.reshape(count, *a.shape[-4:]) for n, a in arrays.items()},
        )
        return {
            name: value.reshape(*axes, *value.shape[1:])
            for name, value in outputs.items()
        }

    def log_likelihood(
        self,
        support: Support,
        query: npt.ArrayLike,
        *,
        seed: npt.ArrayLike = 0,
    ) -> np.ndarray:
        """Estimates log E_q(c; D) p(x | c), the query's log-likelihood.

        Args:
            support: `[B, shot, H, W, C]`, pixels in [0, 1]; with several group
                latents, such arrays by their names.
            query: `[B, H, W, C]`.
            seed: `[B]` or an int.

        Returns:
            `[B]`, nats.

        Raises:
            ServingError: If the server refuses, or does not answer.
            ValueError: If the inputs are no arrays, differ in rows, or are not
                those that the model takes.
        """
        outputs = self._predict(
            "log_likelihood", None, support, query=query, seed=seed
        )
        return outputs["log_likelihood"]

    def predict(
        self, signature: str, inputs: Mapping[str, npt.ArrayLike]
    ) -> dict[str, np.ndarray]:
        """Calls any signature of the model.

        Args:
            signature: Its name.
            inputs: An array for each of its inputs, with the same number of
                rows.

        Returns:
            The outputs, by name.

        Raises:
            ServingError: If the server refuses, or does not answer.
            ValueError: If the model has no such signature, or the signature
                other inputs, or an input no such values.
        """
        declared = self._declared(signature)
        if set(inputs) != set(declared.inputs):
            raise ValueError(
                f"Expected the inputs {sorted(declared.inputs)} of "
                f"{signature!r}. Received: {sorted(inputs)}."
            )
        arrays = {
            name: _cast(name, inputs[name], tensor.dtype)
            for name, tensor in declared.inputs.items()
        }
        return self._transport.predict(signature, arrays, declared.outputs)

    def _predict(
        self,
        task: str,
        latent: str | None,
        support: Support,
        **others: npt.ArrayLike,
    ) -> dict[str, np.ndarray]:
        """Calls the signature of a task that takes such a support."""
        signature = _signature_name(task, latent)
        if isinstance(support, Mapping) and any(
            name.endswith("stddev") for name in support
        ):
            signature += "_encoded"
        named = self._named(signature, support)
        return self.predict(signature, _rows({**named, **others}))

    def _named(
        self, signature: str, support: Support
    ) -> dict[str, npt.ArrayLike]:
        """Returns a support by names of inputs."""
        if not isinstance(support, Mapping):
            return {"support": support}
        inputs = self._declared(signature).inputs
        return {
            f"support_{name}" if f"support_{name}" in inputs else name: value
            for name, value in support.items()
        }

    def _declared(self, signature: str) -> "_Signature":
        if not self._signatures:
            self._signatures = _read_signatures(self.metadata())
        if signature not in self._signatures:
            raise ValueError(
                f"Expected a signature of {self.model}: "
                f"{sorted(self._signatures)}. Received: "
                f"signature={signature!r}."
            )
        return self._signatures[signature]

    def metadata(self) -> dict[str, Any]:
        """Returns the model's signatures, as the server's JSON has them."""
        return self._transport.metadata()

    def status(self) -> dict[str, Any]:
        """Returns the model's versions and states, as the server's JSON."""
        return self._transport.status()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()


class _Tensor(NamedTuple):
    """An input or output as a signature declares it; -1 for an open size."""

    dtype: str
    shape: tuple[int, ...]


class _Signature(NamedTuple):
    inputs: dict[str, _Tensor]
    outputs: dict[str, _Tensor]


class _Transport(Protocol):
    """A way to reach the server."""

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, _Tensor],
    ) -> dict[str, np.ndarray]: ...

    def metadata(self) -> dict[str, Any]: ...

    def status(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class _Rest:
    """The JSON API, columnar format."""

    def __init__(
        self, address: str, model: str, version: int | None, timeout: float
    ) -> None:
        self._address = address.rstrip("/")
        self._path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        if version is not None:
            self._path += f"/versions/{version}"
        self._timeout = timeout
        self._session = requests.Session()

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, _Tensor],
    ) -> dict[str, np.ndarray]:
        for name, array in inputs.items():
            if array.size == 0 and array.ndim > 1:
                raise ValueError(
                    "JSON cannot tell the shape of an array without values; "
                    f"gRPC can. Received: {name} of shape {array.shape}."
                )
        answer = self._answer(
            "POST",
            ":predict",
            key="outputs",
            body={
                "signature_name": signature,
                "inputs": {n: a.tolist() for n, a in inputs.items()},
            },
        )["outputs"]
        if len(outputs) == 1:  # which JSON does not name
            answer = {next(iter(outputs)): answer}
        return {
            name: _from_lists(answer[name], tensor)
            for name, tensor in outputs.items()
        }

    def metadata(self) -> dict[str, Any]:
        return self._answer("GET", "/metadata", key="metadata")

    def status(self) -> dict[str, Any]:
        return self._answer("GET", "", key="model_version_status")

    def close(self) -> None:
        self._session.close()

    def _answer(
        self, method: str, suffix: str, *, key: str, body: Any = None
    ) -> dict[str, Any]:
        url = self._address + self._path + suffix
        try:
            response = self._session.request(
                method,
                url,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
            )
        except requests.Timeout as error:
            raise _too_late(self._address, self._timeout) from error
        except requests.RequestException as error:
            raise _no_answer(self._address, error) from error
        try:
            answer = json.loads(response.content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            answer = {}
        if response.ok and key in answer:
            return answer
        message = answer.get("error") or (
            f"{url} does not answer as a model server does: "
            f"{response.text[:200]!r}"
        )
        raise ServingError(str(message), status=response.status_code)


class _Grpc:
    """The gRPC API; its stubs import TensorFlow."""

    def __init__(
        self, address: str, model: str, version: int | None, timeout: float
    ) -> None:
        try:
            import grpc
            import tensorflow as tf
            from google.protobuf import json_format
            from tensorflow_serving.apis import get_model_metadata_pb2
            from tensorflow_serving.apis import get_model_status_pb2
            from tensorflow_serving.apis import model_service_pb2_grpc
            from tensorflow_serving.apis import predict_pb2
            from tensorflow_serving.apis import prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(
                "gRPC needs `tensorflow-serving-api`: pip install "
                "'vhe_tf[serving]', or give an http:// address."
            ) from error
        self._address = address
        self._timeout = timeout
        self._model_spec: dict[str, Any] = {"name": model}
        if version is not None:
            self._model_spec["version"] = {"value": version}
        self._tf = tf
        self._grpc = grpc
        self._json_format = json_format
        self._predict_pb2 = predict_pb2
        self._metadata_pb2 = get_model_metadata_pb2
        self._status_pb2 = get_model_status_pb2
        self._channel = grpc.insecure_channel(
            urllib.parse.urlsplit(address).netloc,
            # 4 MB by default: 1300 images of 28x28.
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        self._predictor = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, _Tensor],
    ) -> dict[str, np.ndarray]:
        request = self._predict_pb2.PredictRequest(
            model_spec={**self._model_spec, "signature_name": signature}
        )
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(self._tf.make_tensor_proto(array))
        response = self._answer(self._predictor.Predict, request)
        return {
            name: self._tf.make_ndarray(response.outputs[name])
            for name in outputs
        }

    def metadata(self) -> dict[str, Any]:
        response = self._answer(
            self._predictor.GetModelMetadata,
            self._metadata_pb2.GetModelMetadataRequest(
                model_spec=self._model_spec, metadata_field=["signature_def"]
            ),
        )
        signatures = self._metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": self._as_json(response.model_spec),
            "metadata": {"signature_def": self._as_json(signatures)},
        }

    def status(self) -> dict[str, Any]:
        response = self._answer(
            self._models.GetModelStatus,
            self._status_pb2.GetModelStatusRequest(model_spec=self._model_spec),
        )
        return self._as_json(response)

    def close(self) -> None:
        self._channel.close()

    def _answer(self, call: Any, request: Any) -> Any:
        try:
            return call(request, timeout=self._timeout)
        except self._grpc.RpcError as error:
            code = error.code().name
            if code == "DEADLINE_EXCEEDED":
                raise _too_late(self._address, self._timeout) from error
            if code == "UNAVAILABLE":
                raise _no_answer(self._address, error.details()) from error
            raise ServingError(
                error.details(), status=_HTTP_STATUS.get(code, 500)
            ) from error

    def _as_json(self, message: Any) -> dict[str, Any]:
        return self._json_format.MessageToDict(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )


def _too_late(address: str, timeout: float) -> ServingError:
    return ServingError(
        f"{address} did not answer within {timeout} s. Ask for fewer rows at "
        "once, or give the client a longer `timeout`."
    )


def _no_answer(address: str, reason: object) -> ServingError:
    return ServingError(
        f"No answer from {address}. Is a server running there? Start "
        "TensorFlow Serving, or for development: python -m "
        f"vhe_tf.serving.local saved_models/NAME. ({reason})"
    )


def _signature_name(task: str, latent: str | None) -> str:
    """Returns the name of a task's signature."""
    return task if latent is None else f"{task}_{latent}"


def _rows(inputs: Mapping[str, npt.ArrayLike]) -> dict[str, np.ndarray]:
    """Gives all inputs the same number of rows.

    Raises:
        ValueError: If two inputs of several rows differ in their number.
    """
    arrays = {name: _array(name, value) for name, value in inputs.items()}
    lengths = {name: len(a) for name, a in arrays.items() if a.ndim}
    several = set(lengths.values()) - {1}
    if len(several) > 1:
        raise ValueError(
            "Expected the same number of rows in every input, or one. "
            f"Received: {lengths}."
        )
    count = several.pop() if several else 1
    if arrays["seed"].ndim == 0:
        arrays["seed"] = arrays["seed"] + np.arange(count)
    return {
        name: np.broadcast_to(array, (count, *array.shape[1:]))
        for name, array in arrays.items()
    }


def _array(name: str, value: npt.ArrayLike) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"Expected `{name}` to be an array: {error}") from None


def _cast(name: str, value: npt.ArrayLike, dtype: str) -> np.ndarray:
    """Returns an array of the dtype that a signature declares.

    Raises:
        ValueError: If the values are of another kind, as floats are not ints,
            or out of range, or if the client does not know the dtype.
    """
    array = _array(name, value)
    if not array.size:
        array = array.astype(np.bool_)  # no values are of any kind
    target = np.dtype(_DTYPES.get(dtype, object))
    if array.dtype.kind not in _KINDS_FOR[target.kind]:
        raise ValueError(
            f"Expected `{name}` to hold {dtype}. Received: {array.dtype}."
        )
    cast = array.astype(target)
    if target.kind in "iu" and (cast != array).any():
        raise ValueError(
            f"Expected `{name}` to hold {dtype}. Received: values from "
            f"{array.min()} to {array.max()}."
        )
    return cast


def _from_lists(value: Any, tensor: _Tensor) -> np.ndarray:
    array = np.array(value, _DTYPES[tensor.dtype])
    if array.size == 0 and array.ndim < len(tensor.shape):
        # No rows: only the signature knows the rest of the shape.
        array = array.reshape(0, *(max(size, 0) for size in tensor.shape[1:]))
    return array


def _read_signatures(metadata: Mapping[str, Any]) -> dict[str, _Signature]:
    declared = metadata["metadata"]["signature_def"]["signature_def"]
    return {
        name: _Signature(
            _read_tensors(signature["inputs"]),
            _read_tensors(signature["outputs"]),
        )
        for name, signature in declared.items()
        if signature.get("inputs")  # the loader's own signature has none
    }


def _read_tensors(tensors: Mapping[str, Any]) -> dict[str, _Tensor]:
    return {
        name: _Tensor(
            tensor["dtype"],
            tuple(int(d["size"]) for d in tensor["tensor_shape"]["dim"]),
        )
        for name, tensor in sorted(tensors.items())
    }
