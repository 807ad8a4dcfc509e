import json
import os

import numpy as np
import pytest

import vhe_tf
from tests.conftest import tiny_vhe
from tests.trainers.conftest import output_of
from tests.trainers.conftest import tiny_trainer
from tests.trainers.conftest import trainer
from vhe_tf.data import GroupedImages
from vhe_tf.data import write_records


def recorded(folder, shape, group):
    """Writes fifteen groups of eight images, a file each."""
    generator = np.random.default_rng(0)
    ids = np.arange(120) // 8
    prototypes = 255 * (generator.random((15, *shape)) < 0.2)
    noise = generator.integers(0, 100, (120, *shape))
    images = np.abs(prototypes[ids] - noise).astype(np.uint8)
    write_records(
        folder,
        GroupedImages(images, {group: ids}),
        max_shard_bytes=8 * (np.prod(shape) + 100),
    )


def arguments(folder, run_dir):
    return [
        "--dataset=records",
        f"--data_dir={folder}",
        f"--run_dir={run_dir}",
        "--support_size=2",
        "--batch_size=4",
        "--epochs=2",
        "--steps_per_epoch=3",
        "--num_test_trials=1",
        "--num_test_groups=1",
        "--num_test_samples=2",
    ]


@pytest.mark.slow
def test_drawings_are_trained_on_from_records(tmp_path):
    folder, run = tmp_path / "records", tmp_path / "run"
    recorded(folder, (28, 28, 1), "character")
    command = tiny_trainer(*arguments(folder, run))
    done = output_of(command)
    assert done.returncode == 0, done.stdout
    assert "Next:" in done.stdout
    weights = vhe_tf.load_model(run / "last.keras").get_weights()
    # Damage is told, and left out on request: another run it is not.
    os.truncate(sorted(folder.glob("*.tfrecord"))[3], 0)
    again = output_of(command)
    assert again.returncode == 1
    assert "error: " in again.stdout
    assert "images-00003.tfrecord' must be a file of " in again.stdout
    assert "Traceback" not in again.stdout
    skipping = output_of([*command, "--skip_corrupt"])
    assert skipping.returncode == 0, skipping.stdout
    assert "Going on from step 6" in skipping.stdout
    assert "Left out 8 of " in skipping.stdout
    for value, wanted in zip(
        vhe_tf.load_model(run / "last.keras").get_weights(),
        weights,
        strict=True,
    ):
        np.testing.assert_array_equal(value, wanted)
    evaluated = output_of(
        trainer(
            f"--model={run / 'best.keras'}",
            f"--data_dir={folder}",
            "--skip_corrupt",
            "--num_trials=1",
            "--joint_num_samples=2",
            "--num_kl_batches=2",
            script="evaluate.py",
        )
    )
    assert evaluated.returncode == 0, evaluated.stdout
    report = json.loads((run / "evaluation.json").read_text("utf-8"))
    assert np.isfinite(report["training_kl"]["character"]["mean"])


def test_photographs_are_trained_on_from_records(tmp_path):
    folder, run = tmp_path / "records", tmp_path / "run"
    recorded(folder, (12, 10, 3), "person")
    done = output_of(
        tiny_trainer(*arguments(folder, run), script="youtube_faces.py")
    )
    assert done.returncode == 0, done.stdout
    assert vhe_tf.load_model(run / "best.keras").image_shape == (12, 10, 3)
    compared = output_of(
        trainer(
            f"--models={run / 'best.keras'}",
            f"--out={tmp_path / 'grid.png'}",
            f"--data_dir={folder}",
            script="compare.py",
        )
    )
    assert compared.returncode == 0, compared.stdout
    assert (tmp_path / "grid.png").is_file()
    drawings = tmp_path / "drawings.keras"
    tiny_vhe().save(drawings)
    refused = output_of(
        trainer(
            f"--models={run / 'best.keras'},{drawings}",
            f"--out={tmp_path / 'refused.png'}",
            f"--data_dir={folder}",
            script="compare.py",
        )
    )
    assert refused.returncode == 1
    assert "must all have the latent 'person'" in refused.stdout
    assert str(drawings) in refused.stdout
    assert "Traceback" not in refused.stdout
    resized = output_of(
        tiny_trainer(
            *arguments(folder, tmp_path / "other"),
            "--image_size=40x40",
            script="youtube_faces.py",
        )
    )
    assert resized.returncode == 1
    assert "size at which they are stored" in resized.stdout
