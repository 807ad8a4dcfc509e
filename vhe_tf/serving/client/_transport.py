"""Signatures and errors of the client's transports."""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Protocol

import numpy as np

__all__ = [
    "HTTP_STATUS",
    "ServingError",
    "Signature",
    "Tensor",
    "Transport",
    "connection_error",
    "read_signatures",
    "timeout_error",
]


# The HTTP statuses that TensorFlow Serving gives to the error codes of
# TensorFlow, which are those of gRPC.
HTTP_STATUS = {
    1: 499,  # cancelled
    3: 400,  # invalid argument
    4: 504,  # deadline exceeded
    5: 404,  # not found
    6: 409,  # already exists
    7: 403,  # permission denied
    8: 429,  # resource exhausted
    9: 400,  # failed precondition
    10: 409,  # aborted
    11: 400,  # out of range
    12: 501,  # unimplemented
    14: 503,  # unavailable
    16: 401,  # unauthenticated
}


class ServingError(RuntimeError):
    """A request that the server rejected or did not answer.

    Attributes:
        status: Integer or None. HTTP status, or its equivalent over gRPC. None
            if there was no answer.
        message: String. The message of the server.

    Example:
    >>> error = ServingError("Could not find any versions", status=404)
    >>> str(error)
    '404: Could not find any versions'
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message


class Tensor(NamedTuple):
    """Dtype and shape of an input or output; -1 is any size."""

    dtype: str
    shape: tuple[int, ...]


class Signature(NamedTuple):
    """Inputs and outputs of a signature, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Transport(Protocol):
    """Connection to the server."""

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        *,
        outputs: Mapping[str, Tensor],
    ) -> dict[str, np.ndarray]:
        """Runs a signature."""

    def metadata(self) -> dict[str, Any]:
        """Returns the signatures, as the JSON of the server."""

    def status(self) -> dict[str, Any]:
        """Returns versions and states, as the JSON of the server."""

    def close(self) -> None:
        """Closes the connection."""


def read_signatures(metadata: Mapping[str, Any]) -> dict[str, Signature]:
    """Returns the signatures that the metadata of a model declares.

    Example:
    >>> size = {"dim": [{"size": "-1"}]}
    >>> seed = {"seed": {"dtype": "DT_INT64", "tensor_shape": size}}
    >>> declared = {"sample_prior": {"inputs": seed, "outputs": {}}}
    >>> read_signatures(
    ...     {"metadata": {"signature_def": {"signature_def": declared}}}
    ... )["sample_prior"].inputs
    {'seed': Tensor(dtype='DT_INT64', shape=(-1,))}
    """
    declared = metadata["metadata"]["signature_def"]["signature_def"]
    return {
        name: Signature(
            _read_tensors(signature["inputs"]),
            _read_tensors(signature["outputs"]),
        )
        for name, signature in declared.items()
        if signature.get("inputs")  # the loader's own signature has none
    }


def _read_tensors(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: Tensor(
            tensor["dtype"],
            tuple(int(d["size"]) for d in tensor["tensor_shape"]["dim"]),
        )
        for name, tensor in sorted(tensors.items())
    }


def timeout_error(address: str, timeout: float) -> ServingError:
    """Returns the error of a request that took too long.

    Example:
    >>> timeout_error("http://127.0.0.1:8501", 30.0).message
    'http://127.0.0.1:8501 did not answer within 30.0 s. ...'
    """
    return ServingError(
        f"{address} did not answer within {timeout} s. Send fewer rows per "
        "request, or increase `timeout` of the client."
    )


def connection_error(address: str, reason: object) -> ServingError:
    """Returns the error of a server that cannot be reached.

    Example:
    >>> connection_error("http://127.0.0.1:8501", "refused").message
    'No answer from http://127.0.0.1:8501. Is a server running there? ...'
    """
    return ServingError(
        f"No answer from {address}. Is a server running there? Start "
        "TensorFlow Serving, or for development: vhe-tf "
        f"serve saved_models/NAME. ({reason})"
    )
