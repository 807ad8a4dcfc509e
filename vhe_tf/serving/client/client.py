"""NumPy client of a served VHE.

    client = Client("http://127.0.0.1:8501", model="omniglot")
    client.classify(support, query).label
    client.sample(support, seed=range(16))
    encoded = client.encode(support)      # replaces the support in later calls
    client.classify(encoded, query)

A model with several group latents takes images that share one of them, or
images for each of them:

    client.sample(support, latent="style")
    client.sample({"character": some, "style": others})

The server is TensorFlow Serving or `vhe-tf serve`. REST imports neither
TensorFlow nor Keras. gRPC imports TensorFlow, because the stubs of
`tensorflow-serving-api` do, when the first client with a gRPC address is made.
"""

import dataclasses
import math
import types
import urllib.parse
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Self

import numpy as np
import numpy.typing as npt
import requests

from vhe_tf.serving.client import _arrays
from vhe_tf.serving.client._transport import ServingError
from vhe_tf.serving.client._transport import Signature
from vhe_tf.serving.client._transport import Transport
from vhe_tf.serving.client._transport import read_signatures
from vhe_tf.serving.client.grpc import GrpcTransport
from vhe_tf.serving.client.rest import RestTransport

__all__ = ["Classification", "Client"]


class Classification(NamedTuple):
    """Classification of each query among K classes.

    Attributes:
        log_likelihood: float32 array `[B, K]`, log E_q(c; D_k) p(x | c), nats.
        probabilities: float32 array `[B, K]`. Posterior probabilities under a
            uniform prior over the classes.
        label: int32 array `[B]`. The most probable class, in 0..K-1.

    Example:
    >>> client = Client(address, model="omniglot")
    >>> client.classify(support, query).probabilities.shape
    (3, 4)
    >>> client.close()
    """

    log_likelihood: np.ndarray
    probabilities: np.ndarray
    label: np.ndarray


# An array, or a mapping from the names of latents or of inputs to arrays.
Support = npt.ArrayLike | Mapping[str, npt.ArrayLike]


