"""Exports a trained model for TensorFlow Serving: `vhe-tf export`."""

import sys

from vhe_tf.experiments import export

if __name__ == "__main__":
    export.main(sys.argv)
