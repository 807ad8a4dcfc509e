"""The development server answers as TensorFlow Serving does.

`contract.jsonl` has one JSON object per line: a request (`case`, `method`,
`path`, `headers`, and `body` or `body_base64`) and the answer of TensorFlow
Serving's own server core, on TensorFlow 2.21, with versions 1 and 2 of `Toy`.
"""

import base64
import gzip
import json
import math
import pathlib
import re

import pytest
import tensorflow as tf
from werkzeug.test import Client

from vhe_tf.serving import _application
from vhe_tf.serving import _saved_model

RECORDED = pathlib.Path(__file__).with_name("contract.jsonl")

# Differences that are wanted, by a pattern of the development server's error.
STRICTER = {
    r"expected shape": "a shape must match the signature",
    r"of 'inputs'. Missing: none": "names of inputs may be misspelt",
    r"Extra data": "text after the document is a mistake",
    r"can't decode": "a request must be UTF-8",
    r"Expecting value: .*": "`Inf` is not a number of JSON",
}

# The same by the name of a recorded request.
OTHERWISE = {
    "path GET /": "the page to draw on",
    "path GET /v1/models/toy": "one version is served",
    "path GET /v1/models/toy/labels/none": "there are no labels",
    "words rows": "text that is not UTF-8 is replaced, not sent as it is",
    "b64 bytes back": "text that is not UTF-8 is replaced, not sent as it is",
    "1e999": "infinite, as other too large numbers",
    "subnormal": "not flushed to zero",
}


def _spec(name, *shape, dtype=tf.float32):
    return tf.TensorSpec([None, *shape], dtype, name=name)


_SEED = _spec("seed", dtype=tf.int64)


class Toy(tf.Module):
    """The model of the recorded answers: one signature per kind of tensor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[_spec("x", 2), _SEED])
    def scale(self, x, seed):
        check = tf.debugging.Assert(
            tf.reduce_all(tf.abs(x) <= 1000.0), ["x must be at most 1000"]
        )
        with tf.control_dependencies([check]):
            return {"y": self.factor * x, "twice": 2 * seed}

    @tf.function(input_signature=[_SEED])
    def one(self, seed):
        return {"double": tf.cast(seed, tf.float32) * self.factor}

    @tf.function(input_signature=[_spec("support", None, 3), _spec("query", 3)])
    def compare(self, support, query):
        distance = tf.reduce_sum((support - query[:, None]) ** 2, -1)
        label = tf.argmin(distance, -1, output_type=tf.int32)
        return {"label": label, "distance": distance}

    @tf.function(
        input_signature=[
            _spec("text", dtype=tf.string),
            _spec("flag", dtype=tf.bool),
        ]
    )
    def words(self, text, flag):
        return {
            "length": tf.strings.length(text),
            "text": text,
            "negated": tf.logical_not(flag),
        }

    @tf.function(input_signature=[_spec("x")])
    def divide(self, x):
        return {"inverse": 1.0 / x, "x": x}


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """Clients of the toy model's versions 1 and 2."""
    folder = tmp_path_factory.mktemp("contract") / "toy"
    clients = {}
    for version, factor in ((1, 2.0), (2, 3.0)):
        toy = Toy(factor)
        tf.saved_model.save(
            toy,
            str(folder / str(version)),
            signatures={
                "serving_default": toy.scale,
                "one": toy.one,
                "compare": toy.compare,
                "words": toy.words,
                "divide": toy.divide,
            },
        )
        clients[version] = Client(
            _application.Application(
                _saved_model.SavedModel(folder, version),
                max_request_mib=4.0,
                log=lambda line: None,
            )
        )
    return clients


