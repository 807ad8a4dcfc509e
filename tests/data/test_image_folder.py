import io
import logging
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL import ImageFile

from vhe_tf.data.datasets.folder import read_image_folder


def save(path, pixels, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **kwargs)


def grey(value, height=4, width=4):
    return np.full((height, width), value, np.uint8)


def test_classes_are_sorted_and_named(tmp_path):
    save(tmp_path / "b" / "2.png", grey(20))
    save(tmp_path / "b" / "1.PNG", grey(10))
    save(tmp_path / "a" / "x.JPeG", grey(128))
    save(tmp_path / "c" / "x.jpg", grey(64))
    images = read_image_folder(tmp_path, image_size=(4, 4), label_name="person")
    assert images.images.shape == (4, 4, 4, 1)
    assert images.images.dtype == np.uint8
    np.testing.assert_array_equal(images.labels["person"], [0, 1, 1, 2])
    assert images.group_names == {"person": {0: "a", 1: "b", 2: "c"}}
    np.testing.assert_array_equal(images.images[:, 0, 0, 0], [128, 10, 20, 64])


def test_shrinking_averages_areas_on_each_axis(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8))
    save(tmp_path / "a" / "x.png", pixels)
    images = read_image_folder(tmp_path, image_size=(3, 2))
    assert images.image_shape == (3, 2, 1)
    # Pillow rounds after each of the two axes.
    np.testing.assert_allclose(
        images.images[0, ..., 0],
        pixels.reshape(3, 2, 2, 4).mean(axis=(1, 3)),
        atol=1.0,
    )


def test_enlarging_one_axis_interpolates_and_shrinking_the_other_averages(
    tmp_path,
):
    save(tmp_path / "a" / "x.png", [[0, 0, 200, 200], [0, 0, 200, 200]])
    images = read_image_folder(tmp_path, image_size=(5, 2))
    np.testing.assert_array_equal(images.images[0, ..., 0], [[0, 200]] * 5)
    save(tmp_path / "a" / "x.png", [[0, 200]])
    row = read_image_folder(tmp_path, image_size=(1, 8)).images[0, 0, :, 0]
    assert np.all(np.diff(row.astype(int)) >= 0)
    assert len(np.unique(row)) > 2


