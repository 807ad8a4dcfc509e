"""Makes the tables and figures of the paper: `vhe-tf reproduce`."""

import sys

from vhe_tf.experiments import reproduce
from vhe_tf.experiments.endings import interrupts_end_quietly

if __name__ == "__main__":
    with interrupts_end_quietly():
        reproduce.main(sys.argv)
