"""Exports a trained model for TensorFlow Serving: `vhe-tf export`."""

import sys

from vhe_tf.experiments import export
from vhe_tf.experiments.endings import interrupts_end_quietly

if __name__ == "__main__":
    with interrupts_end_quietly():
        export.main(sys.argv)
