import base64
import concurrent.futures
import contextlib
import functools
import json
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import hypothesis
import numpy as np
import pytest
import requests
import tensorflow as tf
from hypothesis import strategies
from werkzeug import test as werkzeug_test

from tests.conftest import assert_equal_to_rounding
from tests.serving.conftest import example_inputs
from vhe_tf.experiments import serve
from vhe_tf.serving import _application
from vhe_tf.serving import _saved_model
from vhe_tf.serving import local
from vhe_tf.serving.json_tensors import RequestError

BLACK = np.zeros((2, 2, 1)).tolist()
QUIETLY = {"log": lambda line: None}


def _lists(inputs):
    return {name: value.tolist() for name, value in inputs.items()}


def _post(server, body, *, path="/v1/models/tiny:predict"):
    if isinstance(body, dict | list):
        body = json.dumps(body)
    return requests.post(server.address + path, data=body, timeout=30)


def _columns(server, signature, inputs):
    response = _post(
        server, {"signature_name": signature, "inputs": _lists(inputs)}
    )
    assert response.status_code == 200, response.text
    return json.loads(response.text)["outputs"]


def _error(response):
    """Returns the error of a response that is nothing but an error."""
    document = json.loads(response.text)
    assert list(document) == ["error"]
    assert response.headers["Content-Type"] == "application/json"
    return document["error"]


def _assert_lives(server):
    response = _post(
        server, {"signature_name": "sample_prior", "inputs": {"seed": [75]}}
    )
    assert response.json() == {"outputs": [[[[1.0], [1.0]], [[1.0], [1.0]]]]}


