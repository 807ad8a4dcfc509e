"""Measures memory and latency of the signatures of an export, by rows.

    python tools/serving_memory.py saved_models/omniglot_pixel_cnn_small

Each measurement runs in a process of its own, in a session as in TensorFlow
Serving. Memory is the largest resident memory beyond that of the process with
the model loaded; latency is that of the second call.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np

ROWS = (1, 16, 256)
NUM_WAYS = 5


def measure(folder: str, name: str, num_rows: int) -> dict[str, float]:
    """Runs a signature twice on zeros.

    Args:
        folder: Path of the model's folder.
        name: String. Name of the signature.
        num_rows: Integer. Number of rows of the request.

    Returns:
        Mapping: `mib`, memory of the requests in MiB, and `seconds`, latency of
        the second request.
    """
    from vhe_tf.serving import _saved_model

    model = _saved_model.SavedModel(pathlib.Path(folder), None)
    signature = model.signatures[name]
    inputs = {
        key: np.zeros(
            [
                num_rows if axis == 0 else _size(key, size, tensor.shape or ())
                for axis, size in enumerate(tensor.shape or ())
            ],
            tensor.dtype,
        )
        + tensor.dtype.type(key.endswith("stddev"))
        for key, tensor in signature.inputs.items()
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        start = time.monotonic()
        model.run(signature, inputs)
        seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": (after - before) / 1024, "seconds": seconds}


def _size(name: str, size: int, shape: tuple[int, ...]) -> int:
    """Returns one shot, and several ways where a signature classifies."""
    if size >= 0:
        return size
    ways_and_shots = name.startswith("support") and shape.count(-1) == 3
    encoded_ways = not name.startswith("support")
    return NUM_WAYS if ways_and_shots or encoded_ways else 1


def main(arguments: list[str]) -> None:
    """Prints a table, or one measurement as JSON."""
    if len(arguments) == 3:
        path, signature, rows = arguments
        print(json.dumps(measure(path, signature, int(rows))))
        return
    (folder,) = arguments
    from vhe_tf.serving import _saved_model

    names = sorted(
        _saved_model.SavedModel(pathlib.Path(folder), None).signatures
    )
    print("| signature | rows | MiB | seconds |\n| --- | ---: | ---: | ---: |")
    for name in names:
        if name == "serving_default":
            continue
        for num_rows in ROWS:
            command = [sys.executable, __file__, folder, name, str(num_rows)]
            ran = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            )
            result = json.loads(ran.stdout.splitlines()[-1])
            print(
                f"| {name} | {num_rows} | {result['mib']:.0f} | "
                f"{result['seconds']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
