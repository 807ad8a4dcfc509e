"""Makes the tables and figures of the paper: `vhe-tf reproduce`."""

import sys

from vhe_tf.experiments import reproduce
from vhe_tf.experiments.endings import exit_on_interrupt

if __name__ == "__main__":
    with exit_on_interrupt():
        reproduce.main(sys.argv)