# What is served ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/versions/10"])
def test_status(server, path):
    response = requests.get(f"{server.address}/v1/models/tiny{path}")
    assert response.status_code == 200
    assert response.json() == {
        "model_version_status": [
            {
                "version": "10",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }


@pytest.mark.parametrize("path", ["/metadata", "/versions/10/metadata"])
def test_metadata(server, path):
    document = requests.get(f"{server.address}/v1/models/tiny{path}").json()
    assert document["model_spec"] == {
        "name": "tiny",
        "signature_name": "",
        "version": "10",
    }
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"].keys() == {
        "support",
        "query",
        "seed",
    }
    seed = signatures["sample_prior"]["inputs"]["seed"]
    assert seed["dtype"] == "DT_INT64"
    assert seed["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }


def test_the_largest_version_is_served_unless_another_is_named(saved_model):
    for version, served in [(None, 10), (2, 2)]:
        with local.LocalServer(
            saved_model, port=0, version=version, **QUIETLY
        ) as server:
            assert server.model.version == served
            path = f"/v1/models/tiny/versions/{served}:predict"
            body = {"signature_name": "sample_prior", "instances": [1]}
            assert _post(server, body, path=path).status_code == 200


def test_a_folder_whose_name_looks_like_a_pattern_is_served(
    tmp_path, saved_model
):
    folder = tmp_path / r"run[1]\*?" / "tiny"
    shutil.copytree(saved_model / "10", folder / "10")
    with local.LocalServer(folder, port=0, **QUIETLY) as server:
        body = {"signature_name": "sample_prior", "instances": [1]}
        path = "/v1/models/tiny:predict"
        assert _post(server, body, path=path).status_code == 200


@pytest.mark.parametrize("version", [None, 3])
def test_a_version_that_is_not_there_is_refused(tmp_path, saved_model, version):
    folder = tmp_path if version is None else saved_model
    there = [] if version is None else [2, 10]
    with pytest.raises(
        FileNotFoundError, match=re.escape(f"with the versions {there}")
    ):
        local.LocalServer(folder, port=0, version=version)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(saved_model, port):
    with pytest.raises(ValueError, match=f"port={port}"):
        local.LocalServer(saved_model, port=port)


def test_a_port_that_is_taken_is_an_error(server, saved_model):
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(
        OSError, match=f"Cannot listen on port {port} of 127.0.0.1: .* in use"
    ):
        local.LocalServer(saved_model, port=port)


def test_a_port_that_is_taken_ends_quietly(server, saved_model):
    port = server.address.rpartition(":")[2]
    with pytest.raises(SystemExit, match=f"in use.* --port={port}"):
        serve.main(["vhe-tf serve", str(saved_model), f"--port={port}"])


# What is answered -------------------------------------------------------------


@pytest.mark.parametrize("name", ["classify", "serving_default", ""])
def test_columns_give_what_the_signature_gives(
    server, signatures, inputs, name
):
    outputs = _columns(server, name, inputs)
    expected = signatures("classify", **inputs)
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(
            np.array(outputs[key], value.dtype), value
        )
    assert all(type(label) is int for label in outputs["label"])


def test_rows_give_what_columns_give(server, inputs):
    lists = _lists(inputs)
    rows = [
        dict(zip(lists, row, strict=True))
        for row in zip(*lists.values(), strict=True)
    ]
    predictions = _post(server, {"instances": rows}).json()["predictions"]
    columns = _columns(server, "classify", inputs)
    assert len(predictions) == 3
    for name, column in columns.items():
        assert [prediction[name] for prediction in predictions] == column


@pytest.mark.parametrize("named", [True, False])
def test_a_single_input_may_go_unnamed_and_a_single_output_does(server, named):
    seeds = [75, 175]
    rows = _post(
        server,
        {
            "signature_name": "sample_prior",
            "instances": [{"seed": s} for s in seeds] if named else seeds,
        },
    ).json()["predictions"]
    columns = _post(
        server,
        {
            "signature_name": "sample_prior",
            "inputs": {"seed": seeds} if named else seeds,
        },
    ).json()["outputs"]
    assert rows == columns
    assert np.shape(rows) == (2, 2, 2, 1)
    np.testing.assert_array_equal(np.ravel(rows), np.repeat([1.0, 2.0], 4))


def test_no_rows_by_columns(server):
    assert _columns(server, "sample_prior", {"seed": np.zeros(0)}) == []


def test_every_dtype_of_the_rules(server):
    response = _post(
        server,
        {
            "signature_name": "every_dtype",
            "inputs": {
                "text": ["é", {"b64": base64.b64encode(b"\x00\xff").decode()}],
                "flag": [True, False],
                "byte": [0, 255],
                "wide": [1, 0.1],
            },
        },
    )
    assert response.json() == {
        "outputs": {
            "text": ["é", "\x00�"],
            "text_bytes": [{"b64": "w6k="}, {"b64": "AP8="}],
            "flag": [False, True],
            "byte": [0, 255],
            "wide": [1 / 3.0, 0.1 / 3.0],
        }
    }


def test_float32_comes_in_its_own_digits(server):
    outputs = _columns(
        server, "encode", {"support": np.full((1, 1, 2, 2, 1), 0.2)}
    )
    assert outputs["mean"] == [[[[0.2], [0.2]], [[0.2], [0.2]]]]


def test_numbers_that_are_none_come_as_tensorflow_serving_writes_them(server):
    response = _post(
        server, {"signature_name": "reciprocal", "instances": [0, 4]}
    )
    assert "Infinity" in response.text
    assert "NaN" in response.text
    predictions = json.loads(response.text)["predictions"]
    assert predictions[0]["reciprocal"] == math.inf
    assert predictions[1]["reciprocal"] == 0.25
    assert math.isnan(predictions[1]["not_a_number"])


def test_other_keys_are_ignored(server):
    body = {"signature_name": "sample_prior", "instances": [1], "more": [2]}
    assert _post(server, body).status_code == 200


def test_paths_are_told_apart_by_letters_not_by_their_case(server):
    body = {"signature_name": "sample_prior", "instances": [1]}
    assert _post(server, body, path="/V1/Models/tiny:Predict").ok


# What is rejected -------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models/tiny/versions/3", 404, "version 3 of model tiny"),
        ("GET", "/v1/models/other", 404, "any versions of model other"),
        ("GET", "/v1/models/other/metadata", 404, "versions of model other"),
        ("GET", "/v1/models", 400, "Malformed request: GET /v1/models"),
        ("POST", "/v1/models/other:predict", 404, "versions of model other"),
        ("POST", "/v1/models/tiny/versions/3:predict", 404, "version 3"),
        ("POST", "/v1/models/tiny:regress", 400, "Malformed request: POST"),
        ("POST", "/v1/models/tiny", 400, "Malformed request: POST"),
        ("GET", "/v1/models/tiny:predict", 400, "Malformed request: GET"),
        ("DELETE", "/v1/models/tiny", 400, "Malformed request: DELETE"),
        ("GET", f"/v1/models/tiny/versions/{9**30}", 400, "Malformed request"),
        ("GET", "/v2/health", 404, "/v2/health"),
        ("GET", "/../../etc/passwd", 404, "Nothing is served"),
    ],
)
def test_paths_that_are_refused(server, method, path, status, message):
    response = requests.request(method, server.address + path, data="{}")
    assert response.status_code == status
    assert message in _error(response)
    _assert_lives(server)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error"),
        ("{", "JSON Parse error"),
        (b"\xff{}", "JSON Parse error"),
        ("[" * 200_000, "nested too deeply"),
        ('{"instances": [' + "9" * 5000 + "]}", "JSON Parse error"),
        ("[1]", "JSON Value: [1] Is not object"),
        ({}, "Received: neither"),
        ({"inputs": [1], "instances": [1]}, "Received: instances and inputs"),
        ({"signature_name": 3, "inputs": [1]}, "'signature_name' key must be"),
        (
            {"signature_name": "no", "inputs": [1]},
            '"no" not found in signature',
        ),
        ({"signature_name": "__saved_model_init_op"}, "not found in signature"),
        ({"instances": 3}, "'instances' to be a list"),
        ({"instances": []}, "'instances' to be a list"),
        ({"instances": [1]}, "query, seed, support"),
        ({"inputs": [1]}, "query, seed, support"),
    ],
)
def test_documents_that_are_refused(server, body, message):
    response = _post(server, body)
    assert response.status_code == 400
    assert message in _error(response)
    _assert_lives(server)