def test_images_of_the_right_size_keep_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 3))
    save(tmp_path / "a" / "x.png", pixels)
    images = read_image_folder(tmp_path, image_size=(5, 3), channels=3)
    np.testing.assert_array_equal(images.images[0], pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_inverting_makes_dark_ink_255(tmp_path, channels):
    save(tmp_path / "a" / "x.png", [[0, 255]])
    images = read_image_folder(
        tmp_path, image_size=(1, 2), channels=channels, invert=True
    )
    expected = [[[[255] * channels, [0] * channels]]]
    np.testing.assert_array_equal(images.images, expected)
    assert images.images.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white_paper(tmp_path, mode, channels):
    image = Image.fromarray(
        np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    ).convert("RGBA" if mode == "P" else mode)
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "x.png"
    if mode == "P":
        palette = Image.new("P", (2, 1))
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.putdata([0, 1])
        palette.save(path, transparency=b"\x00\xff")
    else:
        image.save(path)
    images = read_image_folder(tmp_path, image_size=(1, 2), channels=channels)
    np.testing.assert_array_equal(
        images.images[0, 0], [[255] * channels, [0] * channels]
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_every_colour_mode_is_converted(tmp_path, mode):
    (tmp_path / "a").mkdir()
    suffix = "jpg" if mode == "CMYK" else "png"
    image = Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).convert(mode)
    image.save(tmp_path / "a" / f"x.{suffix}")
    for channels in 1, 3:
        images = read_image_folder(
            tmp_path, image_size=(8, 8), channels=channels
        )
        np.testing.assert_array_equal(
            images.images, np.full((1, 8, 8, channels), 255)
        )


def test_sixteen_bit_images_are_scaled_not_clipped(tmp_path):
    (tmp_path / "a").mkdir()
    pixels = np.array([[0, 1000, 40000, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a" / "x.png")
    images = read_image_folder(tmp_path, image_size=(1, 4), channels=3)
    np.testing.assert_array_equal(
        images.images[0, 0], [[value] * 3 for value in (0, 3, 155, 255)]
    )


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # The orientation: upside down.
    save(tmp_path / "a" / "x.png", [[10], [20]], exif=exif)
    images = read_image_folder(tmp_path, image_size=(2, 1))
    np.testing.assert_array_equal(images.images[0, :, 0, 0], [20, 10])


def test_hidden_entries_are_ignored_silently(tmp_path, caplog):
    save(tmp_path / "a" / "x.png", grey(0))
    save(tmp_path / "a" / ".x.png", grey(1))
    save(tmp_path / ".checkpoints" / "x.png", grey(2))
    (tmp_path / ".DS_Store").touch()
    with caplog.at_level(logging.WARNING):
        images = read_image_folder(tmp_path)
    assert len(images) == 1
    assert not caplog.records


@pytest.mark.parametrize("several", [False, True])
def test_other_files_are_counted_in_one_warning(several, tmp_path, caplog):
    save(tmp_path / "a" / "x.png", grey(0))
    save(tmp_path / "b" / "x.png", grey(0))
    save(tmp_path / "stray.png", grey(0))
    if several:
        save(tmp_path / "a" / "below" / "x.png", grey(0))
        (tmp_path / "b" / "notes.txt").touch()
    with caplog.at_level(logging.WARNING):
        images = read_image_folder(tmp_path)
    assert len(images) == 2
    (record,) = caplog.records
    counted = "3 entries" if several else "1 entry"
    assert f"Ignored {counted} of" in record.getMessage()
    assert "stray.png" in record.getMessage()


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"]
)
def test_folders_of_the_system_are_no_classes(tmp_path, caplog, name):
    save(tmp_path / "a" / "x.png", grey(0))
    save(tmp_path / name / "a" / "x.png", grey(1))
    save(tmp_path / "b" / name / "x.png", grey(2))
    save(tmp_path / "b" / "x.png", grey(3))
    images = read_image_folder(tmp_path)
    assert images.group_names["character"] == {0: "a", 1: "b"}
    np.testing.assert_array_equal(images.images[:, 0, 0, 0], [0, 3])
    (record,) = caplog.records
    assert "Ignored 2 folders" in record.getMessage()
    assert name in record.getMessage()


@pytest.mark.parametrize(
    "suffix", ["bmp", "gif", "webp", "tif", "tiff", "ppm", "jp2", "JFIF"]
)
def test_whatever_pillow_reads_is_read(tmp_path, suffix):
    save(tmp_path / "a" / f"x.{suffix}", grey(255))
    images = read_image_folder(tmp_path, image_size=(4, 4))
    np.testing.assert_array_equal(images.images, np.full((1, 4, 4, 1), 255))


def test_absent_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"existing folder.*absent'"):
        read_image_folder(tmp_path / "absent")


def test_file_as_root_is_rejected(tmp_path):
    (tmp_path / "images.zip").touch()
    with pytest.raises(
        NotADirectoryError, match=r"unpack an archive first.*images\.zip'"
    ):
        read_image_folder(tmp_path / "images.zip")


def test_images_directly_in_root_need_a_folder_for_each_class(tmp_path):
    save(tmp_path / "x.png", grey(0))
    save(tmp_path / "y.png", grey(0))
    with pytest.raises(
        ValueError,
        match=r"one folder for each class.*Received: 2 images directly",
    ):
        read_image_folder(tmp_path)


def test_empty_root_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"no class folders.*Received: 0"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize("above", [(), ("Greek",)])
def test_empty_class_folder_is_named(tmp_path, above):
    root = tmp_path.joinpath(*above)
    save(root / "a" / "x.png", grey(0))
    (root / "seventh").mkdir()
    (root / "seventh" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"Received: .*seventh', without"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize("num_empty", [2, 22])
def test_all_empty_class_folders_are_listed_at_once(tmp_path, num_empty):
    save(tmp_path / "a" / "x.png", grey(0))
    for number in range(num_empty):
        (tmp_path / f"empty{number:02d}").mkdir()
    with pytest.raises(ValueError, match="must hold images") as error:
        read_image_folder(tmp_path)
    message = str(error.value)
    assert f"Received: {num_empty} without images:" in message
    assert f"\n  {tmp_path / 'empty01'}" in message
    assert ("and 2 more" in message) == (num_empty == 22)


@pytest.mark.parametrize("largest", [15, 255, 4095, 65535])
def test_pgm_files_of_any_number_of_bits_are_read(tmp_path, largest):
    levels = np.linspace(0, largest, 16).round().astype(int)
    data = levels.astype("u1" if largest < 256 else ">u2").tobytes()
    (tmp_path / "a").mkdir()
    header = f"P5 4 4 {largest}\n".encode()
    (tmp_path / "a" / "x.pgm").write_bytes(header + data)
    pixels = read_image_folder(tmp_path, image_size=(4, 4)).images
    expected = 255 * levels / largest
    np.testing.assert_allclose(pixels.ravel(), expected, atol=1.01)
    assert pixels.min() == 0
    assert pixels.max() == 255


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_file_of_a_huge_image_is_not_unpacked(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    Image.new("1", (12_000, 12_000)).save(tmp_path / "a" / "x.png")

    def fail(self):
        raise AssertionError("unpacked")

    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ValueError, match=r"x\.png.* 144,000,000 pixels; save"):
        read_image_folder(tmp_path)


def test_unreadable_folder_is_named(tmp_path, monkeypatch):
    save(tmp_path / "a" / "x.png", grey(0))
    scandir = os.scandir

    def forbidden(folder):
        if os.fspath(folder).endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(PermissionError, match="a' may not be read"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(
    "corruption", ["truncated", "empty", "text", "garbled"]
)
def test_broken_image_is_named(tmp_path, suffix, corruption):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(
        buffer, "jpeg" if suffix == "jpg" else suffix
    )
    intact = buffer.getvalue()
    content = {
        "truncated": intact[: len(intact) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "garbled": intact[:12] + b"\xff" * (len(intact) - 12),
    }[corruption]
    save(tmp_path / "a" / "x.png", grey(0))
    path = tmp_path / "b" / f"broken.{suffix}"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"broken\.{suffix}' cannot be read; replace"
    ):
        read_image_folder(tmp_path)


@pytest.mark.parametrize("num_broken", [2, 21])
def test_all_broken_images_are_listed_at_once(tmp_path, num_broken):
    for number in range(30):
        save(tmp_path / "a" / f"{number:02d}.png", grey(number))
    for number in range(2, 2 + num_broken):
        (tmp_path / "a" / f"{number:02d}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be read") as error:
        read_image_folder(tmp_path)
    message = str(error.value)
    assert f"Received: {num_broken} that cannot be read:" in message
    for number in range(30):
        listed = 2 <= number < 2 + min(num_broken, 20)
        assert (f"{number:02d}.png (" in message) == listed
    assert ("and 1 more" in message) == (num_broken == 21)


@pytest.mark.parametrize(
    "image_size", [28, (28,), (28, 0), (28, -1), (28.0, 28), "ab", None]
)
def test_bad_image_size_is_rejected(tmp_path, image_size):
    with pytest.raises(ValueError, match="Received: image_size=") as error:
        read_image_folder(tmp_path, image_size=image_size)
    assert repr(image_size) in str(error.value)


@pytest.mark.parametrize("channels", [0, 2, 4, "RGB"])
def test_bad_channels_are_rejected(tmp_path, channels):
    with pytest.raises(ValueError, match="Received: channels=") as error:
        read_image_folder(tmp_path, channels=channels)
    assert repr(channels) in str(error.value)


# Files of several images, and of transparent levels ---------------------------


def chunk(name, content):
    data = name + content
    return b"%b%b%b" % (
        struct.pack(">I", len(content)),
        data,
        struct.pack(">I", zlib.crc32(data)),
    )


def png(levels, *, bits, transparent):
    """A PNG file of one row, grey or RGB, with one transparent level."""
    colour = np.ndim(levels) == 2
    flat = np.ravel(levels).tolist()
    packed = "".join(f"{level:0{bits}b}" for level in flat)
    packed += "0" * (-len(packed) % 8)
    row = int(packed, 2).to_bytes(len(packed) // 8, "big")
    size = struct.pack(">IIBBBBB", len(levels), 1, bits, 2 * colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("which", [0, 1])
def test_a_transparent_grey_level_is_paper_at_every_depth(
    tmp_path, bits, which
):
    most = 2**bits - 1
    levels = [0, most // 3, most]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(
        png(levels, bits=bits, transparent=[levels[which]])
    )
    expected = [0, 255 * (most // 3) // most, 255]
    expected = [
        255 if level == levels[which] else grey
        for level, grey in zip(levels, expected, strict=True)
    ]
    images = read_image_folder(tmp_path, image_size=(1, 3))
    np.testing.assert_array_equal(images.images[0, 0, :, 0], expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_paper_at_every_depth(tmp_path, bits):
    unit = 2 ** (bits - 8)
    colours = [[9 * unit, 5 * unit, 7 * unit], [0, 0, 0]]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(
        png(colours, bits=bits, transparent=colours[0])
    )
    images = read_image_folder(tmp_path, image_size=(1, 2), channels=3)
    np.testing.assert_array_equal(images.images[0, 0], [[255] * 3, [0] * 3])


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_paper_of_deep_tiff_files_may_be_zero(tmp_path, white_is_zero):
    pixels = np.array([0, 40000, 65535], "<u2").tobytes()
    tags = [(256, 4, 3), (257, 4, 1), (258, 3, 16), (259, 3, 1)]
    tags += [(262, 3, 0 if white_is_zero else 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, 1), (279, 4, len(pixels))]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tif").write_bytes(
        b"II*\0"
        + struct.pack("<I", 8 + len(pixels))
        + pixels
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", t, kind, 1, v) for t, kind, v in tags)
        + b"\0\0\0\0"
    )
    expected = np.array([0, 155, 255])
    images = read_image_folder(tmp_path, image_size=(1, 3))
    np.testing.assert_array_equal(
        images.images[0, 0, :, 0], 255 - expected if white_is_zero else expected
    )


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_that_files_have_several_images_is_told(tmp_path, caplog, suffix):
    save(tmp_path / "a" / "one.png", grey(10))
    pages = [Image.fromarray(grey(value)) for value in (0, 128, 255)]
    pages[0].save(
        tmp_path / "a" / f"two.{suffix}",
        save_all=True,
        append_images=pages[1:],
        lossless=True,
    )
    images = read_image_folder(tmp_path, image_size=(4, 4))
    np.testing.assert_array_equal(images.images[:, 0, 0, 0], [10, 0])
    (record,) = caplog.records
    assert f"two.{suffix} (3 frames)" in record.getMessage()
    assert "1 files" in record.getMessage()
