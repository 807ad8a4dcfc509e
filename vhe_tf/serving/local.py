"""A small server of SavedModels, for development and tests.

    python -m vhe_tf.serving.local saved_models/omniglot

Production is TensorFlow Serving; this is not it. This server speaks the REST
API of TensorFlow Serving (status, metadata, predict; rows and columns), so that
clients and pages can be written and tested where TensorFlow Serving cannot be
had. It serves one version of one model. It has no gRPC, no batching, no access
control and no encryption, and it is slower: JSON is read by Python.

It differs from TensorFlow Serving where that helps a developer: a shape that
differs from the signature's and an unknown name in `inputs` are refused by
name, an error in the graph is told without its stack, and requests are bounded
in size, in rows and in number.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Protocol
from typing import Self

import numpy as np
from werkzeug import exceptions
from werkzeug import serving
from werkzeug import wrappers

from vhe_tf.serving import json_tensors
from vhe_tf.serving.json_tensors import RequestError
from vhe_tf.serving.json_tensors import TensorInfo

__all__ = ["LocalServer", "main"]

NOT_FOR_PRODUCTION = (
    "This is vhe_tf's local server, for development and tests. Production is "
    "TensorFlow Serving, and this is not it."
)

DEMO = pathlib.Path(__file__).with_name("demo") / "index.html"

_LOOPBACK = ("127.0.0.1", "::1", "localhost")

# Requests that may wait for those at work; each may hold a body in memory.
_MAX_WAITING = 32

# Seconds until a request that waits is sent away, and a silent client too.
_PATIENCE = 10.0
_SOCKET_TIMEOUT = 30.0

_PREDICT = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?:predict", re.IGNORECASE
)
_DESCRIBE = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?(/metadata)?",
    re.IGNORECASE,
)

# The status that TensorFlow Serving gives to errors of TensorFlow, by code.
_STATUS_OF_CODE = {
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


class LocalServer:
    """Serves one SavedModel over HTTP; see the module's docstring.

    As a context manager it serves from a thread:

        with LocalServer("saved_models/omniglot", port=0) as server:
            Client(server.address, model="omniglot")

    Args:
        folder: The model's folder, which holds a folder a version and gives
            the model its name.
        host: The address to listen on; the default can be reached from this
            machine only.
        port: The port; 0 for any free one.
        version: The version; default the largest.
        max_request_mib: The largest request, MiB; more is answered by 413.
        max_concurrent: Requests at work at once; others wait for a while, then
            are answered by 503.
        max_rows: The most rows in a request.
        max_items: The most images, latents or seeds in one input.
        log: Called with a line of text a request.

    Raises:
        FileNotFoundError: If the folder holds no such version.
        OSError: If the port is in use, or cannot be listened on.
        ValueError: If a limit is not positive, or the port is none.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 8501,
        version: int | None = None,
        max_request_mib: float = 32.0,
        max_concurrent: int = 2,
        max_rows: int = 256,
        max_items: int = 10_000,
        log: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        limits = _Limits(
            request_bytes=int(max_request_mib * 2**20),
            concurrent=max_concurrent,
            rows=max_rows,
            items=max_items,
        )
        if min(limits) < 1:
            raise ValueError(
                f"Every limit must be positive. Received: {limits}."
            )
        if not 0 <= port < 2**16:
            raise ValueError(
                "A port is a number from 0 (any free one) to 65535. "
                f"Received: port={port}."
            )
        self.model = _SavedModel(pathlib.Path(folder), version)
        try:
            self._server = serving.make_server(
                host,
                port,
                _Application(self.model, limits, log),
                threaded=True,
                request_handler=_Handler,
            )
        except SystemExit as error:  # Werkzeug's
            raise OSError(
                f"Port {port} of {host} cannot be listened on: "
                f"{error.__context__}. Give another, or 0 for any free one."
            ) from error
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """`http://host:port`."""
        host = self._server.host
        return (
            f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}"
        )

    def serve_forever(self) -> None:
        """Serves until the process is interrupted, then frees the port."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Ends serving and frees the port."""
        if self._thread:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the model that the command line names."""
    flags = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    print(NOT_FOR_PRODUCTION, flush=True)
    print(f"Loading {flags.folder} ...", flush=True)
    try:
        server = LocalServer(**vars(flags))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    model = server.model
    print(
        f"Serving {model.name}, version {model.version}, at {server.address}"
        f"/v1/models/{model.name}\n"
        f"Signatures: {', '.join(sorted(model.signatures))}"
    )
    if DEMO.exists():
        print(f"Demonstration: {server.address}/?model={model.name}")
    if flags.host not in _LOOPBACK:
        print(f"Whoever can reach {flags.host} can use it: no access control.")
    print("Ctrl-C ends it.", flush=True)
    server.serve_forever()
    print("Ended.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vhe_tf.serving.local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "folder", help="such as saved_models/omniglot: a folder a version in it"
    )
    add("--port", type=int, default=8501, help="default %(default)s; 0: any")
    add("--host", default="127.0.0.1", help="default %(default)s: this machine")
    add("--version", type=int, help="default the largest")
    add(
        "--max_request_mib",
        type=float,
        default=32.0,
        help="the largest request, MiB; default %(default)s",
    )
    add(
        "--max_concurrent",
        type=int,
        default=2,
        help="requests at work at once; default %(default)s",
    )
    add(
        "--max_rows",
        type=int,
        default=256,
        help="the most rows in a request; default %(default)s",
    )
    add(
        "--max_items",
        type=int,
        default=10_000,
        help="the most images, latents or seeds in one input of a request; "
        "default %(default)s",
    )
    return parser


class _Limits(NamedTuple):
    request_bytes: int
    concurrent: int
    rows: int
    items: int


class _Signature(NamedTuple):
    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


class _Model(Protocol):
    """What the application asks of a model."""

    name: str
    version: int
    signatures: dict[str, _Signature]
    signature_json: dict[str, Any]

    def run(
        self, signature: _Signature, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]: ...


class _SavedModel:
    """A version of a model, loaded as TensorFlow Serving loads it.

    That is by the graph-mode loader and a session, not by
    `tf.saved_model.load`.

    Args:
        folder: The model's folder.
        version: The version, or None for the largest.

    Raises:
        FileNotFoundError: If the folder holds no such version.
    """

    def __init__(self, folder: pathlib.Path, version: int | None) -> None:
        path = _version_folder(folder, version)
        import tensorflow as tf
        from google.protobuf import json_format

        self.name = folder.resolve().name
        self.version = int(path.name)
        self._errors = tf.errors.OpError
        config = tf.compat.v1.ConfigProto()
        config.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default(), _quiet(tf.get_logger()):
            meta_graph = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(path)
            )
        self.signatures = {
            name: _Signature(
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
        self, signature: _Signature, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs by name.

        Raises:
            RequestError: If the graph refuses the inputs, or fails.
        """
        try:
            return self._session.run(
                {name: t.name for name, t in signature.outputs.items()},
                {t.name: inputs[name] for name, t in signature.inputs.items()},
            )
        except self._errors as error:
            raise RequestError(
                _useful(error.message),
                _STATUS_OF_CODE.get(error.error_code, 500),
            ) from error