def _ragged(support):
    support[0][1] = support[0][1][:2]
    return support


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("query", lambda value: value[0], "expected shape [-1,2,2,1]"),
        ("query", lambda value: value[:2], "Incompatible shapes"),
        ("query", lambda value: 0.5, "but got: []"),
        ("query", lambda value: "ink", "but got: []"),
        ("query", lambda value: None, "but got: []"),
        ("query", lambda value: [BLACK * 2] * 3, "but got: [3,4,2,1]"),
        ("query", lambda value: [*value[:2], 1], "Received: 1"),
        ("query", lambda value: [*value[:2], [1]], "Received: [1]"),
        (
            "query",
            lambda value: [*value[:2], [[[0], [[0]]], [[0], [0]]]],
            "nested",
        ),
        (
            "query",
            lambda value: [[[[True], [0]], [[0], [0]]]] * 3,
            "true is not of expected type: float32",
        ),
        (
            "query",
            lambda value: [[[["0"], [0]], [[0], [0]]]] * 3,
            '"0" is not of expected type: float32',
        ),
        (
            "query",
            lambda value: [[[[{}], [0]], [[0], [0]]]] * 3,
            "{} is not of expected type: float32",
        ),
        (
            "query",
            lambda value: [[[[9**999], [0]], [[0], [0]]]] * 3,
            "an integer is too large",
        ),
        ("query", lambda value: [[[[math.nan]] * 2] * 2] * 3, "in [0, 1]"),
        ("query", lambda value: [[[[math.inf]] * 2] * 2] * 3, "in [0, 1]"),
        ("query", lambda value: [[[[1.5]] * 2] * 2] * 3, "in [0, 1]"),
        ("support", lambda value: [[[[[[-1]] * 2] * 2]]] * 3, "in [0, 1]"),
        ("support", _ragged, "Expected a list of 5"),
        ("support", lambda value: [[[]]] * 3, "but got: [3,1,0]"),
        ("support", lambda value: [[]] * 3, "but got: [3,0]"),
        (
            "seed",
            lambda value: [1.0, 2, 3],
            "1.0 is not of expected type: int64",
        ),
        ("seed", lambda value: [1, 2, 2**63], "9223372036854775808 is not of"),
        ("seed", lambda value: [1, 2, math.nan], "NaN is not of expected type"),
        ("seed", lambda value: [1, 2, True], "true is not of expected type"),
        ("seed", lambda value: [[1], [2], [3]], "expected shape [-1]"),
    ],
)
def test_inputs_that_are_refused(server, inputs, name, change, message):
    lists = _lists(inputs)
    lists[name] = change(lists[name])
    response = _post(server, {"inputs": lists})
    assert response.status_code == 400
    assert message in _error(response)
    if message != "Incompatible shapes":  # which the real model tells better
        assert name in _error(response)
    _assert_lives(server)