def _same(ours, theirs):
    """Returns whether two answers are equal to the digits of a float32."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(
            _same(ours[key], theirs[key]) for key in ours
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        both_nan = math.isnan(ours) and math.isnan(theirs)
        return both_nan or math.isclose(ours, theirs, rel_tol=1e-6)
    return type(ours) is type(theirs) and ours == theirs


def test_recorded_answers_of_tensorflow_serving(clients):
    differences, wanted = [], set()
    for line in RECORDED.read_text().splitlines():
        request = json.loads(line)
        body = (
            base64.b64decode(request["body_base64"])
            if "body_base64" in request
            else request["body"].encode("utf-8", "surrogatepass")
        )
        client = clients[1 if "/versions/1" in request["path"] else 2]
        response = client.open(
            request["path"],
            method=request["method"],
            data=body,
            headers=request.get("headers") or {},
        )
        theirs = request["answer"]
        ours = response.get_json(silent=True)
        if response.status_code == theirs["status"] and (
            response.status_code != 200
            or ("json" in theirs and _same(ours, theirs["json"]))
        ):
            continue
        error = (ours or {}).get("error", "")
        reason = OTHERWISE.get(request["case"]) or next(
            (
                pattern
                for pattern in STRICTER
                if response.status_code == 400
                and theirs["status"] == 200
                and re.search(pattern, error)
            ),
            None,
        )
        if reason is None:
            differences.append((request, response.status_code, error))
        wanted.add(reason)
    assert not differences
    assert wanted == {*STRICTER, *OTHERWISE.values()}  # none is out of date


def _predict(signature, inputs):
    return json.dumps({"signature_name": signature, "inputs": inputs}).encode()


# Requests with the statuses and answers that TensorFlow Serving gives.
CASES = {
    "columns": (
        b'{"inputs": {"x": [[1, 2]], "seed": [3]}}',
        {"outputs": {"y": [[3.0, 6.0]], "twice": [6]}},
    ),
    "rows": (
        b'{"instances": [{"x": [1, 2], "seed": 3}]}',
        {"predictions": [{"y": [3.0, 6.0], "twice": 6}]},
    ),
    "alone": (_predict("one", [1, 2]), {"outputs": [3.0, 6.0]}),
    "not a number": (
        b'{"signature_name": "divide", "inputs": {"x": [NaN, 0, -Infinity]}}',
        {
            "outputs": {
                "x": [math.nan, 0.0, -math.inf],
                "inverse": [math.nan, math.inf, -0.0],
            }
        },
    ),
    "too large a float": (
        _predict("divide", {"x": [1e39, 2**24 + 1]}),
        {"outputs": {"x": [math.inf, 2.0**24], "inverse": [0.0, 2.0**-24]}},
    ),
    "the first of equal signatures": (
        b'{"signature_name":"one","signature_name":"two","inputs":[1]}',
        {"outputs": [3.0]},
    ),
    "the first of equal inputs": (
        b'{"signature_name":"one","inputs":{"seed":[1],"seed":[2]}}',
        {"outputs": [3.0]},
    ),
    "the first of equal names in a row": (
        b'{"signature_name":"one","instances":[{"seed":1,"seed":2}]}',
        {"predictions": [3.0]},
    ),
    "a byte order mark": (
        b"\xef\xbb\xbf" + _predict("one", [1]),
        {"outputs": [3.0]},
    ),
    "an assertion": (b'{"inputs": {"x": [[9999, 0]], "seed": [1]}}', None),
    "a float seed": (_predict("one", [1.0]), None),
    "a Boolean seed": (_predict("one", [True]), None),
    "a seed beyond int64": (_predict("one", [2**63]), None),
    "rows of two sizes": (
        b'{"inputs": {"x": [[1, 2], [3]], "seed": [1]}}',
        None,
    ),
    "UTF-16": (_predict("one", [1]).decode().encode("utf-16"), None),
    "half of a surrogate pair": (
        b'{"signature_name":"one","inputs":[1],"x":"\\ud800"}',
        None,
    ),
    "a whole surrogate pair": (
        b'{"signature_name":"one","inputs":[1],"x":"\\ud83d\\ude00"}',
        {"outputs": [3.0]},
    ),
    "no object": (b"[1]", None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("name", CASES)
def test_requests_as_tensorflow_serving_answers_them(clients, name):
    body, expected = CASES[name]
    response = clients[2].post("/v1/models/toy:predict", data=body)
    if expected is None:
        assert response.status_code == 400
        assert response.get_json()["error"]
    else:
        assert response.status_code == 200, response.text
        assert _same(response.get_json(), expected), response.text


def test_bodies_may_be_compressed(clients):
    post = clients[2].post
    path, headers = "/v1/models/toy:predict", {"Content-Encoding": "gzip"}
    body = gzip.compress(_predict("one", [1, -2]))
    response = post(path, data=body, headers=headers)
    assert response.get_json() == {"outputs": [3.0, -6.0]}
    bomb = gzip.compress(b" " * 2**23)
    assert post(path, data=bomb, headers=headers).status_code == 413
    assert post(path, data=b"{}", headers=headers).status_code == 400


def test_a_query_is_part_of_the_name(clients):
    assert clients[2].get("/v1/models/toy?x=1").status_code == 404