def _version_folder(folder: pathlib.Path, version: int | None) -> pathlib.Path:
    there = []
    if folder.is_dir():
        there = sorted(
            int(path.parent.name)
            for path in folder.glob("*/saved_model.pb")
            if re.fullmatch("[0-9]+", path.parent.name)
        )
    if not there or version not in (None, *there):
        wanted = "a version" if version is None else f"version {version}"
        raise FileNotFoundError(
            f"Expected {wanted} of a SavedModel, such as {folder / '1'} with "
            f"its saved_model.pb. Received: {folder} with the versions {there}."
        )
    return folder / str(there[-1] if version is None else version)


@contextlib.contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    # The session loader calls itself deprecated; TensorFlow Serving uses it.
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


def _useful(message: str) -> str:
    """Returns what an error of the graph says, without nodes and stacks."""
    message = message.removeprefix("Graph execution error:\n\n")
    message = message.rpartition("<stack traces unavailable>\n")[2]
    message = re.sub(r"^.*?\(0\) [A-Z_]+: ", "", message, flags=re.DOTALL)
    message = message.partition("\n\t [[")[0]
    said = re.match(r"assertion failed: \[(.*?)\](?: \[|$)", message, re.DOTALL)
    return said[1] if said else message


class _Application:
    """The WSGI application.

    Args:
        model: What to serve.
        limits: What to refuse.
        log: Called with a line of text a request.
        patience: Seconds that a request waits for those at work.
    """

    def __init__(
        self,
        model: _Model,
        limits: _Limits,
        log: Callable[[str], None],
        patience: float = _PATIENCE,
    ) -> None:
        self._model = model
        self._limits = limits
        self._log = log
        self._patience = patience
        self._admitted = threading.BoundedSemaphore(
            limits.concurrent + _MAX_WAITING
        )
        self._at_work = threading.BoundedSemaphore(limits.concurrent)

    def __call__(
        self, environ: dict[str, Any], start_response: Any
    ) -> Iterable[bytes]:
        start = time.monotonic()
        request = wrappers.Request(environ)
        # Werkzeug cuts a body without a length here and says nothing, so that
        # one byte more tells a body that is too large.
        request.max_content_length = self._limits.request_bytes + 1
        response = self._respond(request)
        milliseconds = 1000 * (time.monotonic() - start)
        self._log(
            f"{request.method} {ascii(request.path)[1:-1]} "
            f"{response.status_code} {milliseconds:.0f} ms"
        )
        return response(environ, start_response)

    def _respond(self, request: wrappers.Request) -> wrappers.Response:
        try:
            return self._route(request)
        except RequestError as error:
            return _error(str(error), error.status)
        except exceptions.RequestEntityTooLarge:
            mib = self._limits.request_bytes / 2**20
            return _error(
                f"The request is larger than {mib:g} MiB; send fewer rows at "
                "once, or raise --max_request_mib.",
                413,
            )
        except exceptions.ClientDisconnected:
            return _error("The request did not arrive whole, or in time.", 408)
        except exceptions.HTTPException as error:
            return _error(str(error.description), error.code or 400)
        except Exception as error:  # whatever it is, the server lives on
            self._log(traceback.format_exc())
            return _error(
                f"Internal error: {type(error).__name__}: {error}", 500
            )

    def _route(self, request: wrappers.Request) -> wrappers.Response:
        if request.method == "GET" and request.path == "/" and DEMO.exists():
            return wrappers.Response(DEMO.read_bytes(), mimetype="text/html")
        if not request.path.lower().startswith("/v1/"):
            raise RequestError(f"Nothing is served at {request.path}.", 404)
        if request.method == "POST" and (
            match := _PREDICT.fullmatch(request.path)
        ):
            self._check_spec(match[1], match[2])
            return self._predict(request)
        if request.method == "GET" and (
            match := _DESCRIBE.fullmatch(request.path)
        ):
            self._check_spec(match[1], match[2])
            return _answer(self._metadata() if match[3] else self._status())
        raise RequestError(
            f"Malformed request: {request.method} {request.path}"
        )

    def _check_spec(self, name: str, version: str | None) -> None:
        if name != self._model.name:
            raise RequestError(
                f"Could not find any versions of model {name}", 404
            )
        if version is not None and int(version) != self._model.version:
            raise RequestError(
                f"Could not find version {version} of model {name}", 404
            )

    def _status(self) -> dict[str, Any]:
        return {
            "model_version_status": [
                {
                    "version": str(self._model.version),
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        }

    def _metadata(self) -> dict[str, Any]:
        return {
            "model_spec": {
                "name": self._model.name,
                "signature_name": "",
                "version": str(self._model.version),
            },
            "metadata": {
                "signature_def": {"signature_def": self._model.signature_json}
            },
        }

    def _predict(self, request: wrappers.Request) -> wrappers.Response:
        # Before the body is read: what waits is bounded in memory as well.
        with self._admission():
            body = request.get_data()
            if len(body) > self._limits.request_bytes:
                raise exceptions.RequestEntityTooLarge
            with self._turn():
                return _answer(self._answer_to(json_tensors.parsed(body)))

    @contextlib.contextmanager
    def _admission(self) -> Iterator[None]:
        if not self._admitted.acquire(blocking=False):
            raise RequestError("Too many requests wait; try again later.", 503)
        try:
            yield
        finally:
            self._admitted.release()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._at_work.acquire(timeout=self._patience):
            raise RequestError("The server is busy; try again later.", 503)
        try:
            yield
        finally:
            self._at_work.release()

    def _answer_to(self, document: Mapping[str, Any]) -> dict[str, Any]:
        signature = self._signature(document.get("signature_name", ""))
        by_rows, columns = json_tensors.columns(document, signature.inputs)
        inputs = {
            name: json_tensors.to_array(name, columns[name], tensor)
            for name, tensor in signature.inputs.items()
        }
        for name, tensor in signature.inputs.items():
            self._check_counts(name, inputs[name].shape, tensor)
        outputs = self._model.run(signature, inputs)
        return (
            json_tensors.rows_json(outputs)
            if by_rows
            else json_tensors.columns_json(outputs)
        )

    def _signature(self, name: Any) -> _Signature:
        if not isinstance(name, str):
            raise RequestError(
                f"JSON Value: {json_tensors.shown(name)} not formatted "
                "correctly. 'signature_name' key must be a string value."
            )
        name = name or "serving_default"
        if name not in self._model.signatures:
            raise RequestError(
                f'Serving signature name: "{name}" not found in signature def; '
                f"there are {', '.join(sorted(self._model.signatures))}"
            )
        return self._model.signatures[name]

    def _check_counts(
        self, name: str, shape: tuple[int, ...], tensor: TensorInfo
    ) -> None:
        """Refuses counts, as the request chose them, that are too large."""
        declared = tensor.shape or (-1,) * len(shape)
        open_sizes = [
            size
            for size, known in zip(shape, declared, strict=True)
            if known < 0
        ]
        if shape and shape[0] > self._limits.rows:
            raise RequestError(
                f'Input "{name}": {shape[0]} rows; this server takes '
                f"{self._limits.rows} at most. Send fewer at once, or raise "
                "--max_rows."
            )
        if math.prod(open_sizes) > self._limits.items:
            raise RequestError(
                f'Input "{name}": {" x ".join(map(str, open_sizes))} items; '
                f"this server takes {self._limits.items} at most. Send fewer "
                "at once, or raise --max_items."
            )


class _Handler(serving.WSGIRequestHandler):
    """Drops clients that fall silent; leaves the log to the application."""

    timeout = _SOCKET_TIMEOUT

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def log(self, type: str, message: str, *args: Any) -> None:
        print(message % args if args else message, flush=True)


def _answer(document: Any, status: int = 200) -> wrappers.Response:
    return wrappers.Response(
        json.dumps(document), status, content_type="application/json"
    )


def _error(message: str, status: int) -> wrappers.Response:
    return _answer({"error": message}, status)


if __name__ == "__main__":
    main()
