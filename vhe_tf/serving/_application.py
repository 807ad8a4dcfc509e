"""The WSGI application of the development server: routes, limits, answers."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
import socket
import threading
import time
import traceback
import urllib.parse
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from werkzeug import exceptions
from werkzeug import utils
from werkzeug import wrappers

from vhe_tf.serving import json_tensors
from vhe_tf.serving._saved_model import SavedModel
from vhe_tf.serving._saved_model import Signature
from vhe_tf.serving.json_tensors import RequestError

__all__ = ["DEMO", "Application"]

# Folder of the page to draw on.
DEMO = pathlib.Path(__file__).with_name("demo")

_PAGES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

# Requests that run at the same time; others wait.
_MAX_CONCURRENT = 4
# Within which a body must arrive.
_MAX_BODY_SECONDS = 30.0

_PREDICT = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?:predict", re.IGNORECASE
)
_DESCRIBE = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?(/metadata)?",
    re.IGNORECASE,
)


@dataclasses.dataclass(eq=False)
class Application:
    """The WSGI application.

    Args:
        model: `SavedModel`. The model to serve.
        max_request_mib: Float. Largest request body in MiB, also after it is
            decompressed. Larger requests get status 413.
        log: Callable. Receives one line of text per request.
        hosts: Sequence of strings. Names of this server that a request may
            use, so that a page of another site cannot reach it under a name of
            its own. Defaults to None: any.

    Example:
    >>> from vhe_tf.serving._saved_model import SavedModel
    >>> from werkzeug.test import Client
    >>> model = SavedModel(folder, None)
    >>> client = Client(Application(model, max_request_mib=4.0, log=print))
    >>> client.get("/v1/models/omniglot").status_code
    GET /v1/models/omniglot 200 ... ms
    200
    """

    model: SavedModel
    _: dataclasses.KW_ONLY
    max_request_mib: float
    log: Callable[[str], None]
    hosts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self._max_bytes = int(self.max_request_mib * 2**20)
        self._running = threading.BoundedSemaphore(_MAX_CONCURRENT)

    def __call__(
        self, environ: dict[str, Any], start_response: Any
    ) -> Iterable[bytes]:
        start = time.monotonic()
        request = wrappers.Request(environ)
        # Werkzeug silently truncates a body without a length at this size, so
        # one extra byte reveals a body that is too large.
        request.max_content_length = self._max_bytes + 1
        response = self._respond(request)
        response.headers.update(_HEADERS)
        milliseconds = 1000 * (time.monotonic() - start)
        self.log(
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
            return _error(
                f"The request is larger than {self.max_request_mib:g} "
                "MiB. Send fewer rows per request, or increase "
                "--max_request_mib.",
                413,
            )
        except exceptions.ClientDisconnected:
            return _error(
                "The request was incomplete when the connection timed out.",
                408,
            )
        except exceptions.HTTPException as error:
            return _error(str(error.description), error.code or 400)
        except Exception as error:  # an unexpected one must not end the server
            self.log(traceback.format_exc())
            return _error(
                f"Internal error: {type(error).__name__}: {error}", 500
            )

    def _route(self, request: wrappers.Request) -> wrappers.Response:
        self._check_origin(request)
        if request.method == "GET" and request.path in _PAGES:
            return self._page(request)
        if not request.path.lower().startswith("/v1/"):
            raise RequestError(f"Nothing is served at {request.path}.", 404)
        # In TensorFlow Serving a query is part of the name.
        query = request.query_string.decode("latin-1")
        path = f"{request.path}?{query}" if query else request.path
        if request.method == "POST" and (match := _PREDICT.fullmatch(path)):
            self._check_spec(match[1], match[2])
            return self._predict(request)
        if request.method == "GET" and (match := _DESCRIBE.fullmatch(path)):
            self._check_spec(match[1], match[2])
            return _answer(self._metadata() if match[3] else self._status())
        raise RequestError(
            f"Malformed request: {request.method} {request.path}"
        )

    def _check_origin(self, request: wrappers.Request) -> None:
        """Rejects requests by pages of other sites."""
        if self.hosts is None:
            return
        origin = request.headers.get("Origin")
        host = request.host
        if urllib.parse.urlsplit(f"//{host}").hostname not in self.hosts:
            raise RequestError(
                f"The Host header must name this server. Received: {host!r}. "
                "Use --host to serve other machines.",
                403,
            )
        if origin not in (None, f"{request.scheme}://{host}"):
            raise RequestError(
                f"Requests from pages of {origin} are not allowed.", 403
            )

    def _page(self, request: wrappers.Request) -> wrappers.Response:
        if request.path == "/" and "model" not in request.args:
            query = urllib.parse.urlencode({"model": self.model.name})
            return utils.redirect(f"/?{query}")
        name, mimetype = _PAGES[request.path]
        return wrappers.Response((DEMO / name).read_bytes(), mimetype=mimetype)

    def _check_spec(self, name: str, version: str | None) -> None:
        if name != self.model.name:
            raise RequestError(
                f"Could not find any versions of model {name}", 404
            )
        if version is not None and int(version) != self.model.version:
            raise RequestError(
                f"Could not find version {version} of model {name}", 404
            )

    def _status(self) -> dict[str, Any]:
        return {
            "model_version_status": [
                {
                    "version": str(self.model.version),
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        }

    def _metadata(self) -> dict[str, Any]:
        return {
            "model_spec": {
                "name": self.model.name,
                "signature_name": "",
                "version": str(self.model.version),
            },
            "metadata": {
                "signature_def": {"signature_def": self.model.signature_json}
            },
        }

    def _predict(self, request: wrappers.Request) -> wrappers.Response:
        body = self._body(request)
        with self._running:
            return _answer(self._answer_to(json_tensors.parsed(body)))

    def _body(self, request: wrappers.Request) -> bytes:
        """Receives the body, decompressed."""
        connection = request.environ.get("werkzeug.socket")
        with contextlib.ExitStack() as stack:
            if connection:  # none in tests of this application alone
                shut = functools.partial(connection.shutdown, socket.SHUT_RD)
                timer = threading.Timer(_MAX_BODY_SECONDS, shut)
                timer.start()
                stack.callback(timer.cancel)
            body = request.get_data()
        if request.headers.get("Content-Encoding", "").lower() == "gzip":
            gzipped = zlib.decompressobj(wbits=31)
            try:
                body = gzipped.decompress(body, self._max_bytes + 1)
            except zlib.error as error:
                raise RequestError(f"The body is not gzip: {error}") from None
        if len(body) > self._max_bytes:
            raise exceptions.RequestEntityTooLarge
        return body

    def _answer_to(self, document: Mapping[str, Any]) -> dict[str, Any]:
        signature = self._signature(document.get("signature_name", ""))
        by_rows, columns = json_tensors.columns(document, signature.inputs)
        inputs = {
            name: json_tensors.to_array(columns[name], tensor, name=name)
            for name, tensor in signature.inputs.items()
        }
        outputs = self.model.run(signature, inputs)
        return (
            json_tensors.rows_json(outputs)
            if by_rows
            else json_tensors.columns_json(outputs)
        )

    def _signature(self, name: Any) -> Signature:
        if not isinstance(name, str):
            raise RequestError(
                f"JSON Value: {json_tensors.shown(name)} not formatted "
                "correctly. 'signature_name' key must be a string value."
            )
        name = name or "serving_default"
        if name not in self.model.signatures:
            raise RequestError(
                f'Serving signature name: "{name}" not found in signature def; '
                f"there are {', '.join(sorted(self.model.signatures))}"
            )
        return self.model.signatures[name]


def _answer(document: Any, status: int = 200) -> wrappers.Response:
    return wrappers.Response(
        json.dumps(document), status, content_type="application/json"
    )


def _error(message: str, status: int) -> wrappers.Response:
    return _answer({"error": message}, status)
