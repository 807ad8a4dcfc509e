import concurrent.futures
import json
import subprocess
import sys
import threading
import time
import typing

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc
from werkzeug import serving
from werkzeug import wrappers

import vhe_tf.serving
from tests.conftest import assert_equal_to_rounding
from tests.serving.conftest import example_inputs
from vhe_tf.serving import Client
from vhe_tf.serving import ServingError
from vhe_tf.serving.local import LocalServer

PARAMETERS = ("mean", "stddev")


class _Servicer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Answers as TensorFlow Serving does over gRPC, for one model."""

    def __init__(self, folder, call):
        saved_model = tf.compat.v1.saved_model
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            self._meta_graph = saved_model.load(session, ["serve"], str(folder))
        self._call = call
        self._may_answer = threading.Event()

    def _check(self, spec, context):
        if spec.name == "slow":
            self._may_answer.wait(timeout=30)
        if spec.name != "tiny" or spec.version.value not in (0, 10):
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")

    def Predict(self, request, context):  # noqa: N802
        self._check(request.model_spec, context)
        inputs = {n: tf.make_ndarray(p) for n, p in request.inputs.items()}
        try:
            outputs = self._call(request.model_spec.signature_name, **inputs)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        self._check(request.model_spec, context)
        assert list(request.metadata_field) == ["signature_def"]
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = "tiny"
        response.model_spec.version.value = 10
        signatures = get_model_metadata_pb2.SignatureDefMap(
            signature_def=self._meta_graph.signature_def
        )
        response.metadata["signature_def"].Pack(signatures)
        return response

    def GetModelStatus(self, request, context):  # noqa: N802
        self._check(request.model_spec, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        version = response.model_version_status.add()
        version.version = 10
        version.state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        version.status.error_message = ""
        return response


@pytest.fixture(scope="session")
def grpc_address(saved_model, signatures):
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(2),
        options=[("grpc.max_receive_message_length", -1)],
    )
    servicer = _Servicer(saved_model / "10", signatures)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    servicer._may_answer.set()
    server.stop(grace=None).wait()


@pytest.fixture(params=["rest", "grpc"])
def address(request):
    if request.param == "grpc":
        return request.getfixturevalue("grpc_address")
    return request.getfixturevalue("server").address


@pytest.fixture
def client(address):
    with Client(address, model="tiny") as connected:
        yield connected


def _assert_same(outputs, expected):
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        assert outputs[name].dtype == value.dtype
        assert outputs[name].shape == value.shape
        np.testing.assert_array_equal(outputs[name], value)


# What is answered -------------------------------------------------------------


def test_classify(client, signatures, inputs):
    answer = client.classify(
        inputs["support"], inputs["query"], seed=inputs["seed"]
    )
    _assert_same(answer._asdict(), signatures("classify", **inputs))


def test_predict_calls_any_signature(client, signatures, inputs):
    for name in ("classify", "serving_default"):
        _assert_same(client.predict(name, inputs), signatures(name, **inputs))


def test_sample(client, signatures, inputs):
    support = inputs["support"][:, 0]
    expected = signatures("sample", support=support, seed=inputs["seed"])
    _assert_same(
        {"images": client.sample(support, seed=inputs["seed"])}, expected
    )


def test_sample_prior(client, signatures, inputs):
    expected = signatures("sample_prior", seed=inputs["seed"])
    _assert_same({"images": client.sample_prior(seed=inputs["seed"])}, expected)


def test_log_likelihood(client, signatures, inputs):
    given = {**inputs, "support": inputs["support"][:, 0]}
    expected = signatures("log_likelihood", **given)
    answer = client.log_likelihood(
        given["support"], given["query"], seed=given["seed"]
    )
    _assert_same({"log_likelihood": answer}, expected)


def test_novelty(client, signatures, inputs):
    scores = signatures("classify", **inputs)["log_likelihood"]
    answer = signatures("novelty", **inputs, log_likelihood=scores)
    expected = {"novelty": answer["novelty"]}
    support, query, seed = (inputs[n] for n in ("support", "query", "seed"))
    given = client.novelty(support, query, log_likelihood=scores, seed=seed)
    _assert_same({"novelty": given}, expected)
    _assert_same(
        {"novelty": client.novelty(support, query, seed=seed)}, expected
    )


def test_encode(client, signatures, inputs):
    support = inputs["support"][:, 0]
    _assert_same(client.encode(support), signatures("encode", support=support))


def test_what_encode_returned_stands_for_the_support(client, inputs):
    support, query, seed = (inputs[n] for n in ("support", "query", "seed"))
    encoded = client.encode(support)
    assert encoded["mean"].shape == (3, 4, 2, 2, 1)
    direct = client.classify(support, query, seed=seed)
    answer = client.classify(encoded, query, seed=seed)
    _assert_same(answer._asdict(), direct._asdict())
    one_class = client.encode(support[:, 0])
    assert one_class["mean"].shape == (3, 2, 2, 1)
    np.testing.assert_array_equal(
        client.sample(one_class, seed=seed),
        client.sample(support[:, 0], seed=seed),
    )


def test_supports_are_padded_to_one_number_of_images(server, monkeypatch):
    sent = {}

    def predict(signature, inputs, **kwargs):
        sent.update(inputs)
        return {"images": np.zeros([2, 2, 2, 1])}

    with Client(server.address, model="tiny", num_shots=3) as client:
        client.sample(np.ones([2, 4, 2, 2, 1]))
        monkeypatch.setattr(client._transport, "predict", predict)
        images = np.full([2, 2, 2, 2, 1], 51, np.uint8)
        client.sample(images, seed=7)
    np.testing.assert_allclose(sent["support"][:, :2], 0.2)
    np.testing.assert_array_equal(
        sent["support"][:, 2:], -np.ones([2, 1, 2, 2, 1])
    )
    assert sent["seed"].shape == (2,)


def test_supports_may_be_named(client, inputs):
    named = {"support": inputs["support"]}
    _assert_same(
        client.classify(named, inputs["query"])._asdict(),
        client.classify(inputs["support"], inputs["query"])._asdict(),
    )


def test_one_row_stands_for_as_many_as_the_others_have(client, inputs):
    support, query = inputs["support"][:1], inputs["query"]
    _assert_same(
        client.classify(support, query, seed=[5])._asdict(),
        client.classify(
            np.repeat(support, 3, axis=0), query, seed=[5, 5, 5]
        )._asdict(),
    )
    images = client.sample(support[:, 0], seed=range(16))
    assert images.shape == (16, 2, 2, 1)
    assert len(np.unique(images[:, 0, 0, 0])) == 16


def test_an_int_stands_for_the_seeds_that_follow_it(client, inputs):
    support, query = inputs["support"], inputs["query"]
    _assert_same(
        client.classify(support, query, seed=7)._asdict(),
        client.classify(support, query, seed=[7, 8, 9])._asdict(),
    )
    np.testing.assert_array_equal(
        client.sample_prior(seed=7), client.sample_prior(seed=[7])
    )


def test_seeds_keep_all_their_bits(client):
    seeds = np.array([2**63 - 1, -(2**63), 2**53 + 1])
    total = client.predict("total", {"seed": seeds})["total"]
    assert total.dtype == np.int64
    assert total == 2**53


def test_other_kinds_of_numbers_are_cast(client, inputs):
    support = np.round(inputs["support"])
    expected = client.classify(support, inputs["query"])
    for dtype in (np.float64, np.uint8, np.bool_):
        answer = client.classify(support.astype(dtype), inputs["query"])
        _assert_same(answer._asdict(), expected._asdict())


def test_lists_are_arrays(client):
    ink = [[[1.0], [1.0]], [[0.0], [0.0]]]
    answer = client.classify([[[ink]]], [ink])
    assert answer.label.tolist() == [0]


def test_no_rows(client, grpc_address):
    images = client.sample_prior(seed=[])
    assert images.shape == (0, 2, 2, 1)
    assert images.dtype == np.float32
    support = np.zeros((0, 1, 2, 2, 1), np.float32)
    if client.address == grpc_address:
        assert client.encode(support)["mean"].shape == (0, 2, 2, 1)
    else:
        with pytest.raises(ValueError, match=r"support of shape \(0, 1, 2,"):
            client.encode(support)


def test_more_than_the_four_mebibytes_of_grpc(grpc_address):
    with Client(grpc_address, model="tiny") as client:
        support = np.ones((300_000, 1, 2, 2, 1), np.float32)
        assert client.encode(support)["mean"].nbytes > 2**22


def test_status_and_metadata_are_those_of_rest(grpc_address, server):
    with (
        Client(server.address, model="tiny", version=10) as rest,
        Client(grpc_address, model="tiny", version=10) as over_grpc,
    ):
        assert rest.status()["model_version_status"][0]["state"] == "AVAILABLE"
        assert over_grpc.status() == rest.status()
        assert over_grpc.metadata() == rest.metadata()


def test_concurrent_clients_get_each_their_own(server, inputs):
    num_threads, num_requests = 8, 20

    def ask(thread):
        with Client(server.address, model="tiny") as client:
            return [
                client.sample_prior(seed=[1000 * thread + index])
                for index in range(num_requests)
            ]

    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        images = list(pool.map(ask, range(num_threads)))
    seeds = 1000 * np.arange(num_threads)[:, np.newaxis] + np.arange(20)
    np.testing.assert_allclose(
        np.array(images)[:, :, 0, 0, 0, 0], seeds / 100.0 + 0.25, rtol=1e-6
    )


# Several group latents --------------------------------------------------------


@pytest.fixture(
    scope="module",
    params=[
        "stand_in",
        pytest.param("hierarchical", marks=pytest.mark.slow),
        pytest.param("factorial", marks=pytest.mark.slow),
    ],
)
def several(request):
    """A client of an export, its signatures, and the latents' names."""
    if request.param == "stand_in":
        path = request.getfixturevalue("saved_factorial_model") / "1"
        names = ["character", "style"]
    else:
        model, path = request.getfixturevalue("exports")(request.param)
        names = [v.name for v in model.latents if not v.per_element]
    loaded = tf.saved_model.load(str(path))
    with (
        LocalServer(path.parent, port=0, log=lambda line: None) as local_server,
        Client(local_server.address, model=request.param) as client,
    ):
        yield client, loaded.signatures, names


