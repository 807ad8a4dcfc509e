"""Checks a served model, then measures it under load.

    python tools/serve_check.py --model=omniglot_pixel_cnn_small
    python tools/serve_check.py --model=NAME --address=grpc://127.0.0.1:8500

The server is TensorFlow Serving or `vhe-tf serve`, with an export of a model
with one group latent. The checks are those that clients rely on: equal seeds
give equal images, rows do not depend on each other, invalid rows are named, and
batches of too many rows are rejected. Then 1, 4, 16 and 64 clients ask for one
image per request, each as fast as it is answered.
"""

import concurrent.futures
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
from absl import app
from absl import flags

from vhe_tf.serving import Client
from vhe_tf.serving import ServingError

_MODEL = flags.DEFINE_string("model", None, "Name of the model on the server.")
_ADDRESS = flags.DEFINE_string(
    "address",
    "http://127.0.0.1:8501",
    "Address of the server: http:// or https:// for REST, grpc:// for gRPC.",
)
_CLIENTS = flags.DEFINE_list(
    "clients", ["1", "4", "16", "64"], "Numbers of clients, one stage for each."
)
_SECONDS = flags.DEFINE_float(
    "seconds", 10.0, "Seconds per stage.", lower_bound=0.1
)


def check_contract(client: Client) -> list[str]:
    """Returns what is wrong with the answers of a served model.

    Args:
        client: `Client`. Connection to a model with one group latent.
    """
    images = client.sample_prior(seed=[1, 2, 1])
    supports = np.round(images[:2, np.newaxis])
    faults = []

    def check(is_right: bool, rule: str) -> None:
        if not is_right:
            faults.append(rule)

    def rejected(call: Callable[[], object], word: str) -> bool:
        try:
            call()
        except ServingError as error:
            return error.status == 400 and word in error.message
        return False

    check(
        np.array_equal(images[0], images[2]),
        "Equal seeds give equal images.",
    )
    both = client.sample(supports, seed=[3, 4])
    alone = client.sample(supports[1:], seed=[4])
    check(
        np.array_equal(both[1:], alone),
        "A sample does not depend on the other rows of its batch.",
    )
    scores = client.classify(supports[np.newaxis], supports[:1, 0], seed=5)
    check(
        bool(np.isfinite(scores.log_likelihood).all())
        and abs(float(scores.probabilities.sum()) - 1.0) < 1e-4,
        "Log-likelihoods are finite and probabilities sum to 1.",
    )
    invalid = supports.copy()
    invalid[1] = 2.0
    check(
        rejected(lambda: client.sample(invalid, seed=[3, 4]), "row 1"),
        "A row with invalid pixels is named.",
    )
    check(
        rejected(lambda: client.sample_prior(seed=range(4097)), "rows"),
        "A batch of 4,097 rows is rejected.",
    )
    return faults


def load(
    connect: Callable[[], Client], *, num_clients: int, seconds: float
) -> tuple[list[float], int]:
    """Lets clients ask for images at the same time.

    Args:
        connect: Callable. Returns a new client.
        num_clients: Integer. Number of clients.
        seconds: Float. How long they ask.

    Returns:
        Latencies of the answered requests in seconds, and the number of
        requests that were not answered.
    """
    end = time.monotonic() + seconds

    def ask(seed: int) -> tuple[list[float], int]:
        latencies, num_failed = [], 0
        with connect() as client:
            while (start := time.monotonic()) < end:
                seed += num_clients
                try:
                    client.sample_prior(seed=[seed])
                except ServingError:
                    num_failed += 1
                else:
                    latencies.append(time.monotonic() - start)
        return latencies, num_failed

    with concurrent.futures.ThreadPoolExecutor(num_clients) as pool:
        results = list(pool.map(ask, range(num_clients)))
    return [x for one, _ in results for x in one], sum(n for _, n in results)


def main(argv: Sequence[str]) -> None:
    """Checks a model and prints a table of its latencies."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")

    def connect() -> Client:
        return Client(_ADDRESS.value, model=_MODEL.value)

    try:
        with connect() as client:
            faults = check_contract(client)
    except (ServingError, ValueError) as error:
        sys.exit(f"error: {error}")
    for fault in faults:
        print(f"Not so: {fault}")
    print("| clients | images/s | median ms | 95% ms | failed |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for count in map(int, _CLIENTS.value):
        latencies, num_failed = load(
            connect, num_clients=count, seconds=_SECONDS.value
        )
        median, high = (
            1000 * np.quantile(latencies or [np.nan], q) for q in (0.5, 0.95)
        )
        rate = len(latencies) / _SECONDS.value
        print(
            f"| {count} | {rate:.1f} | {median:.0f} | {high:.0f} | "
            f"{num_failed} |",
            flush=True,
        )
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    flags.mark_flag_as_required("model")
    app.run(main)
