"""Measures a trained model on unseen groups: `vhe-tf evaluate`."""

import sys

from vhe_tf.experiments import evaluate

if __name__ == "__main__":
    evaluate.main(sys.argv)