def _assert_near(outputs, expected):
    expected = {k: v for k, v in expected.items() if k != "status"}
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        assert_equal_to_rounding(outputs[name], value)


def test_one_of_several_latents_is_asked_about_by_name(several):
    client, signatures, names = several
    for latent in names:
        signature = signatures[f"classify_{latent}"]
        inputs = example_inputs(signature, rows=2)
        answer = client.classify(
            inputs["support"],
            inputs["query"],
            latent=latent,
            seed=inputs["seed"],
        )
        _assert_near(answer._asdict(), signature(**_constants(inputs)))
        support, seed = inputs["support"][:, 0], inputs["seed"]
        images = client.sample(support, latent=latent, seed=seed)
        expected = signatures[f"sample_{latent}"](
            **_constants({"support": support, "seed": seed})
        )
        _assert_near({"images": images}, expected)
        encoded = client.encode(inputs["support"], latent=latent)
        assert encoded["mean"].shape[:2] == (2, 2)
        expected = signatures[f"encode_{latent}"](
            **_constants({"support": support})
        )
        _assert_near({k: v[:, 0] for k, v in encoded.items()}, expected)


def _constants(inputs):
    return {name: tf.constant(value) for name, value in inputs.items()}


def test_the_last_of_several_latents_tells_the_classes(several):
    client, signatures, names = several
    inputs = example_inputs(signatures["classify"], rows=2)
    support, query, seed = (inputs[n] for n in ("support", "query", "seed"))
    _assert_same(
        client.classify(support, query, seed=seed)._asdict(),
        client.classify(support, query, latent=names[-1], seed=seed)._asdict(),
    )


