"""The time of a training step by kind of operation.

    python benchmarks/profile_step.py
    python benchmarks/profile_step.py --architecture=deconvolutional

A step of the small model as a run takes it: forward, backward, clipped
gradients, Adam, EMA weights. TensorFlow's profiler records the operations, of
which one runs at a time. The figures are milliseconds per step, beside the sum
over all operations.
"""

import collections
import pathlib
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import measure
import tensorflow as tf
from absl import app
from absl import flags
from measure import Figure
from small_models import MAKE
from small_models import training_step
from tensorflow.tsl.profiler.protobuf import xplane_pb2

_ARCHITECTURE = flags.DEFINE_enum(
    "architecture",
    "pixel_cnn",
    ["deconvolutional", "pixel_cnn"],
    "Which architecture to profile.",
)

_STEPS = 20
_BATCH_SIZE, _SUPPORT_SIZE = 16, 5
_KINDS = {
    "other gradients by kernels": "BackpropFilter",
    "gradients by inputs": "BackpropInput",
    "convolutions": "Conv2D",
    "matrix products, gradients by kernels among them": "MatMul",
    "padding, slicing, joining, transposing": (
        "Pad Slice Concat Pack Unpack Split Transpose Tile Gather Reshape"
    ),
    "random numbers": "Bitwise Shift Xor",
    "sums and means": "Sum Mean BiasAddGrad",
    "optimizer": "Adam Assign",
}


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    keras.utils.set_random_seed(0)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    step = training_step(
        MAKE[_ARCHITECTURE.value]("small"), _BATCH_SIZE, _SUPPORT_SIZE
    )
    for _ in range(3):
        step()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(_STEPS):
                step()
        [path] = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    times: dict[str, float] = collections.defaultdict(float)
    count = 0
    for name, milliseconds in _operations(space):
        times[_kind(name)] += milliseconds / _STEPS
        count += 1
    total = sum(times.values())
    measure.report(
        f"A training step of the small {_ARCHITECTURE.value} model, batches "
        f"of {_BATCH_SIZE}, |D| = {_SUPPORT_SIZE}",
        [
            Figure("all operations", total, "ms"),
            Figure("number of operations", count / _STEPS, "per step"),
            *(
                Figure(kind, value, "ms", "all operations", value / total)
                for kind, value in sorted(
                    times.items(), key=lambda item: -item[1]
                )
            ),
        ],
    )


def _operations(space: xplane_pb2.XSpace) -> Iterator[tuple[str, float]]:
    """Yields the type and the milliseconds of each operation of a step."""
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                _, colon, operation = name.rpartition(":")
                if colon and "::" not in name and "Eager" not in name:
                    yield operation, event.duration_ps / 1e9


def _kind(operation: str) -> str:
    for kind, parts in _KINDS.items():
        if any(part in operation for part in parts.split()):
            return kind
    return "elementwise and other operations"


if __name__ == "__main__":
    app.run(main)