@dataclasses.dataclass(eq=False)
class Client:
    """Connection to one served model.

    The first axis of every input is the batch. An input with one row is
    broadcast to the rows of the others: one support set can serve all queries,
    and `seed=range(16)` samples 16 images of one support. Every row is still
    sent; `encode` makes a support small. The seed of a row is its only source
    of randomness. An integer seed s means the seeds s, s + 1, ... of the rows.

    If a model has several group latents, `latent` names the one that the images
    of a support share. Without it, `classify` uses the last group latent in the
    graph of the model. The other methods then need images for every group
    latent: the support is a mapping from names of latents to arrays.

    The client reads the signatures once, at the first request. It is not
    thread-safe: create one client per thread.

    Args:
        address: String. `http://host:port` or `https://host:port` for REST, by
            convention port 8501. `grpc://host:port` for gRPC, by convention
            port 8500; gRPC needs `vhe_tf[serving]` and is not encrypted.
            Defaults to `"http://127.0.0.1:8501"`.
        model: String. Name of the model on the server.
        version: Integer; or String, a label of TensorFlow Serving. Defaults to
            the newest version on the server.
        timeout: Float. Seconds within which a request must be answered, with
            its repetitions: a request that failed is sent up to three times.
            Defaults to 30.
        num_shots: Integer. Number of images to which supports with fewer are
            padded. A server with batching then merges requests of different
            shots, and the answers are the same. Defaults to no padding.
        session: `requests.Session` for REST, for example with a token or
            certificates. It is left open. Defaults to one of the client's.
        channel: `grpc.Channel` for gRPC, for example with TLS. It is left open.
            Defaults to an insecure one of the client's.

    Raises:
        ValueError: If the address has another scheme.
        ImportError: If the address needs gRPC and `vhe_tf[serving]` is not
            installed.

    Example:
    >>> with Client(address, model="omniglot") as client:
    ...     images = client.sample(support[:1, 0], seed=range(16))
    >>> images.shape
    (16, 2, 2, 1)
    """

    address: str = "http://127.0.0.1:8501"
    _: dataclasses.KW_ONLY
    model: str
    version: int | str | None = None
    timeout: float = 30.0
    num_shots: int | None = None
    session: requests.Session | None = None
    channel: Any = None

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.address)
        schemes = ("http", "https", "grpc")
        if parts.scheme not in schemes or not parts.netloc:
            raise ValueError(
                "Expected an address such as http://127.0.0.1:8501 or "
                f"grpc://127.0.0.1:8500. Received: address={self.address!r}."
            )
        shared: dict[str, Any] = {"version": self.version}
        shared["timeout"] = self.timeout
        self._transport: Transport
        if parts.scheme == "grpc":
            self._transport = GrpcTransport(
                self.address, self.model, channel=self.channel, **shared
            )
        else:
            self._transport = RestTransport(
                self.address, self.model, session=self.session, **shared
            )
        self._signatures: dict[str, Signature] = {}

    def classify(
        self,
        support: Support,
        query: npt.ArrayLike,
        *,
        latent: str | None = None,
        seed: npt.ArrayLike = 0,
    ) -> Classification:
        """Classifies each query among the classes of the supports.

        Args:
            support: Array `[B, K, N, H, W, C]`, pixels in [0, 1], for K classes
                of N images; or the result of `encode`, if the model has one
                group latent.
            query: Array `[B, H, W, C]`, pixels in [0, 1].
            latent: String. The group latent that distinguishes the classes.
                Defaults to the last in the graph.
            seed: Integer array `[B]`, or an integer. Defaults to 0.

        Returns:
            `Classification`: log-likelihoods, probabilities and labels.

        Raises:
            ServingError: If the server rejects the request or does not answer.
            ValueError: If an input is not an array, the inputs differ in rows,
                or the model takes other inputs.

        Example:
        >>> client = Client(address, model="omniglot")
        >>> client.classify(support, query).label.shape
        (3,)
        >>> client.close()
        """
        outputs = self._predict(
            "classify", latent, support, query=query, seed=seed
        )
        return Classification(
            **{k: v for k, v in outputs.items() if k in Classification._fields}
        )

    def novelty(
        self,
        support: npt.ArrayLike,
        query: npt.ArrayLike,
        *,
        log_likelihood: npt.ArrayLike | None = None,
        seed: npt.ArrayLike = 0,
    ) -> np.ndarray:
        """Scores how much more probable it is that a query is of no class.

        PixelCNNs of binary 28x28 images have this signature; see `VHE.novelty`.

        Args:
            support: Array `[B, K, N, H, W, C]`, as in `classify`; not the
                result of `encode`.
            query: Array `[B, H, W, C]`, pixels in [0, 1].
            log_likelihood: Array `[B, K]`, the result of `classify`. Defaults
                to None: it is computed.
            seed: Integer array `[B]`, or an integer. Defaults to 0.

        Returns:
            float32 array `[B]`, nats. The log odds that the query is of none of
            the K classes, if half of all queries are. Above 0, "none" is the
            better answer.

        Raises:
            ServingError: As in `classify`.
            ValueError: As in `classify`, or if the model has no novelty.

        Example:
        >>> client = Client(address, model="omniglot")
        >>> client.novelty(support, query).shape
        (3,)
        >>> client.close()
        """
        self._declared("novelty")
        if log_likelihood is None:
            log_likelihood = self.classify(
                support, query, seed=seed
            ).log_likelihood
        return self._predict(
            "novelty",
            None,
            support,
            query=query,
            log_likelihood=log_likelihood,
            seed=seed,
        )["novelty"]

    def sample(
        self,
        support: Support,
        *,
        latent: str | None = None,
        seed: npt.ArrayLike = 0,
    ) -> np.ndarray:
        """Samples a new image of the class of each row.

        Args:
            support: Array `[B, N, H, W, C]`, pixels in [0, 1], or the result of
                `encode`. If the model has several group latents, a mapping from
                their names to such arrays: a factorial model combines the
                content of one support with the style of another.
            latent: String. The only group latent that the support is about. The
                other latents are sampled from their priors. Defaults to None:
                the support is about all group latents.
            seed: Integer array `[B]`, or an integer. Defaults to 0.

        Returns:
            float32 array `[B, H, W, C]`.

        Raises:
            ServingError: If the server rejects the request or does not answer.
            ValueError: If an input is not an array, the inputs differ in rows,
                or the model takes other inputs.
        """
        return self._predict("sample", latent, support, seed=seed)["images"]

    def sample_prior(self, *, seed: npt.ArrayLike = 0) -> np.ndarray:
        """Samples an image of a new class for each seed.

        Args:
            seed: Integer array `[B]`, or an integer. Defaults to 0.

        Returns:
            float32 array `[B, H, W, C]`.

        Raises:
            ServingError: If the server rejects the request or does not answer.
        """
        inputs = _arrays.broadcast_rows({"seed": seed})
        return self.predict("sample_prior", inputs)["images"]

    def encode(
        self, support: Support, *, latent: str | None = None
    ) -> dict[str, np.ndarray]:
        """Infers the posterior parameters of the group latents.

        `classify` and `sample` take the result in place of the support.

        Args:
            support: Array `[..., N, H, W, C]`, pixels in [0, 1]:
                `[B, K, N, H, W, C]` for `classify`, `[B, N, H, W, C]` for
                `sample`. If the model has several group latents, a mapping
                from their names to such arrays.
            latent: String. The only group latent to infer. No method takes the
                parameters of one latent among several. Defaults to None: infer
                all group latents.

        Returns:
            Mapping from `mean` and `stddev`, or `{latent}_mean` and
            `{latent}_stddev`, to float32 arrays with the leading axes of the
            support.

        Raises:
            ServingError: If the server rejects the request or does not answer.
            ValueError: If the support has too few axes, or the model takes
                another support.
        """
        signature = _signature_name("encode", latent)
        named = {
            name: _arrays.as_array(value, name=name)
            for name, value in self._named(signature, support).items()
        }
        leading = {array.shape[:-4] for array in named.values()}
        if len(leading) != 1 or () in leading:
            shapes = {name: array.shape for name, array in named.items()}
            raise ValueError(
                "Expected supports [..., N, H, W, C] with the same leading "
                f"axes, at least one. Received: {shapes}."
            )
        (axes,) = leading
        count = math.prod(axes)
        outputs = self.predict(
            signature,
            {n: a.reshape(count, *a.shape[-4:]) for n, a in named.items()},
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
        """Estimates log E_q(c; D) p(x | c), the log-likelihood of the query.

        Args:
            support: Array `[B, N, H, W, C]`, pixels in [0, 1]. If the model has
                several group latents, a mapping from their names to such
                arrays.
            query: Array `[B, H, W, C]`, pixels in [0, 1].
            seed: Integer array `[B]`, or an integer. Defaults to 0.

        Returns:
            float32 array `[B]`, nats.

        Raises:
            ServingError: If the server rejects the request or does not answer.
            ValueError: If an input is not an array, the inputs differ in rows,
                or the model takes other inputs.
        """
        outputs = self._predict(
            "log_likelihood", None, support, query=query, seed=seed
        )
        return outputs["log_likelihood"]

    def predict(
        self, signature: str, inputs: Mapping[str, npt.ArrayLike]
    ) -> dict[str, np.ndarray]:
        """Runs any signature of the model.

        Args:
            signature: String. Name of the signature.
            inputs: Mapping from the name of each input to an array. All have
                the same number of rows.

        Returns:
            Mapping from the names of the outputs to arrays, without `status`.

        Raises:
            ServingError: If the server rejects the request or rows of it, or
                does not answer.
            ValueError: If the model has no such signature, the signature has
                other inputs, or an input has a wrong dtype.

        Example:
        >>> with Client(address, model="omniglot") as client:
        ...     client.predict("sample_prior", {"seed": [1, 2]})["images"].shape
        (2, 2, 2, 1)
        """
        declared = self._declared(signature)
        if set(inputs) != set(declared.inputs):
            raise ValueError(
                f"Expected the inputs {sorted(declared.inputs)} of "
                f"{signature!r}. Received: {sorted(inputs)}."
            )
        columns = {
            name: _arrays.cast(inputs[name], tensor.dtype, name=name)
            for name, tensor in declared.inputs.items()
        }
        if self.num_shots is not None:
            for name in filter(_is_support, columns):
                columns[name] = _arrays.padded(columns[name], self.num_shots)
        outputs = self._transport.predict(
            signature, columns, outputs=declared.outputs
        )
        _check_status(outputs.pop("status", np.array([], object)))
        return outputs

    def _predict(
        self,
        task: str,
        latent: str | None,
        support: Support,
        **others: npt.ArrayLike,
    ) -> dict[str, np.ndarray]:
        """Runs the signature of a task that takes such a support."""
        signature = _signature_name(task, latent)
        if isinstance(support, Mapping) and any(
            name.endswith("stddev") for name in support
        ):
            signature += "_encoded"
        named = self._named(signature, support)
        return self.predict(
            signature, _arrays.broadcast_rows({**named, **others})
        )

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

    def _declared(self, signature: str) -> Signature:
        if not self._signatures:
            self._signatures = read_signatures(self.metadata())
        if signature not in self._signatures:
            raise ValueError(
                f"Expected a signature of {self.model}: "
                f"{sorted(self._signatures)}. Received: "
                f"signature={signature!r}."
            )
        return self._signatures[signature]

    def metadata(self) -> dict[str, Any]:
        """Returns the signatures of the model, as the JSON of the server."""
        return self._transport.metadata()

    def status(self) -> dict[str, Any]:
        """Returns the versions and their states, as the JSON of the server."""
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


def _check_status(status: np.ndarray) -> None:
    """Raises an error for the rows that the model could not be asked for."""
    rows = {
        int(row): text.decode() if isinstance(text, bytes) else str(text)
        for row, text in enumerate(status)
        if text
    }
    if rows:
        shown = "; ".join(f"row {k}: {v}" for k, v in list(rows.items())[:5])
        more = f"; and {len(rows) - 5} more rows" if len(rows) > 5 else ""
        raise ServingError(f"Invalid inputs. {shown}{more}", status=400)


def _is_support(name: str) -> bool:
    return name.startswith("support")


def _signature_name(task: str, latent: str | None) -> str:
    return task if latent is None else f"{task}_{latent}"
