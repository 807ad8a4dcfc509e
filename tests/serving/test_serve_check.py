import numpy as np
import pytest

from tools import serve_check
from vhe_tf.serving import Client
from vhe_tf.serving import LocalServer


@pytest.fixture(scope="module")
def served(exports):
    _, path = exports("deconvolutional")
    with LocalServer(path.parent, port=0, log=lambda line: None) as server:
        yield server.address, path.parent.name


def test_a_served_model_keeps_the_contract(served):
    address, model = served
    with Client(address, model=model) as client:
        assert serve_check.check_contract(client) == []


def test_a_server_that_breaks_the_contract_is_told(served, monkeypatch):
    address, model = served
    generator = np.random.default_rng(0)
    with Client(address, model=model) as client:
        sample = client.sample

        def spoilt(support, *, seed):
            images = sample(np.minimum(support, 1.0), seed=seed)
            return images + generator.random(images.shape)

        monkeypatch.setattr(client, "sample", spoilt)
        assert serve_check.check_contract(client) == [
            "A sample does not depend on the other rows of its batch.",
            "A row with invalid pixels is named.",
        ]


def test_clients_are_all_answered(served):
    address, model = served
    latencies, num_failed = serve_check.load(
        lambda: Client(address, model=model), num_clients=3, seconds=0.3
    )
    assert len(latencies) >= 3
    assert min(latencies) > 0.0
    assert num_failed == 0
