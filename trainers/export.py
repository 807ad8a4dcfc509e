"""Exports a trained model for TensorFlow Serving: `vhe-tf export`."""

import sys

from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf.experiments import export

if __name__ == "__main__":
    with exit_on_interrupt():
        export.main(sys.argv)
