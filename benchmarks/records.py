"""Images on disk against the same images in memory.

    python benchmarks/records.py
    python benchmarks/records.py --num_images=50000    # in seconds

Writes 28x28 grey images in groups of twenty, a million by default (0.9 GB), to
a folder of records, and samples their episodes at the recipe of Section 4.1.
Peaks of resident memory are those of processes of their own.
"""

import functools
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence

import measure
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from measure import Figure

from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedData
from vhe_tf.data import RecordedImages
from vhe_tf.data import write_records

_NUM_IMAGES = flags.DEFINE_integer("num_images", 1_000_000, "How many.")
_FOLDER = flags.DEFINE_string(
    "folder", None, "Where to write, and what to keep; temporary by default."
)
_PEAK_OF = flags.DEFINE_enum(
    "peak_of",
    None,
    ["records", "memory"],
    "Draw episodes from --folder and print how many MiB are resident: before "
    "it is opened, and at most.",
)

_GROUP_SIZE = 20
_SIZE, _CELL = 28, 4  # pixels, of an image and of its pattern
_BATCH_SIZE, _SUPPORT_SIZE, _NUM_STEPS = 32, 5, 300


def main(argv: Sequence[str]) -> None:
    """Writes, reads and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    if _PEAK_OF.value:
        print(json.dumps(_peak()))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(_FOLDER.value or temporary)
        figures = _written(folder)
        figures += _opened(folder)
        figures += _drawn(folder)
        figures += _resident(folder)
    measure.report(
        f"{_NUM_IMAGES.value:,} images of 28x28 in groups of {_GROUP_SIZE}, on "
        "disk; episodes as in episodes.py",
        figures,
    )


def _examples(count: int) -> Iterator[tuple[np.ndarray, dict[str, int]]]:
    """Yields images that are a pattern of their group, and noise."""
    generator = np.random.default_rng(0)
    cells = _SIZE // _CELL
    for group in range(-(-count // _GROUP_SIZE)):
        coarse = generator.integers(0, 224, (cells, cells, 1), np.uint8)
        pattern = coarse.repeat(_CELL, axis=0).repeat(_CELL, axis=1)
        shape = (_GROUP_SIZE, _SIZE, _SIZE, 1)
        noise = generator.integers(0, 32, shape, np.uint8)
        for image in (pattern + noise)[: count - group * _GROUP_SIZE]:
            yield image, {"character": group}


def _written(folder: pathlib.Path) -> list[Figure]:
    count = _NUM_IMAGES.value
    start = time.perf_counter()
    for _ in _examples(count):
        pass
    made = time.perf_counter()
    write_records(folder, _examples(count))
    seconds = (time.perf_counter() - made) - (made - start)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return [
        Figure("on disk", size / 2**20, "MiB"),
        Figure("written", count / seconds, "images per second"),
    ]


def _opened(folder: pathlib.Path) -> list[Figure]:
    start = time.perf_counter()
    RecordedImages(folder)
    opened = time.perf_counter()
    return [Figure("opened", opened - start, "s")]


def _drawn(folder: pathlib.Path) -> list[Figure]:
    data: dict[str, GroupedData] = {"records": RecordedImages(folder)}
    start = time.perf_counter()
    data["memory"] = data["records"].load()
    loaded = time.perf_counter() - start
    episodes = {name: iter(_episodes(each)) for name, each in data.items()}

    def draw(name: str) -> None:
        for _ in itertools.islice(episodes[name], _NUM_STEPS):
            pass

    seconds = measure.best_seconds(
        {name: functools.partial(draw, name) for name in data}
    )
    _forget(folder)
    start = time.perf_counter()
    draw("records")
    seconds["disk"] = time.perf_counter() - start
    rates = {
        name: _NUM_STEPS * _BATCH_SIZE / each for name, each in seconds.items()
    }
    return [
        Figure(
            "loaded into memory", len(data["memory"]) / loaded, "per second"
        ),
        Figure("episodes from memory", rates["memory"], "per second"),
        Figure(
            "episodes from records, files cached",
            rates["records"],
            "per second",
            "memory",
            rates["records"] / rates["memory"],
        ),
        Figure(
            "episodes from records, nothing cached",
            rates["disk"],
            "per second",
            "memory",
            rates["disk"] / rates["memory"],
        ),
    ]


def _episodes(data: GroupedData) -> tf.data.Dataset:
    return Episodes(
        data,
        batch_size=_BATCH_SIZE,
        support_size=_SUPPORT_SIZE,
        resamples=True,
        augmentation=Augmentation(symmetries=8, affine_copies=20),
    ).dataset()


def _forget(folder: pathlib.Path) -> None:
    """Asks the system to keep nothing of the files in memory."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _resident(folder: pathlib.Path) -> list[Figure]:
    figures = []
    for how in ("memory", "records"):
        command = [
            *(sys.executable, __file__),
            *(f"--folder={folder}", f"--peak_of={how}"),
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True
        )
        before, peak = json.loads(done.stdout.splitlines()[-1])
        figures += [
            Figure(f"resident at most, from {how}", peak, "MiB"),
            Figure("  of these before opening", before, "MiB"),
        ]
    return figures


def _peak() -> tuple[float, float]:
    def resident() -> float:
        # Not that of `getrusage`, which begins at that of the parent.
        status = pathlib.Path("/proc/self/status").read_text("utf-8")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    # TensorFlow at work, but on nothing.
    small = tf.data.Dataset.range(100).map(tf.math.square).batch(10)
    for _ in small:
        pass
    before = resident()
    data: GroupedData = RecordedImages(_FOLDER.value)
    if _PEAK_OF.value == "memory":
        data = data.load()
    for _ in _episodes(data).take(_NUM_STEPS):
        pass
    return before, resident()


if __name__ == "__main__":
    app.run(main)
