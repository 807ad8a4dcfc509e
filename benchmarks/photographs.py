"""Reading photographs: once from JPEGs, then from records, then from memory.

    python benchmarks/photographs.py
    python benchmarks/photographs.py --manual_dir=DIR

YouTube Faces at 40x40: a generated archive of 3,462 JPEGs of 347 people, or
the one in DIR. Prints seconds to prepare it, to load what was prepared, and
episodes per second from memory (batches of 16, support 5, mirror images).
"""

import io
import pathlib
import tarfile
import tempfile
import time
from collections.abc import Sequence

import measure
import numpy as np
from absl import app
from absl import flags
from measure import Figure
from PIL import Image

from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data.datasets.youtube_faces.loading import load_youtube_faces

_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Folder with aligned_images_DB.tar.gz."
)

_NUM_PEOPLE, _NUM_FRAMES = 347, 3462
_BATCH_SIZE, _SUPPORT_SIZE, _NUM_STEPS = 16, 5, 500


def main(argv: Sequence[str]) -> None:
    """Times each way."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        manual_dir = _MANUAL_DIR.value
        if manual_dir is None:
            _write_archive(pathlib.Path(folder, "aligned_images_DB.tar.gz"))
            manual_dir = folder
        for what in ("prepared and loaded", "loaded again"):
            start = time.perf_counter()
            faces = load_youtube_faces(data_dir=folder, manual_dir=manual_dir)
            seconds[what] = time.perf_counter() - start
            count = len(faces.train) + len(faces.test)
    sampler = Episodes(
        faces.train,
        group_latents=["person"],
        batch_size=_BATCH_SIZE,
        support_size=_SUPPORT_SIZE,
        resamples=True,
        augmentation=Augmentation(symmetries=2, binarization="none"),
    )
    episodes = iter(sampler.dataset())
    for _ in range(20):
        next(episodes)
    start = time.perf_counter()
    for _ in range(_NUM_STEPS):
        next(episodes)
    rate = _NUM_STEPS * _BATCH_SIZE / (time.perf_counter() - start)
    prepared, again = seconds.values()
    measure.report(
        f"Photographs: {count:,} images of 40x40 in colour",
        [
            Figure("prepared from JPEGs and loaded", prepared, "s"),
            Figure(
                "loaded again from records",
                again,
                "s",
                "preparing",
                prepared / again,
            ),
            Figure(
                f"images in episodes from memory, |D| = {_SUPPORT_SIZE}",
                rate * (_SUPPORT_SIZE + 1),
                "per second",
            ),
        ],
    )


def _write_archive(path: pathlib.Path) -> None:
    """Writes smooth random photographs of 100x100 pixels."""
    generator = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as archive:
        for index in range(_NUM_FRAMES):
            person, frame = index % _NUM_PEOPLE, index // _NUM_PEOPLE
            coarse = generator.integers(0, 256, (10, 10, 3), np.uint8)
            image = Image.fromarray(coarse).resize((100, 100))
            data = io.BytesIO()
            image.save(data, "JPEG")
            name = f"aligned_images_DB/{person}/0/aligned_detect_0.{frame}.jpg"
            info = tarfile.TarInfo(name)
            info.size = data.tell()
            data.seek(0)
            archive.addfile(info, data)


if __name__ == "__main__":
    app.run(main)
