"""Trains, evaluates and pictures a VHE on your own images.

    python trainers/own_images.py --run_dir=runs/mine --data_dir=DIR

DIR has one folder per class. By default images are drawings, dark ink on a
light page; --experiment=own_photographs has settings for photographs.
--dataset=records reads images that do not fit in memory from records (see
`vhe_tf.data.write_records`).
"""

import sys

from vhe_tf.experiments import train


def main(argv: list[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    train.train(train.read(argv, usage=__doc__ or "", default="own_images"))


if __name__ == "__main__":
    main(sys.argv)