@pytest.mark.parametrize("kind", [str, str.encode])
def test_rows_that_the_model_could_not_answer_are_named(
    saved_model, monkeypatch, kind
):
    status = ["", "`query` must hold pixels."]
    images = np.zeros((2, 2, 2, 1), np.float32)

    def predict(signature, inputs, *, outputs):
        texts = np.array([kind(text) for text in status], object)
        return {"images": images, "status": texts}

    with (
        LocalServer(saved_model, port=0, log=lambda line: None) as local_server,
        Client(local_server.address, model="tiny") as client,
    ):
        monkeypatch.setattr(client._transport, "predict", predict)
        with pytest.raises(
            ServingError, match=r"400: .*row 1: `query` must hold pixels"
        ):
            client.sample_prior(seed=[1, 2])
        status[1] = ""
        np.testing.assert_array_equal(client.sample_prior(seed=[1, 2]), images)


def test_several_latents_are_asked_about_at_once(several):
    client, signatures, names = several
    inputs = example_inputs(signatures["log_likelihood"], rows=2)
    query, seed = inputs["query"], inputs["seed"]
    support = {name: inputs[f"support_{name}"] for name in names}
    result = client.log_likelihood(support, query, seed=seed)
    expected = signatures["log_likelihood"](**_constants(inputs))
    _assert_near({"log_likelihood": result}, expected)
    del inputs["query"]
    expected = signatures["sample"](**_constants(inputs))
    encoded = client.encode(support)
    assert set(encoded) == {f"{n}_{p}" for n in names for p in PARAMETERS}
    by_input = {f"support_{name}": value for name, value in support.items()}
    for given in (support, by_input):
        images = client.sample(given, seed=seed)
        np.testing.assert_array_equal(images, expected["images"])
        _assert_same(client.encode(given), encoded)
    images = client.sample(encoded, seed=seed)
    expected = signatures["sample_encoded"](
        **_constants({**encoded, "seed": seed})
    )
    np.testing.assert_array_equal(images, expected["images"])


