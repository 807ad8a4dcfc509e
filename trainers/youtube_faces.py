"""Trains, evaluates and pictures a VHE on YouTube Faces (Section 4.2).

    python trainers/youtube_faces.py --run_dir=runs/faces --manual_dir=DIR

DIR holds aligned_images_DB.tar.gz. Once it is prepared in --data_dir, that
suffices. Images are in colour, 40x40. --group=video makes classes of videos. If
they have few frames, as in a subset, --affine_copies makes the large classes
that a VHE needs.
"""

import sys

from vhe_tf.experiments import train


def main(argv: list[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    train.train(train.read(argv, usage=__doc__ or "", default="youtube_faces"))


if __name__ == "__main__":
    main(sys.argv)
