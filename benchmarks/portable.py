"""Sizes and latencies of a portable export in three runtimes.

    pip install '.[portable]'
    python benchmarks/portable.py --model=omniglot_pixel_cnn_small

One row: an encoding, a sample and a likelihood with 20 samples of the latents,
in TensorFlow, OpenVINO and ONNX Runtime, and in one thread of ONNX Runtime, as
in a browser. Latencies are medians of 30 calls, with the range of the middle
half.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import vhe_tf
from vhe_tf.serving import export_portable

_MODEL = flags.DEFINE_string("model", None, "A preset or a .keras file.")
_CALLS = flags.DEFINE_integer("calls", 30, "Number of calls.")

Inputs = dict[str, np.ndarray]


def example(function: Any) -> Inputs:
    """Returns inputs of a loaded signature: sparse images and noise."""
    generator = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {}
    for name, spec in function.structured_input_signature[1].items():
        shape = tuple(spec.shape)
        if name.endswith(("_normal", "mean")):
            inputs[name] = generator.standard_normal(shape)
        elif name.endswith(("_uniform", "stddev")):
            inputs[name] = generator.random(shape)
        else:
            inputs[name] = generator.random(shape) < 0.2
    return {name: value.astype(np.float32) for name, value in inputs.items()}


def in_openvino(folder: pathlib.Path) -> Callable[[Inputs], Any]:
    """Returns a function that answers in OpenVINO, in float32."""
    import openvino

    compiled = openvino.compile_model(
        openvino.convert_model(str(folder)),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    return lambda inputs: list(compiled(inputs).values())


def in_onnx_runtime(path: str, threads: int) -> Callable[[Inputs], Any]:
    """Returns a function that answers in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)
    return lambda inputs: session.run(None, inputs)


def to_onnx(folder: pathlib.Path) -> str:
    """Converts a SavedModel; returns the path of the ONNX file."""
    path = f"{folder}.onnx"
    command = [sys.executable, "-m", "tf2onnx.convert", "--opset", "18"]
    subprocess.run(
        [*command, "--saved-model", str(folder), "--output", path],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return path


def latency(answer: Callable[[Inputs], Any], inputs: Inputs) -> str:
    """Returns the median and the middle half of the latencies."""
    for _ in range(3):
        answer(inputs)
    seconds = []
    for _ in range(_CALLS.value):
        start = time.perf_counter()
        answer(inputs)
        seconds.append(time.perf_counter() - start)
    low, median, high = 1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    print(
        "| function | ONNX, MB | TensorFlow, ms | OpenVINO, ms "
        "| ONNX Runtime, ms | in one thread, ms |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    with tempfile.TemporaryDirectory() as temporary:
        model = vhe_tf.load_model(_MODEL.value)
        folder = export_portable(model, pathlib.Path(temporary) / "portable")
        for part in sorted(folder.iterdir()):
            loaded = tf.saved_model.load(str(part))
            function = loaded.signatures["serving_default"]
            inputs = example(function)
            tensors = {k: tf.constant(v) for k, v in inputs.items()}
            path = to_onnx(part)

            def in_tensorflow(inputs: Inputs, function: Any = function) -> Any:
                return function(**inputs)

            cells = [
                f"{pathlib.Path(path).stat().st_size / 1e6:.2f}",
                latency(in_tensorflow, tensors),
                latency(in_openvino(part), inputs),
                latency(in_onnx_runtime(path, threads=2), inputs),
                latency(in_onnx_runtime(path, threads=1), inputs),
            ]
            print(f"| `{part.name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("model")
    app.run(main)