def test_what_several_latents_need_is_told(several):
    client, signatures, names = several
    inputs = example_inputs(signatures["classify"], rows=2)
    support, query = inputs["support"], inputs["query"]
    one, last = support[:, 0], names[-1]
    both = ", ".join(f"'support_{name}'" for name in names)
    for ask, message in [
        (lambda: client.sample(one), rf"{both}\] of 'sample'"),
        (lambda: client.encode(one), rf"{both}\] of 'encode'"),
        (
            lambda: client.sample({last: one}),
            rf"{both}\] of 'sample'.*Received: \['seed', 'support_{last}'\]",
        ),
        (
            lambda: client.classify({last: support}, query),
            rf"'support'\] of 'classify'.*Received: .*'{last}'",
        ),
        (
            lambda: client.sample(one, latent="colour"),
            f"'sample_{last}'.*signature='sample_colour'",
        ),
        (
            lambda: client.sample(client.encode(one, latent=last), latent=last),
            f"signature='sample_{last}_encoded'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            ask()


# What is rejected -------------------------------------------------------------


def test_what_the_server_refuses_is_told_in_its_words(client, inputs):
    for query in (inputs["query"] + 1.0, inputs["query"] * np.nan):
        with pytest.raises(ServingError, match=r"`query` must be in \[0, 1\]"):
            client.classify(inputs["support"], query)
    with pytest.raises(ServingError) as raised:
        client.classify(inputs["support"], inputs["query"] + 1.0)
    assert raised.value.status == 400
    assert str(raised.value) == f"400: {raised.value.message}"
    client.classify(inputs["support"], inputs["query"])


@pytest.mark.parametrize(
    "spec", [{"model": "other"}, {"model": "tiny", "version": 3}]
)
def test_a_model_that_is_not_there(address, spec):
    with Client(address, **spec) as client:
        for ask in (client.status, client.metadata, client.sample_prior):
            with pytest.raises(ServingError) as raised:
                ask()
            assert raised.value.status == 404


@pytest.mark.parametrize(
    ("signature", "change", "message"),
    [
        ("clasify", {}, "signature='clasify'"),
        ("classify", {"sead": 1}, r"Received: \['query', 'sead', 'seed'"),
        ("classify", {"seed": [0.5] * 3}, "`seed` to hold DT_INT64.*float64"),
        (
            "classify",
            {"seed": np.array([1, 2, 2**63], np.uint64)},
            "from 1 to 9223372036854775808",
        ),
        ("classify", {"query": ["a"] * 3}, "`query` to hold DT_FLOAT.*<U1"),
        ("classify", {"query": [[1], [1, 2]]}, "`query` must .*Received: "),
    ],
)
def test_what_the_signature_does_not_have(
    client, inputs, signature, change, message
):
    with pytest.raises(ValueError, match=message):
        client.predict(signature, inputs | change)


def test_strings_are_not_carried(client):
    columns = {"text": ["a"], "flag": [True], "byte": [255], "wide": [1.0]}
    with pytest.raises(
        ValueError, match=r"`byte` to hold DT_UINT8.*256 to 256"
    ):
        client.predict("every_dtype", columns | {"byte": [256]})
    with pytest.raises(ValueError, match="`text` to hold DT_STRING"):
        client.predict("every_dtype", columns)


def test_rows_must_agree(client, inputs):
    with pytest.raises(ValueError, match="'support': 3, 'query': 2, 'seed': 1"):
        client.classify(inputs["support"], inputs["query"][:2], seed=[1])


@pytest.mark.parametrize(
    "support",
    [
        np.zeros((5, 2, 2, 1)),
        {
            "support_a": np.zeros((1, 5, 2, 2, 1)),
            "support_b": np.zeros((5, 2, 2, 1)),
        },
    ],
)
def test_encode_needs_leading_axes(client, support):
    with pytest.raises(ValueError, match=r"Received: .*\(5, 2, 2, 1\)"):
        client.encode(support)


@pytest.mark.parametrize("wrong", ["127.0.0.1:8501", "ftp://a", "http://", ""])
def test_addresses_have_a_known_scheme(wrong):
    with pytest.raises(ValueError, match=f"address='{wrong}'"):
        Client(wrong, model="tiny")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_server_tells_what_to_start(scheme):
    # Port 9 is that of the discard service, which nobody runs.
    with (
        Client(f"{scheme}://127.0.0.1:9", model="tiny") as client,
        pytest.raises(ServingError, match="Start TensorFlow Serv") as raised,
    ):
        client.status()
    assert "vhe-tf serve saved_models" in raised.value.message
    assert raised.value.status is None


@pytest.fixture
def odd_server():
    """Serves what no model server does; `body` or `respond` decides."""

    class Odd:
        body = b""
        may_answer = threading.Event()
        requests: typing.ClassVar = []

        @staticmethod
        def respond(request):
            return wrappers.Response(Odd.body)

    @wrappers.Request.application
    def application(request):
        Odd.requests.append(request)
        Odd.may_answer.wait(timeout=30)
        return Odd.respond(request)

    class Handler(serving.WSGIRequestHandler):
        def log(self, *arguments):
            pass

    server = serving.make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=Handler
    )
    Odd.address = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Odd
    Odd.may_answer.set()
    server.shutdown()
    thread.join()


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1]", b"{}"])
def test_a_server_of_something_else(odd_server, body):
    odd_server.body = body
    odd_server.may_answer.set()
    with (
        Client(odd_server.address, model="tiny") as client,
        pytest.raises(ServingError, match="does not answer as"),
    ):
        client.status()


