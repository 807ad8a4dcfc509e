"""Exports a trained model for TensorFlow Serving.

    python trainers/export.py --model runs/omniglot/best.keras \
        --out saved_models/omniglot

Writes the next version, saved_models/omniglot/1 at first, whole or not at
all. Try it at once with the server for development:

    python -m vhe_tf.serving.local saved_models/omniglot
"""

import os
from collections.abc import Sequence

from absl import app
from absl import flags
from absl import logging

_MODEL = flags.DEFINE_string(
    "model", None, "The .keras file of the model.", required=True
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "The model's folder, which TensorFlow Serving watches; its name is the "
    "name of the model.",
    required=True,
)
_VERSION = flags.DEFINE_integer(
    "version", None, "Default: one more than the largest there is."
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 20, "Draws of the group latents to classify; fixed from now."
)
_NUM_ELEMENT_SAMPLES = flags.DEFINE_integer(
    "num_element_samples", 1, "Draws of z for each draw of c."
)
_WARMUP = flags.DEFINE_bool(
    "warmup",
    True,
    "Write a request for each signature, to be run before the server says "
    "that it is ready. Needs vhe_tf[serving].",
)


def main(argv: Sequence[str]) -> None:
    """Loads, exports and says what to do next."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    import vhe_tf
    from vhe_tf import training
    from vhe_tf._utils import atomic_io
    from vhe_tf.serving import export

    with training.mistakes_end_quietly():
        model = vhe_tf.load_model(_MODEL.value)
        print("Exporting (half a minute) ...", flush=True)
        try:
            folder = export(
                model,
                _OUT.value,
                num_samples=_NUM_SAMPLES.value,
                num_element_samples=_NUM_ELEMENT_SAMPLES.value,
                version=_VERSION.value,
                warmup=_WARMUP.value,
            )
        except atomic_io.NotWrittenError as error:
            raise SystemExit(
                f"error: {error} Make room (or mend what else is wrong), and "
                "start the same command again."
            ) from error
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(f"Made {folder} ({size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    app.run(main)
