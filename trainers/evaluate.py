"""Measures a trained model on unseen groups: `vhe-tf evaluate`."""

import sys

from vhe_tf.experiments import evaluate
from vhe_tf.experiments.endings import interrupts_end_quietly

if __name__ == "__main__":
    with interrupts_end_quietly():
        evaluate.main(sys.argv)