def test_inputs_that_are_missing_or_unknown_are_named(server, inputs):
    lists = _lists(inputs)
    missing = {"query": lists["query"], "seed": lists["seed"]}
    for body, message in [
        ({"inputs": missing}, 'Missing: "support". Unknown: none'),
        ({"inputs": {**lists, "sead": [1]}}, 'Unknown: "sead"'),
    ]:
        response = _post(server, body)
        assert response.status_code == 400
        assert message in _error(response)
    row = {name: value[0] for name, value in lists.items()}
    for other, message in [
        ({**row, "sead": 1}, 'row 1 of .* Unknown: "sead"'),
        (
            {"query": row["query"]},
            'row 1 of .* Missing: "seed", "support"',
        ),
        ([1], "row 1 of .* Received: .1"),
    ]:
        response = _post(server, {"instances": [row, other]})
        assert response.status_code == 400
        assert re.search(message, _error(response))
    _assert_lives(server)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"b64": "?"}, "Unable to base64 decode"),
        ({"b64": "AA==", "more": 1}, "not formatted correctly for base64"),
        (3, "3 is not of expected type: string"),
    ],
)
def test_strings_that_are_refused(server, text, message):
    columns = {"flag": [True], "byte": [1], "wide": [0.5], "text": [text]}
    response = _post(
        server, {"signature_name": "every_dtype", "inputs": columns}
    )
    assert response.status_code == 400
    assert message in _error(response)
    assert '"text"' in _error(response)


def test_integers_stay_within_their_dtype(server):
    columns = {"flag": [True], "byte": [256], "wide": [0.5], "text": ["a"]}
    response = _post(
        server, {"signature_name": "every_dtype", "inputs": columns}
    )
    assert response.status_code == 400
    assert '"byte": JSON Value: 256 is not of' in _error(response)


def test_rows_need_outputs_with_rows(server):
    body = {"signature_name": "total", "instances": [3, 4]}
    assert "total has no shape" in _error(_post(server, body))
    assert _columns(server, "total", {"seed": np.array([3, 4])}) == 7


def test_half_precision_has_no_json(server):
    body = {"signature_name": "half", "instances": [3, 4]}
    response = _post(server, body)
    assert response.status_code == 501
    assert "to type: float16" in _error(response)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_request_is_refused(server, chunked):
    body = b'{"instances": [' + b"0, " * 2**19 + b"0]}"
    response = _post(server, iter([body]) if chunked else body)
    assert response.status_code == 413
    assert "larger than 1 MiB" in _error(response)
    _assert_lives(server)


# Under load -------------------------------------------------------------------


def test_concurrent_clients_get_each_their_own(server):
    num_threads, num_requests = 8, 20

    def ask(thread):
        answers = []
        with requests.Session() as session:
            for index in range(num_requests):
                seeds = [1000 * thread + index, -index]
                response = session.post(
                    f"{server.address}/v1/models/tiny:predict",
                    json={"signature_name": "sample_prior", "instances": seeds},
                    timeout=30,
                )
                answers.append(
                    (
                        response.status_code,
                        seeds,
                        response.json()["predictions"],
                    )
                )
        return answers

    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        answers = [
            a for some in pool.map(ask, range(num_threads)) for a in some
        ]
    assert len(answers) == num_threads * num_requests
    for status, seeds, images in answers:
        assert status == 200
        expected = np.array(seeds, np.float32) / np.float32(100.0) + 0.25
        np.testing.assert_allclose(np.array(images)[:, 0, 0, 0], expected, 1e-6)


class _OtherModel:
    """A model without inputs."""

    name = "slow"
    version = 1

    def __init__(self):
        self.signatures = {"serving_default": _saved_model.Signature({}, {})}
        self.signature_json = {}


def _client(model, *, log=lambda line: None):
    application = _application.Application(model, max_request_mib=1e-4, log=log)
    return werkzeug_test.Client(application)


def test_a_dripping_client_is_dropped(server, monkeypatch):
    monkeypatch.setattr(_application, "_MAX_BODY_SECONDS", 0.3)
    host, port = server.address.removeprefix("http://").split(":")
    head = "POST /v1/models/tiny:predict HTTP/1.1\r\nContent-Length: 99\r\n"
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(f"{head}\r\n".encode())
        dropped = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                while not dropped.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        answer = connection.recv(4096).decode()
        dropped.set()
        thread.join()
    assert answer.startswith("HTTP/1.1 408 ")


