"""REST transport: JSON in the columnar format of TensorFlow Serving."""

import dataclasses
import gzip
import json
import queue
import threading
import urllib.parse
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
import requests
import urllib3
from requests import adapters

from vhe_tf.serving.client import _arrays
from vhe_tf.serving.client._transport import ServingError
from vhe_tf.serving.client._transport import Tensor
from vhe_tf.serving.client._transport import connection_error
from vhe_tf.serving.client._transport import timeout_error

__all__ = ["RestTransport"]


# Larger bodies are compressed.
_MAX_PLAIN_BYTES = 2**16

# Every request may be repeated: the same one has the same answer.
_RETRIES = urllib3.Retry(
    total=2,
    redirect=0,
    backoff_factor=0.2,
    status_forcelist=(429, 502, 503),
    allowed_methods=None,
    raise_on_status=False,
    raise_on_redirect=False,
)


@dataclasses.dataclass(eq=False)
class RestTransport:
    """Connection over the REST API.

    Args:
        address: String, `http://host:port` or `https://host:port`.
        model: String. Name of the model on the server.
        version: Integer; or String, a label; or None for the newest version.
        timeout: Float. Seconds within which a request must be answered.
        session: `requests.Session`, for example with a token or certificates.
            It is used as it is and left open. Defaults to None: a session that
            repeats requests that failed, and sends no credentials.

    Example:
    >>> transport = RestTransport(
    ...     address, "omniglot", version=None, timeout=30.0
    ... )
    >>> transport.status()["model_version_status"][0]["state"]
    'AVAILABLE'
    >>> transport.close()
    """

    address: str
    model: str
    _: dataclasses.KW_ONLY
    version: int | str | None
    timeout: float
    session: requests.Session | None = None

    def __post_init__(self) -> None:
        self._url = self.address.rstrip("/")
        self._url += f"/v1/models/{urllib.parse.quote(self.model, safe='')}"
        if isinstance(self.version, str):
            self._url += f"/labels/{urllib.parse.quote(self.version, safe='')}"
        elif self.version is not None:
            self._url += f"/versions/{self.version}"
        self._session = self.session or _new_session()

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
        elif not isinstance(answer, dict):
            answer = {}
        return {
            name: _arrays.checked_output(answer.get(name), tensor, name=name)
            for name, tensor in outputs.items()
        }

    def metadata(self) -> dict[str, Any]:
        """Returns the signatures, as the JSON of the server."""
        return self._answer("GET", "/metadata", key="metadata")

    def status(self) -> dict[str, Any]:
        """Returns versions and states, as the JSON of the server."""
        return self._answer("GET", "", key="model_version_status")

    def close(self) -> None:
        """Closes the connection, unless the session is the caller's."""
        if self.session is None:
            self._session.close()

    def _answer(
        self, method: str, suffix: str, *, key: str, body: Any = None
    ) -> dict[str, Any]:
        url = self._url + suffix
        headers = {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        if data is not None and len(data) > _MAX_PLAIN_BYTES:
            headers["Content-Encoding"] = "gzip"
            data = gzip.compress(data, compresslevel=1)
        try:
            response = _within(
                self.timeout,
                lambda: self._session.request(
                    method,
                    url,
                    data=data,
                    headers=headers,
                    timeout=self.timeout,
                    allow_redirects=False,
                ),
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


def _new_session() -> requests.Session:
    session = requests.Session()
    session.auth = lambda request: request  # not those of .netrc
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapters.HTTPAdapter(max_retries=_RETRIES))
    return session


def _within(
    seconds: float, call: Callable[[], requests.Response]
) -> requests.Response:
    """Returns the result of a call, or raises `requests.Timeout` in time.

    The timeout of `requests` is about each packet, and a server can send a byte
    at a time.
    """
    results: queue.SimpleQueue[requests.Response | Exception] = (
        queue.SimpleQueue()
    )

    def run() -> None:
        try:
            results.put(call())
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise requests.Timeout from None
    if isinstance(result, Exception):
        raise result
    return result
