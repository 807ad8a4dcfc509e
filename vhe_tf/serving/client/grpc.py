"""gRPC transport. The stubs of TensorFlow Serving import TensorFlow."""

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np

from vhe_tf.serving.client import _arrays
from vhe_tf.serving.client._transport import HTTP_STATUS
from vhe_tf.serving.client._transport import ServingError
from vhe_tf.serving.client._transport import Tensor
from vhe_tf.serving.client._transport import connection_error
from vhe_tf.serving.client._transport import timeout_error

__all__ = ["GrpcTransport"]

# Every request may be repeated: the same one has the same answer.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclasses.dataclass(eq=False)
class GrpcTransport:
    """Connection over gRPC, not encrypted unless the caller's channel is.

    Args:
        address: String, `grpc://host:port`.
        model: String. Name of the model on the server.
        version: Integer; or String, a label; or None for the newest version.
        timeout: Float. Seconds within which a request must be answered.
        channel: `grpc.Channel`, for example with TLS. It is used as it is and
            left open. Defaults to None: an insecure channel that repeats
            requests that failed.

    Raises:
        ImportError: If `tensorflow-serving-api` is not installed.

    Example:
    >>> transport = GrpcTransport(
    ...     "grpc://127.0.0.1:8500", "omniglot", version=None, timeout=30.0
    ... )
    >>> transport.close()
    """

    address: str
    model: str
    _: dataclasses.KW_ONLY
    version: int | str | None
    timeout: float
    channel: Any = None

    def __post_init__(self) -> None:
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
                "'vhe_tf[serving]', or use an http:// address."
            ) from error
        self._model_spec: dict[str, Any] = {"name": self.model}
        if isinstance(self.version, str):
            self._model_spec["version_label"] = self.version
        elif self.version is not None:
            self._model_spec["version"] = {"value": self.version}
        self._tf = tf
        self._grpc = grpc
        self._json_format = json_format
        self._predict_pb2 = predict_pb2
        self._metadata_pb2 = get_model_metadata_pb2
        self._status_pb2 = get_model_status_pb2
        self._channel = self.channel or grpc.insecure_channel(
            urllib.parse.urlsplit(self.address).netloc,
            # The default is 4 MB: 1300 images of 28x28.
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.service_config", json.dumps(_RETRIES)),
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
        *,
        outputs: Mapping[str, Tensor],
    ) -> dict[str, np.ndarray]:
        """Runs a signature; see `Client.predict`."""
        request = self._predict_pb2.PredictRequest(
            model_spec={**self._model_spec, "signature_name": signature}
        )
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(self._tf.make_tensor_proto(array))
        response = self._answer(self._predictor.Predict, request)
        return {
            name: _arrays.checked_output(
                self._tf.make_ndarray(response.outputs[name]),
                tensor,
                name=name,
            )
            for name, tensor in outputs.items()
        }

    def metadata(self) -> dict[str, Any]:
        """Returns the signatures, as the JSON of the server."""
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
        """Returns versions and states, as the JSON of the server."""
        response = self._answer(
            self._models.GetModelStatus,
            self._status_pb2.GetModelStatusRequest(model_spec=self._model_spec),
        )
        return self._as_json(response)

    def close(self) -> None:
        """Closes the connection, unless the channel is the caller's."""
        if self.channel is None:
            self._channel.close()

    def _answer(self, call: Any, request: Any) -> Any:
        try:
            return call(request, timeout=self.timeout)
        except self._grpc.RpcError as error:
            code = error.code().name
            if code == "DEADLINE_EXCEEDED":
                raise timeout_error(self.address, self.timeout) from error
            if code == "UNAVAILABLE":
                reason = error.details()
                raise connection_error(self.address, reason) from error
            raise ServingError(
                error.details(),
                status=HTTP_STATUS.get(error.code().value[0], 500),
            ) from error

    def _as_json(self, message: Any) -> dict[str, Any]:
        return self._json_format.MessageToDict(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
