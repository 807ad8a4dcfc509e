"""Makes the tables and figures of the paper: `vhe-tf reproduce`."""

import sys

from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf.experiments import reproduce

if __name__ == "__main__":
    with exit_on_interrupt():
        reproduce.main(sys.argv)
