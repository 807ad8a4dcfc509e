"""Makes the tables and figures of the paper: `vhe-tf reproduce`."""

import sys

from vhe_tf.experiments import reproduce

if __name__ == "__main__":
    reproduce.main(sys.argv)
