"""Development server of SavedModels.

    vhe-tf serve saved_models/omniglot

Use TensorFlow Serving in production. This server implements the REST API of
TensorFlow Serving (status, metadata, predict; rows and columns), so that
clients and pages can be written and tested without it. It serves one version of
one model. It has no gRPC, no batching, no labels of versions, no access control
and no encryption. It closes each connection after its answer, and it is slower,
because Python parses the JSON.

It differs from TensorFlow Serving where that helps a developer: errors name the
input whose shape does not match the signature, unknown names in `inputs` are
rejected, errors in the graph come without their stack traces, the size and
time of requests are limited, and on a loopback address it answers neither
other host names nor pages of other sites.
"""

import os
import pathlib
import threading
import types
from collections.abc import Callable
from typing import Any
from typing import Self

from werkzeug import serving

from vhe_tf.serving._application import Application
from vhe_tf.serving._saved_model import SavedModel

__all__ = ["LocalServer", "serve"]

NOT_FOR_PRODUCTION = (
    "This is the development server of vhe_tf. Use TensorFlow Serving in "
    "production."
)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class LocalServer:
    """Serves one SavedModel over HTTP, for development and tests.

    As a context manager it serves from a thread.

    Args:
        folder: Path of the model's folder, which contains one folder per
            version. Its name is the name of the model.
        host: String. Address to listen on. Defaults to `"127.0.0.1"`, which
            only this machine can reach.
        port: Integer. Port to listen on; 0 for any free port. Defaults to 8501.
        version: Integer. Defaults to the largest version.
        max_request_mib: Float. Largest request in MiB. Defaults to 4.
        log: Callable. Receives one line of text per request. Defaults to
            printing it.

    Raises:
        FileNotFoundError: If the folder does not contain the version.
        OSError: If the server cannot listen on the port, for example because
            another process uses it.
        ValueError: If the port is out of range.

    Example:
    >>> from vhe_tf.serving import Client
    >>> with (
    ...     LocalServer(folder, port=0) as server,
    ...     Client(server.address, model="omniglot") as client,
    ... ):
    ...     client.sample_prior(seed=range(4)).shape
    GET /v1/models/omniglot/metadata 200 ... ms
    POST /v1/models/omniglot:predict 200 ... ms
    (4, 2, 2, 1)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 8501,
        version: int | None = None,
        max_request_mib: float = 4.0,
        log: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        if not 0 <= port < 2**16:
            raise ValueError(
                "`port` must be from 0 (any free port) to 65535. "
                f"Received: port={port}."
            )
        self.folder = folder
        self.host = host
        self.max_request_mib = max_request_mib
        self.log = log
        self.model = SavedModel(pathlib.Path(folder), version)
        self.version = self.model.version
        try:
            self._server = serving.make_server(
                host,
                port,
                Application(
                    self.model,
                    max_request_mib=max_request_mib,
                    log=log,
                    hosts=_LOOPBACK if host in _LOOPBACK else None,
                ),
                threaded=True,
                request_handler=_Handler,
            )
        except SystemExit as error:  # Werkzeug's
            raise OSError(
                f"Cannot listen on port {port} of {host}: {error.__context__}. "
                "Use another port, or 0 for any free port."
            ) from error
        self.port = self._server.port
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """String, `http://host:port`."""
        host = self._server.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def serve_forever(self) -> None:
        """Serves until the process is interrupted, then frees the port."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stops serving and frees the port."""
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


class _Handler(serving.WSGIRequestHandler):
    """Disconnects silent clients; only the application writes the log."""

    timeout = 30.0  # seconds

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def log(self, type: str, message: str, *args: Any) -> None:
        print(message % args if args else message, flush=True)


def serve(folder: str | os.PathLike[str], **options: Any) -> None:
    """Serves a model until the process is interrupted, and prints where.

    Args:
        folder: Path of the model's folder, as of `LocalServer`.
        **options: Passed on to `LocalServer`.

    Raises:
        OSError: If the folder holds no such version, or the port is in use.
        ValueError: If it is not a SavedModel, or the port is invalid.

    Example:
    >>> serve(folder / "missing")
    Traceback (most recent call last):
    FileNotFoundError: Expected a version of a SavedModel, ...
    """
    print(NOT_FOR_PRODUCTION, flush=True)
    print(f"Loading {os.fspath(folder)} ...", flush=True)
    server = LocalServer(folder, **options)
    model = server.model
    if model.warm_up():
        print("Answered the warm-up requests of the export.", flush=True)
    print(
        f"Serving {model.name}, version {model.version}, at {server.address}"
        f"/v1/models/{model.name}\n"
        f"Signatures: {', '.join(sorted(model.signatures))}"
    )
    print(f"Page to draw on: {server.address}")
    if server.host not in _LOOPBACK:
        print(
            f"No access control: anyone who reaches {server.host} can use it."
        )
    print("Press Ctrl-C to stop.", flush=True)
    server.serve_forever()
    print("Stopped.")
