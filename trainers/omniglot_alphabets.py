"""Trains the hierarchical VHE: alphabets above characters (Eq. 21, Figure 7).

    python trainers/omniglot_alphabets.py --run_dir=runs/alphabets
    python trainers/omniglot_alphabets.py --run_dir=runs/x --dataset=glyphs

One model samples more of a character from one image of it, and new characters
of an alphabet from five of its characters (pictures/levels.png), and classifies
alphabets by characters that it has never seen. See omniglot.py for the data.
"""

import sys

from vhe_tf.experiments import train


def main(argv: list[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    train.train(
        train.read(argv, usage=__doc__ or "", default="omniglot_alphabets")
    )


if __name__ == "__main__":
    main(sys.argv)