def test_clients_that_send_slowly_leave_room_for_others(saved_model):
    with local.LocalServer(saved_model, port=0, **QUIETLY) as server:
        host, port = server.address.removeprefix("http://").split(":")
        head = (
            b"POST /v1/models/tiny:predict HTTP/1.1\r\nContent-Length: 99\r\n"
        )
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                slow = socket.create_connection((host, int(port)), 30)
                stack.enter_context(slow).sendall(head + b"\r\n{")
            _assert_lives(server)


def test_an_error_of_the_server_is_told_and_survived():
    model = _OtherModel()
    lines = []
    client = _client(model, log=lines.append)
    model.run = lambda signature, inputs: 1 / 0
    response = client.post("/v1/models/slow:predict", data='{"inputs": {}}')
    assert response.status_code == 500
    assert "ZeroDivisionError" in response.json["error"]
    assert "Traceback" in lines[0]
    assert lines[1].startswith("POST /v1/models/slow:predict 500 ")
    model.run = lambda signature, inputs: {"answer": np.ones(1)}
    response = client.post("/v1/models/slow:predict", data='{"inputs": {}}')
    assert response.status_code == 200


@pytest.mark.parametrize("leaves", [False, True])
def test_a_client_that_falls_silent_is_dropped(server, monkeypatch, leaves):
    monkeypatch.setattr(local._Handler, "timeout", 0.05)
    host, port = server.address.removeprefix("http://").split(":")
    head = "POST /v1/models/tiny:predict HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode())
        if leaves:
            connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 408 ")
    assert "request was incomplete" in answer
    _assert_lives(server)


def test_lines_of_the_log_cannot_be_forged():
    lines = []
    _client(_OtherModel(), log=lines.append).get("/v1/%0aGET%20/v1/models/slow")
    assert len(lines) == 1
    assert "\n" not in lines[0]


# Requests of every kind -------------------------------------------------------

_JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(max_size=3),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(
            strategies.sampled_from(["seed", "query", "support", "b64", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)

_NAMES = [
    "classify",
    "encode",
    "sample",
    "sample_prior",
    "every_dtype",
    "x",
    "",
]


@strategies.composite
def _near_valid(draw):
    """A request to classify, parts of which are something else."""
    row = {"support": [[BLACK]], "query": BLACK, "seed": 1}
    for name in draw(strategies.sets(strategies.sampled_from([*row, "x"]))):
        row[name] = draw(_JSON | strategies.just([[BLACK]]))
    if draw(strategies.booleans()):
        row.pop(draw(strategies.sampled_from(sorted(row))))
    rows = [row] * draw(strategies.integers(0, 3))
    if draw(strategies.booleans()):
        return {"instances": rows}
    return {"inputs": {name: [r[name] for r in rows] for name in row}}


@hypothesis.given(
    document=_near_valid()
    | strategies.fixed_dictionaries(
        {},
        optional={
            "signature_name": strategies.sampled_from(_NAMES) | _JSON,
            "instances": _JSON | strategies.lists(_JSON, max_size=3),
            "inputs": _JSON,
        },
    )
    | _JSON,
)
@hypothesis.settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_any_json_is_answered_or_refused(server, document):
    response = _post(server, json.dumps(document))
    assert response.status_code in (200, 400), (document, response.text)
    if response.status_code == 400:
        assert _error(response)


@hypothesis.given(body=strategies.binary(max_size=60))
@hypothesis.settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_any_bytes_are_refused(server, body):
    response = _post(server, body)
    assert response.status_code == 400
    assert _error(response)


def test_the_server_lives_after_all_that(server):
    _assert_lives(server)


# With a real export -----------------------------------------------------------


@pytest.fixture(scope="module")
def real(exports):
    """A server of a real export, and a function that calls it directly."""
    _, path = exports("deconvolutional")
    loaded = tf.saved_model.load(str(path))

    def call(name, inputs):
        outputs = loaded.signatures[name](
            **{key: tf.constant(value) for key, value in inputs.items()}
        )
        return {key: value.numpy() for key, value in outputs.items()}

    call.signatures = loaded.signatures
    call.loaded = loaded  # the functions die with it
    with local.LocalServer(path.parent, port=0, **QUIETLY) as server:
        yield server, call


def _ask_real(server, name, inputs):
    return _post(
        server,
        {"signature_name": name, "inputs": inputs},
        path="/v1/models/deconvolutional:predict",
    )


def _assert_answers(response, expected):
    """Checks that a response in columns has the expected outputs."""
    assert response.status_code == 200, response.text
    outputs = json.loads(response.text)["outputs"]
    if len(expected) == 1:
        outputs = {next(iter(expected)): outputs}
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        if key == "status":
            assert outputs[key] == [text.decode() for text in value]
            continue
        answer = np.array(outputs[key], value.dtype)
        assert answer.shape == value.shape
        if key in ("images", "label"):
            np.testing.assert_array_equal(answer, value)
        else:
            assert_equal_to_rounding(answer, value)


def test_a_real_model_under_load_answers_each_its_own(real):
    server, call = real
    names = sorted(set(call.signatures) - {"serving_default"})
    tasks = []
    for index in range(2 * len(names)):
        name = names[index % len(names)]
        inputs = example_inputs(
            call.signatures[name],
            rows=1 + index % 3,
            ways=2 + index % 4,
            shots=1 + index % 2,
            seed=index,
        )
        tasks.append((name, _lists(inputs), call(name, inputs)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        responses = list(
            pool.map(lambda task: _ask_real(server, *task[:2]), tasks)
        )
    for response, (_, _, expected) in zip(responses, tasks, strict=True):
        _assert_answers(response, expected)


def _filled(value, fill):
    if isinstance(value, list):
        return [_filled(inner, fill) for inner in value]
    return fill


# Ways to spoil an input, given as lists.
_SPOILS = {
    "a row less": lambda value: value[:-1],
    "rows twice": lambda value: value + value,
    "an axis less": lambda value: value[0],
    "an axis more": lambda value: [value],
    "less in each row": lambda value: [
        row[:-1] if isinstance(row, list) else row for row in value
    ],
    **{
        f"all {fill!r}": functools.partial(_filled, fill=fill)
        for fill in (
            *(math.nan, math.inf, -1, 2, 0.5, 1e30, 2**62),
            *(True, None, "ink", {}, []),
        )
    },
}


@hypothesis.given(data=strategies.data())
@hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_a_real_model_answers_or_refuses_what_is_spoilt(real, data):
    server, call = real
    name = data.draw(strategies.sampled_from(sorted(call.signatures)))
    count = strategies.integers(1, 3)
    inputs = example_inputs(
        call.signatures[name],
        rows=data.draw(count),
        ways=data.draw(count),
        shots=data.draw(count),
    )
    lists = _lists(inputs)
    spoilt = data.draw(
        strategies.dictionaries(
            strategies.sampled_from(sorted(lists)),
            strategies.sampled_from(sorted(_SPOILS)),
            max_size=2,
        )
    )
    for key, how in spoilt.items():
        lists[key] = _SPOILS[how](lists[key])
    response = _ask_real(server, name, lists)
    if not spoilt:
        _assert_answers(response, call(name, inputs))
    elif response.status_code != 200:
        assert response.status_code == 400, response.text
        assert any(key in _error(response) for key in spoilt)


def test_the_server_of_a_real_model_lives_after_all_that(real):
    server, call = real
    inputs = {"seed": np.array([75])}
    response = _ask_real(server, "sample_prior", _lists(inputs))
    _assert_answers(response, call("sample_prior", inputs))


# The errors of graphs ---------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "useful"),
    [
        (
            "Graph execution error:\n\nassertion failed: [`a` must be in "
            "[0, 1].]\n\t [[{{node Assert/Assert}}]]",
            "`a` must be in [0, 1].",
        ),
        (
            "assertion failed: [`a` is low.] [Condition x >= y did not hold] "
            "[x (a:0) = ] [[-1]]",
            "`a` is low.",
        ),
        (
            "Graph execution error:\n\nDetected at node add defined at (most "
            "recent call last):\n<stack traces unavailable>\nIncompatible "
            "shapes: [3,2] vs. [2,1]\n\t [[{{node add}}]] [Op:x]",
            "Incompatible shapes: [3,2] vs. [2,1]",
        ),
        (
            "Graph execution error:\n\n2 root error(s) found.\n  (0) "
            "INVALID_ARGUMENT: assertion failed: [`a` is low.]\n\t [[{{node "
            "x}}]]\n  (1) CANCELLED: y\n0 successful operations.",
            "`a` is low.",
        ),
    ],
)
def test_errors_of_the_graph_are_told_without_its_nodes(message, useful):
    assert _saved_model.readable_error(message) == useful


def test_errors_of_the_graph_keep_their_kind(saved_model):
    model = _saved_model.SavedModel(saved_model, None)
    for kind, status in [
        (tf.errors.ResourceExhaustedError, 429),
        (tf.errors.InternalError, 500),
        (tf.errors.UnimplementedError, 501),
    ]:

        class Session:
            error = kind(None, None, "no more")

            def run(self, *arguments):
                raise self.error

        model._session = Session()
        with pytest.raises(RequestError, match="no more") as raised:
            model.run(model.signatures["total"], {"seed": None})
        assert raised.value.status == status


# The page and the command -----------------------------------------------------


def test_the_page_opens_the_model_that_is_served():
    client = _client(_OtherModel())
    response = client.get("/")
    assert response.status_code == 302
    assert response.location == "/?model=slow"
    response = client.get(response.location)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    parts = re.findall('(?:href|src)="([^":]+)"', response.text)
    assert sorted(parts) == ["page.css", "page.js"]
    for part in parts:
        assert client.get(f"/{part}").status_code == 200
    for answer in (response, client.get("/v1/models/slow"), client.get("/no")):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8501"}, 200),
        ({"Host": "[::1]:8501"}, 200),
        ({"Host": "attacker.example"}, 403),
        ({"Host": "127.0.0.1.attacker.example"}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:2"}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:1"}, 200),
    ],
)
def test_other_names_and_pages_of_other_sites_are_refused(
    server, headers, status
):
    seeds = {"signature_name": "sample_prior", "inputs": [1]}
    for method, path, body in (
        ("POST", "/v1/models/tiny:predict", json.dumps(seeds)),
        ("GET", "/v1/models/tiny", None),
        ("GET", "/page.js", None),
    ):
        response = requests.request(
            method,
            server.address + path,
            data=body,
            headers=headers,
            timeout=30,
        )
        assert response.status_code == status, response.text