def test_a_late_answer_is_not_waited_for(odd_server, grpc_address):
    for address in (odd_server.address, grpc_address):
        with Client(address, model="slow", timeout=0.2) as client:
            with pytest.raises(ServingError, match=r"within 0.2 s") as raised:
                client.status()
            assert raised.value.status is None


def test_a_dripping_answer_is_not_waited_for(odd_server):
    odd_server.may_answer.set()
    ended = threading.Event()

    def drip():
        while not ended.wait(0.05):
            yield b" "

    odd_server.respond = lambda request: wrappers.Response(drip())
    start = time.monotonic()
    try:
        with (
            Client(odd_server.address, model="tiny", timeout=0.5) as client,
            pytest.raises(ServingError, match=r"within 0.5 s"),
        ):
            client.status()
        assert time.monotonic() - start < 10.0  # the server would continue
    finally:
        ended.set()


_STATUS = json.dumps({"model_version_status": []})


def test_a_busy_server_is_asked_again(odd_server):
    odd_server.may_answer.set()

    def respond(request):
        if len(odd_server.requests) == 1:
            return wrappers.Response(status=503, headers={"Retry-After": "0"})
        return wrappers.Response(_STATUS)

    odd_server.respond = respond
    with Client(odd_server.address, model="tiny") as client:
        assert client.status() == json.loads(_STATUS)
    assert len(odd_server.requests) == 2


def test_an_answer_elsewhere_is_not_followed(odd_server, server):
    odd_server.may_answer.set()
    elsewhere = f"{server.address}/v1/models/tiny"
    odd_server.respond = lambda request: wrappers.Response(
        status=302, headers={"Location": elsewhere}
    )
    with (
        Client(odd_server.address, model="tiny") as client,
        pytest.raises(ServingError, match="302"),
    ):
        client.status()


