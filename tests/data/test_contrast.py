"""Images that show nothing at the scale on which they are read."""

import csv

import numpy as np
import pytest
from PIL import Image

from tests.data.test_class_folders import messages
from vhe_tf.data import Folder
from vhe_tf.data import read_image_folder
from vhe_tf.data import read_label_table
from vhe_tf.data.contrast import check_classes
from vhe_tf.data.contrast import check_contrast
from vhe_tf.data.contrast import faint_images
from vhe_tf.data.datasets.own_images import Table
from vhe_tf.data.datasets.records import folder_to_records


def drawing(seed):
    """Dark dots on a light page."""
    pixels = np.full((16, 16), 255, np.uint8)
    dots = np.random.default_rng(seed).random((12, 12)) < 0.3
    pixels[2:14, 2:14][dots] = 0
    return pixels


def save(path, *, bits, seed):
    """Saves a drawing of so many bits, as most libraries do."""
    pixels = drawing(seed)
    if bits <= 8:
        image = Image.fromarray(pixels // 255 * np.uint8(2**bits - 1))
    else:
        levels = (pixels // 255).astype(np.uint16) * np.uint16(2**bits - 1)
        image = Image.fromarray(levels)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def folder(root, *, bits, num_faint, num_images=3):
    """Makes ten classes; `num_faint` of them have images of other bits."""
    for index, name in enumerate("abcdefghij"):
        for number in range(num_images):
            save(
                root / name / f"{number}.png",
                bits=bits if index < num_faint else 8,
                seed=[index, number],
            )


def table(root):
    path = root / "labels.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "character"])
        for image in sorted(root.glob("*/*.png")):
            rows.writerow([image.relative_to(root), image.parent.name])
    return path


@pytest.mark.parametrize("images", ["binary", "grey"])
@pytest.mark.parametrize("bits", [1, 4, 12])
def test_classes_on_another_scale_are_rejected(tmp_path, caplog, bits, images):
    folder(tmp_path, bits=bits, num_faint=3)
    received = r"3 such groups of 10: 'a', 'b', 'c'\."
    options = {"images": images, "image_size": (16, 16)}
    with pytest.raises(ValueError, match=received):
        Folder(**options).load(str(tmp_path))
    with pytest.raises(ValueError, match=received):
        Table(**options).load(str(table(tmp_path)))


def test_drawings_at_a_quarter_of_the_scale_are_read(tmp_path):
    folder(tmp_path, bits=14, num_faint=2)
    splits = Folder(image_size=(16, 16), final=True).load(str(tmp_path))
    assert splits.test.images.any(axis=(1, 2, 3)).all()


def read_records(root, *flags):
    to = root.parent / "records"
    folder_to_records.main([f"--from_folder={root}", f"--to={to}", *flags])


@pytest.mark.parametrize(
    "read",
    [
        read_image_folder,
        lambda root: read_records(root, "--channels=3"),
        lambda root: read_label_table(table(root)),
    ],
)
def test_the_files_on_another_scale_are_named(tmp_path, caplog, read):
    root = tmp_path / "pages"
    folder(root, bits=8, num_faint=0)
    for number in (1, 2):
        save(root / "c" / f"{number}.png", bits=4, seed=number)
    read(root)
    text = messages(caplog)
    assert "2 of 30 images" in text
    named = [repr(str(root / "c" / f"{number}.png")) for number in (1, 2)]
    assert ", ".join(named) in text


def test_rare_blank_drawings_and_a_blank_class_are_read(tmp_path, caplog):
    folder(tmp_path, bits=8, num_faint=0)
    for name in ("a/0", "b/1", *(f"c/{number}" for number in range(3))):
        Image.new("L", (16, 16), "white").save(tmp_path / f"{name}.png")
    # A scan of an empty page is not quite of one shade.
    for number in range(3):
        noise = np.random.default_rng(number).integers(250, 256, (16, 16))
        path = tmp_path / "d" / f"{number}.png"
        Image.fromarray(noise.astype(np.uint8)).save(path)
    Folder(image_size=(16, 16)).load(str(tmp_path))
    [warning] = caplog.messages
    assert "8 of 30 images show no drawing" in warning


def test_an_image_of_one_shade_is_blank_not_faint():
    images = np.stack([np.full((4, 4, 1), n, np.uint8) for n in (0, 9, 255)])
    assert not faint_images(images, binary=True).any()
    assert not faint_images(images, binary=False).any()


@pytest.mark.parametrize("count", [21, 30])
def test_twenty_images_are_named_and_the_others_counted(caplog, count):
    images = np.zeros((100, 4, 4, 1), np.uint8)
    images[:, 0] = 255
    images[:count] //= 255
    check_contrast(images, "images", binary=True)
    assert "index 19 and" in messages(caplog)
    assert f"and {count - 20} more" in messages(caplog)


@pytest.mark.parametrize(("count", "total"), [(1, 2), (6, 7), (3, 8)])
def test_half_of_few_images_may_be_faint(caplog, count, total):
    images = np.zeros((total, 4, 4, 1), np.uint8)
    images[:, 0] = 255
    images[:count] //= 255
    images[1:count:2] += 254  # as in the scan of an empty page
    check_contrast(images, "images", binary=True)
    assert f"{count} of {total} images" in messages(caplog)


@pytest.mark.parametrize(("count", "total"), [(2, 2), (7, 7), (4, 8)])
def test_all_images_or_half_of_many_must_not_be_faint(count, total):
    images = np.zeros((total, 4, 4, 1), np.uint8)
    images[:, 0] = 255
    images[:count] //= 255
    images[1:count:2] += 254
    with pytest.raises(ValueError, match=f"{count} such images of {total} "):
        check_contrast(images, "images", binary=True)


@pytest.mark.parametrize(
    ("num_classes", "sampled", "rejected"),
    [(20, False, True), (21, False, False), (20, True, False)],
)
def test_a_tenth_of_the_classes_must_not_be_faint(
    caplog, num_classes, sampled, rejected
):
    images = np.zeros((2 * num_classes, 4, 4, 1), np.uint8)
    images[:, 0] = 255
    images[:4] //= 255
    ids = {"character": np.arange(2 * num_classes) // 2}
    expected = f"2 such groups of {num_classes}: 'x', 1."
    names = {"character": {0: "x"}}
    options = {"names": names, "binary": True, "sampled": sampled}
    if rejected:
        with pytest.raises(ValueError, match=expected):
            check_classes(images, ids, **options)
    else:
        check_classes(images, ids, **options)
        assert expected in messages(caplog)


def test_images_without_a_label_are_no_class():
    images = np.zeros((6, 4, 4, 1), np.float32)
    images[:, 0] = [[1 / 255]]
    check_classes(
        images,
        {"character": np.array([0, 0, -1, -1, -1, -1])},
        names={},
        binary=False,
    )
