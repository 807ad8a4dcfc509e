import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from tools import learning_curves


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    for first in (0, 2):  # the second process takes step 2 again
        writer = tf.summary.create_file_writer(
            str(folder / "tensorboard" / "train"), filename_suffix=f".{first}"
        )
        with writer.as_default():
            for step in range(first, first + 3):
                for name, value in (
                    ("elbo", -90.0 + step + first),
                    ("kl_character", 5.0),
                    ("kl_character_scaled", 1.0),
                ):
                    tf.summary.scalar(f"episodes/{name}", value, step=step)
        writer.close()
    return folder


def _run(*arguments):
    with flagsaver.flagsaver():
        flags.FLAGS(["learning_curves", *arguments])
        learning_curves.main(["learning_curves"])


def test_a_picture_of_the_curves_is_made(run_folder, tmp_path):
    out = tmp_path / "curves.png"
    _run(f"--runs={run_folder}", f"--out={out}")
    image = np.asarray(Image.open(out).convert("RGB"))
    assert image.shape == (400, 1000, 3)  # two panels: ELBO, KL
    blue = np.all(np.abs(image.astype(int) - [31, 119, 180]) < 20, axis=-1)
    assert blue[:, :500].sum() > 100
    assert blue[:, 500:].sum() > 100


def test_a_link_in_the_way_is_not_followed(run_folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".curves.partial.png").symlink_to(victim)
    _run(f"--runs={run_folder}", f"--out={tmp_path / 'curves.png'}")
    assert victim.read_text() == "mine"


def test_a_step_taken_again_counts_once(run_folder):
    scalars = learning_curves.read_scalars(run_folder)
    steps, values = scalars["train/episodes/elbo"]
    assert steps == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(values, [-90, -89, -86, -85, -84])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs=nowhere"], "must be folders of runs"),
        (["--runs=a,b", "--labels=x"], "1 labels for 2 runs"),
    ],
)
def test_mistakes_are_explained(tmp_path, arguments, message):
    out = tmp_path / "curves.png"
    with pytest.raises(SystemExit, match=message):
        _run(*arguments, f"--out={out}")
    assert not out.exists()