def test_credentials_are_those_of_the_callers_session(
    odd_server, monkeypatch, tmp_path
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    odd_server.may_answer.set()
    odd_server.body = _STATUS.encode()
    with Client(odd_server.address, model="tiny") as client:
        client.status()
    session = requests.Session()
    session.headers["Authorization"] = "Bearer token"
    session.trust_env = False
    with Client(odd_server.address, model="tiny", session=session) as client:
        client.status()
    with Client(odd_server.address, model="tiny", session=session) as client:
        client.status()  # it was left open
    sent = [r.headers.get("Authorization") for r in odd_server.requests]
    assert sent == [None, "Bearer token", "Bearer token"]


def test_a_label_is_a_version(odd_server):
    odd_server.may_answer.set()
    odd_server.body = _STATUS.encode()
    for version in ("stable/1", 3, None):
        with Client(odd_server.address, model="a", version=version) as client:
            client.status()
    assert [
        request.environ["REQUEST_URI"] for request in odd_server.requests
    ] == [
        "/v1/models/a/labels/stable%2F1",
        "/v1/models/a/versions/3",
        "/v1/models/a",
    ]


def test_a_channel_of_the_caller_is_used_and_left_open(grpc_address):
    with grpc.insecure_channel(grpc_address.removeprefix("grpc://")) as channel:
        for _ in range(2):
            with Client(
                "grpc://127.0.0.1:9", model="tiny", channel=channel
            ) as client:
                assert client.status()["model_version_status"]


def test_large_requests_are_compressed(server):
    with Client(server.address, model="tiny") as client:
        images = client.sample_prior(seed=np.full(30_000, 75))
    assert images.shape == (30_000, 2, 2, 1)
    assert (images == 1.0).all()


@pytest.mark.parametrize(
    "outputs",
    [None, [[[[None]]]], [["a"]], [[1.0], [2.0, 3.0]], [1.0], 3, True],
)
def test_answers_that_do_not_match_the_signature(odd_server, server, outputs):
    odd_server.may_answer.set()
    path = f"{server.address}/v1/models/tiny/metadata"
    metadata = requests.get(path, timeout=30).content
    odd_server.respond = lambda request: wrappers.Response(
        metadata
        if request.path.endswith("metadata")
        else json.dumps({"outputs": outputs})
    )
    with (
        Client(odd_server.address, model="tiny") as client,
        pytest.raises(ServingError, match="output 'images'"),
    ):
        client.sample_prior(seed=[1])


@pytest.mark.parametrize(
    "convert",
    [
        lambda images: (255 * images).astype(np.uint8),
        lambda images: tf.cast(images, tf.bfloat16).numpy(),
        lambda images: images.astype(np.float16),
        lambda images: images.astype(bool),
    ],
)
def test_images_of_other_dtypes_are_the_same_images(client, inputs, convert):
    binary = {
        name: np.round(value) if name != "seed" else value
        for name, value in inputs.items()
    }
    expected = client.predict("classify", binary)
    converted = {
        name: convert(value) if name != "seed" else value
        for name, value in binary.items()
    }
    _assert_same(client.predict("classify", converted), expected)


# What is imported -------------------------------------------------------------


def _run(program, *arguments):
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return json.loads(ran.stdout)


def test_rest_needs_neither_tensorflow_nor_keras(server):
    images, loaded = _run(
        "import json, sys\n"
        "from vhe_tf.serving import Client\n"
        "with Client(sys.argv[1], model='tiny') as client:\n"
        "    images = client.sample_prior(seed=[75])\n"
        "print(json.dumps([images.tolist(), list(sys.modules)]))\n",
        server.address,
    )
    assert images == [[[[1.0], [1.0]], [[1.0], [1.0]]]]
    heavy = {"grpc", "keras", "tensorflow", "tensorflow_probability"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("missing", ["grpc", "tensorflow_serving.apis"])
def test_grpc_without_its_extra_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'vhe_tf\[serving\]'"):
        Client("grpc://127.0.0.1:8500", model="tiny")


def test_public_names_of_serving():
    assert dir(vhe_tf.serving) == sorted(vhe_tf.serving.__all__)
    for name in vhe_tf.serving.__all__:
        assert getattr(vhe_tf.serving, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = vhe_tf.serving.Server
