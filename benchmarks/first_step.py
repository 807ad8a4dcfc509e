"""Processor time until the first step of a training run, stage by stage.

    python benchmarks/first_step.py omniglot_pixel_cnn_small --data_dir=DIR

The arguments are those of `vhe-tf train`. The run is stopped after its first
step, and its folder is removed.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from vhe_tf.experiments import train


class _Stop(BaseException):
    """Raised after the first step."""


def main() -> None:
    """Trains for a step and prints a table."""
    ends = {}

    def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            ends[name] = time.process_time()
            return result

        return call

    train.import_tensorflow()
    from vhe_tf import callbacks
    from vhe_tf.experiments import building

    ends["importing TensorFlow"] = time.process_time()
    train.load = marked("reading the data", train.load)
    building.compile_model = marked("model", building.compile_model)
    building.make_episodes = marked("episodes", building.make_episodes)

    class Progress(callbacks.ProgressLine):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            ends["tracing and the first step"] = time.process_time()
            raise _Stop

    callbacks.ProgressLine = Progress  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        argv = ["train", *sys.argv[1:], f"--run_dir={folder}/run"]
        with contextlib.suppress(_Stop):
            train.train(train.read(argv, usage=__doc__ or ""))
    previous = 0.0
    for name, end in ends.items():
        print(f"{name:25s}{end - previous:6.2f} CPU seconds, {end:5.2f} in all")
        previous = end


if __name__ == "__main__":
    main()
