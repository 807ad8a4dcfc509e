"""Exports a trained model for TensorFlow Serving: `vhe-tf export`."""

import sys

from vhe_tf.experiments import export
from vhe_tf.experiments.endings import exit_on_interrupt

if __name__ == "__main__":
    with exit_on_interrupt():
        export.main(sys.argv)
