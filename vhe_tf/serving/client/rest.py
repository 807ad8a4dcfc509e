"""REST transport: JSON in the columnar format of TensorFlow Serving."""

import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np
import requests

from vhe_tf.serving.client import _arrays
from vhe_tf.serving.client._transport import ServingError
from vhe_tf.serving.client._transport import Tensor
from vhe_tf.serving.client._transport import connection_error
from vhe_tf.serving.client._transport import timeout_error

__all__ = ["RestTransport"]


class RestTransport:
    """Connection over the REST API.

    Args:
        address: String, `http://host:port` or `https://host:port`.
        model: String. Name of the model on the server.
        version: Integer, or None for the newest version.
        timeout: Float. Seconds to wait for an answer.

    Example:
    >>> transport = RestTransport(
    ...     address, "omniglot", version=None, timeout=30.0
    ... )
    >>> transport.status()["model_version_status"][0]["state"]
    'AVAILABLE'
    >>> transport.close()
    """

    def __init__(
        self, address: str, model: str, *, version: int | None, timeout: float
    ) -> None:
        self.address = address
        self.model = model
        self.version = version
        self.timeout = timeout
        self._url = address.rstrip("/")
        self._url += f"/v1/models/{urllib.parse.quote(model, safe='')}"
        if version is not None:
            self._url += f"/versions/{version}"
        self._session = requests.Session()

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        *,
        outputs: Mapping[str, Tensor],
    ) -> dict[str, np.ndarray]:
        """Runs a signature; see `Client.predict`."""
        for name, array in inputs.items():
            if array.size == 0 and array.ndim > 1:
                raise ValueError(
                    "JSON cannot hold the shape of an empty array. Use a "
                    "grpc:// address, or send at least one row. Received: "
                    f"{name} of shape {array.shape}."
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
        if len(outputs) == 1:  # JSON omits the name of a single output
            answer = {next(iter(outputs)): answer}
        return {
            name: _arrays.from_lists(answer[name], tensor)
            for name, tensor in outputs.items()
        }

    def metadata(self) -> dict[str, Any]:
        """Returns the signatures, as the JSON of the server."""
        return self._answer("GET", "/metadata", key="metadata")

    def status(self) -> dict[str, Any]:
        """Returns versions and states, as the JSON of the server."""
        return self._answer("GET", "", key="model_version_status")

    def close(self) -> None:
        """Closes the connection."""
        self._session.close()

    def _answer(
        self, method: str, suffix: str, *, key: str, body: Any = None
    ) -> dict[str, Any]:
        url = self._url + suffix
        try:
            response = self._session.request(
                method,
                url,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json"},
                timeout=self.timeout,
            )
        except requests.Timeout as error:
            raise timeout_error(self.address, self.timeout) from error
        except requests.RequestException as error:
            raise connection_error(self.address, error) from error
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
