"""Trains the factorial VHE: styles beside characters (Eq. 18, Figure 8).

    python trainers/omniglot_styles.py --run_dir=runs/styles
    python trainers/omniglot_styles.py --run_dir=runs/x --dataset=glyphs

Each drawing is redrawn with one of 30 pens: an ink and a nib. One model then
redraws an unseen character with the pen of another drawing
(pictures/transfer.png). Two oracle classifiers, trained on true drawings, say
how often character and pen are right. See omniglot.py for the data.
"""

import sys

from vhe_tf.experiments import train


def main(argv: list[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    train.train(
        train.read(argv, usage=__doc__ or "", default="omniglot_styles")
    )


if __name__ == "__main__":
    main(sys.argv)