def test_warm_up_requests_of_an_export_are_answered_first(exports):
    _, path = exports("deconvolutional")
    model = _saved_model.SavedModel(path.parent, None)
    ran = []
    run = model.run

    def noted(signature, inputs):
        ran.append(signature)
        return run(signature, inputs)

    model.run = noted
    names = set(model.signatures) - {"serving_default"}
    assert model.warm_up() == len(names)
    assert len(ran) == len(names)


def test_a_version_may_have_leading_zeros(saved_model, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(saved_model / "2", folder / "00000123")
    for name in ("²", "٣", "latest", "-1"):
        (folder / name).mkdir()
    assert list(_saved_model.version_folders(folder)) == [123]
    for version in (None, 123):
        assert _saved_model.SavedModel(folder, version).version == 123


def test_help_comes_without_tensorflow(capsys):
    program = (
        "import sys\n"
        "from vhe_tf.experiments import serve\n"
        "try:\n"
        "    serve.main(['vhe-tf serve', '--help'])\n"
        "finally:\n"
        "    assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for words in ("Use TensorFlow Serving in production", "--max_request_mib"):
        assert words in ran.stdout


def test_a_mistaken_model_ends_before_anything_is_imported(tmp_path):
    program = (
        "import sys\n"
        "from vhe_tf.experiments import serve\n"
        "try:\n"
        "    serve.main(['vhe-tf serve', sys.argv[1]])\n"
        "finally:\n"
        "    assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "none")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: MODEL must be")


@pytest.mark.integration
def test_the_command_serves_until_it_is_interrupted(saved_model):
    program = (
        "import signal, sys\n"
        "from vhe_tf.experiments import serve\n"
        # Ignored in what a shell runs in the background.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "serve.main(['vhe-tf serve', '--port=0', sys.argv[1]])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, saved_model],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Press Ctrl-C"):
                break
        said = "".join(lines)
        assert "Use TensorFlow Serving in production." in said
        url = re.search(r"Serving tiny, version 10, at (\S+)", said)[1]
        assert url.startswith("http://127.0.0.1:")
        assert requests.get(url, timeout=30).ok
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert re.search(r"GET /v1/models/tiny 200 \d+ ms\n", out)
        assert out.endswith("Stopped.\n")
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
