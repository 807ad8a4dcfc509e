"""Measures a trained model on unseen groups: `vhe-tf evaluate`."""

import sys

from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf.experiments import evaluate

if __name__ == "__main__":
    with exit_on_interrupt():
        evaluate.main(sys.argv)
