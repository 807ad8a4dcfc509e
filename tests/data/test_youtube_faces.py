import contextlib
import functools
import gzip
import hashlib
import io
import logging
import os
import pathlib
import random
import socket
import tarfile
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vhe_tf.data.datasets.youtube_faces import split
from vhe_tf.data.datasets.youtube_faces.loading import load_youtube_faces
from vhe_tf.data.datasets.youtube_faces.youtube_faces_dataset_builder import (
    Builder,
)

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared/data/youtube_faces"

needs_youtube_faces = pytest.mark.skipif(
    not (REAL / "aligned_images_DB.tar.gz").exists(),
    reason="needs YouTube Faces, "
    "../shared/data/youtube_faces/aligned_images_DB.tar.gz",
)

PEOPLE = ["Ann_Lee", "Bo_Ek", "Cy_Day", "Di_Roe", "Ed_Fox", "Flo_Ray"]
# By `printf Ann_Lee | sha256sum`, and so on.
EXPECTED_ORDER = ["Ann_Lee", "Bo_Ek", "Cy_Day", "Flo_Ray", "Ed_Fox", "Di_Roe"]


@functools.cache
def jpeg(colour, size=(16, 16)):
    buffer = io.BytesIO()
    mode = "L" if isinstance(colour, int) else "RGB"
    Image.new(mode, size, colour).save(buffer, "jpeg", quality=100)
    return buffer.getvalue()


def frame_name(person, video, number):
    folder = f"aligned_images_DB/{person}/{video}"
    return f"{folder}/aligned_detect_{video}.{number}.jpg"


def faces(sizes):
    """Makes frames whose red tells the video and whose green the number.

    `sizes` holds, for each person and video, how many frames there are.
    """
    return {
        frame_name(person, video, number): jpeg((20 * video, 5 * number, 128))
        for person, videos in sizes.items()
        for video, size in videos.items()
        for number in range(size)
    }


def packed(folder, files, names=None):
    """Writes the archive and returns the folder around it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "aligned_images_DB.tar.gz", "w:gz") as archive:
        for name in names or files:
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return folder


def unpacked(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def small_faces():
    return faces({person: {0: 2, 3: 1} for person in PEOPLE})


def load(tmp_path, manual_dir, **kwargs):
    return load_youtube_faces(
        data_dir=tmp_path / "tfds", manual_dir=manual_dir, **kwargs
    )


def people(images):
    return [images.group_names["person"][i] for i in images.group_ids("person")]


def videos(images):
    return [images.group_names["video"][i] for i in images.group_ids("video")]


def numbers(images):
    """Returns the number of each frame, by its colour."""
    return np.rint(images.images[:, 0, 0, 1] / 5).astype(int).tolist()


def shuffled(names):
    return sorted(
        names, key=lambda name: hashlib.sha256(name.encode()).digest()
    )


@contextlib.contextmanager
def complete_at(num_training, num_test, num_frames):
    """Makes a context in which so few people and frames are complete."""
    with (
        mock.patch.object(split, "_NUM_TRAINING_PEOPLE", num_training),
        mock.patch.object(split, "_NUM_TEST_PEOPLE", num_test),
        mock.patch.object(split, "_NUM_FRAMES", num_frames),
    ):
        yield


def assert_equal(first, second):
    for one, other in zip(first[:2], second[:2], strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        assert one.group_names == other.group_names
        for name in ("person", "video"):
            np.testing.assert_array_equal(one.labels[name], other.labels[name])


def assert_nothing_is_prepared(tmp_path):
    assert not list((tmp_path / "tfds").rglob("*tfrecord*"))
    assert not list((tmp_path / "tfds").rglob("*incomplete*"))


@pytest.mark.parametrize("store", [packed, unpacked])
def test_every_frame_keeps_its_person_video_and_place(tmp_path, store):
    parts = load(tmp_path, store(tmp_path / "manual", small_faces()))
    assert len(parts.train) + len(parts.test) == 18
    for images in parts[:2]:
        assert images.images.dtype == np.uint8
        assert images.image_shape == (40, 40, 3)
        assert images.group_names["person"] == dict(enumerate(PEOPLE))
        assert images.group_names["video"] == dict(
            enumerate(f"{name}/{video}" for name in PEOPLE for video in (0, 3))
        )
        expected = [
            (person, video, colour)
            for person in images.group_ids("person").tolist()
            for video, colour in (
                (2 * person, (0, 0, 128)),
                (2 * person, (0, 5, 128)),
                (2 * person + 1, (60, 0, 128)),
            )
        ]
        persons, ids, colours = map(list, zip(*expected, strict=True))
        np.testing.assert_array_equal(images.labels["person"], persons)
        np.testing.assert_array_equal(images.labels["video"], ids)
        np.testing.assert_allclose(  # JPEG rounds colours.
            images.images - np.array(colours)[:, None, None], 0, atol=2
        )


def test_order_of_the_archive_is_without_effect(tmp_path):
    files = small_faces()
    names = sorted(files)
    random.Random(0).shuffle(names)
    first = load(tmp_path / "1", packed(tmp_path / "manual1", files))
    second = load(tmp_path / "2", packed(tmp_path / "manual2", files, names))
    assert_equal(first, second)


def test_frames_and_videos_are_in_the_order_of_their_numbers(tmp_path):
    files = {
        frame_name(person, video, number): jpeg((20 * video, 5 * number, 0))
        for person in ("Ann_Lee", "Bo_Ek")
        for video in (10, 2)
        for number in (10, 9, 100 // 5, 2)
    }
    parts = load(tmp_path, packed(tmp_path / "manual", files))
    for images in parts[:2]:
        assert numbers(images) == [2, 9, 10, 20] * 2
        assert [name.split("/")[1] for name in videos(images)] == ["2", "10"]


def test_images_are_the_area_averages_of_the_central_half(tmp_path):
    rng = np.random.default_rng(0)
    # Smooth, as JPEG likes it; different in both directions and colours.
    page = np.repeat(
        np.repeat(rng.integers(0, 256, (10, 8, 3), np.uint8), 10, 0), 10, 1
    )
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "jpeg", quality=95, subsampling=0)
    files = {
        frame_name(person, 0, 0): buffer.getvalue()
        for person in ("Ann_Lee", "Bo_Ek")
    }
    with Image.open(buffer) as image:
        decoded = np.asarray(image, np.float64)
    centre = decoded[25:75, 20:60]
    expected = centre.reshape(25, 2, 10, 4, 3).mean(axis=(1, 3))
    parts = load(
        tmp_path, packed(tmp_path / "manual", files), image_size=(25, 10)
    )
    for images in parts[:2]:
        assert images.image_shape == (25, 10, 3)
        # Pillow rounds after each of the two axes.
        np.testing.assert_allclose(images.images[0], expected, atol=1.0)


@pytest.mark.parametrize(
    ("size", "box"), [((7, 5), (1, 1, 6, 4)), ((1, 2), (0, 0, 1, 2))]
)
def test_odd_sizes_keep_the_centre(tmp_path, size, box):
    page = Image.new("RGB", size, "red")
    page.paste("blue", box)
    buffer = io.BytesIO()
    page.save(buffer, "png")  # Exact; readers go by the content.
    files = {
        frame_name(person, 0, 0): buffer.getvalue()
        for person in ("Ann_Lee", "Bo_Ek")
    }
    parts = load(tmp_path, packed(tmp_path / "manual", files))
    for images in parts[:2]:
        np.testing.assert_array_equal(
            images.images, np.broadcast_to([0, 0, 255], (1, 40, 40, 3))
        )


def test_image_sizes_are_prepared_side_by_side(tmp_path):
    manual_dir = packed(tmp_path / "manual", small_faces())
    assert load(tmp_path, manual_dir).train.image_shape == (40, 40, 3)
    large = load(tmp_path, manual_dir, image_size=(64, 48))
    assert large.train.image_shape == (64, 48, 3)
    (manual_dir / "aligned_images_DB.tar.gz").unlink()
    assert load(tmp_path, None).train.image_shape == (40, 40, 3)
    assert_equal(load(tmp_path, None, image_size=[64, 48]), large)
    with pytest.raises(FileNotFoundError, match="28x28"):
        load(tmp_path, manual_dir, image_size=(28, 28))


@pytest.mark.parametrize("image_size", [40, (40,), (0, 40), (40.0, 40)])
def test_bad_image_size_is_rejected(tmp_path, image_size):
    with pytest.raises(ValueError, match="Received: image_size="):
        load(tmp_path, tmp_path, image_size=image_size)
    with pytest.raises(ValueError, match="Received: image_size="):
        Builder.builder_configs["40x40"].__class__(
            name="bad", image_size=image_size
        )


def test_grey_images_become_rgb(tmp_path):
    files = {
        frame_name(person, 0, 0): jpeg(77) for person in ("Ann_Lee", "Bo_Ek")
    }
    parts = load(tmp_path, packed(tmp_path / "manual", files))
    for images in parts[:2]:
        np.testing.assert_array_equal(
            images.images, np.full((1, 40, 40, 3), 77)
        )


def test_complete_archive_is_split_as_in_the_paper(tmp_path, caplog):
    # 3 frames of 5 people; one has no video of 3 and one has it later.
    sizes = {person: {0: 3, 1: 9} for person in PEOPLE}
    sizes["Bo_Ek"] = {0: 2, 1: 2}
    sizes["Cy_Day"] = {10: 3, 2: 7, 1: 2}
    files = faces(sizes)
    with complete_at(3, 2, 3), caplog.at_level(logging.WARNING):
        parts = load(tmp_path, packed(tmp_path / "manual", files))
    assert "not comparable" not in caplog.text
    assert parts.is_complete
    order = [name for name in shuffled(PEOPLE) if name != "Bo_Ek"]
    assert people(parts.train) == sorted(order[:3])
    assert people(parts.test) == sorted(order[3:])
    for images in parts[:2]:
        for person in people(images):
            group = next(
                index
                for index, name in images.group_names["person"].items()
                if name == person
            )
            of_person = images.with_groups("person", [group])
            if person == "Cy_Day":
                assert videos(of_person) == ["Cy_Day/2"]
                assert numbers(of_person) == [0, 2, 4]  # 7 * i // 3
            else:
                assert videos(of_person) == [f"{person}/0"]
                assert numbers(of_person) == [0, 1, 2]
    assert Builder(data_dir=tmp_path / "tfds").info.metadata["rule"] == "paper"


def test_more_people_than_the_papers_are_not_used(tmp_path):
    with complete_at(3, 2, 1):
        parts = load(tmp_path, packed(tmp_path / "manual", small_faces()))
    assert people(parts.train) == sorted(shuffled(PEOPLE)[:3])
    assert people(parts.test) == sorted(shuffled(PEOPLE)[3:5])


@pytest.mark.parametrize("constants", [(3, 4, 1), (3, 3, 3)])
def test_otherwise_all_frames_are_used_and_a_warning_says_so(
    tmp_path, caplog, constants
):
    with complete_at(*constants), caplog.at_level(logging.WARNING):
        parts = load(tmp_path, packed(tmp_path / "manual", small_faces()))
    (record,) = [r for r in caplog.records if "not comparable" in r.message]
    assert "aligned_images_DB.tar.gz" in record.message
    assert people(parts.train) == sorted(shuffled(PEOPLE)[:3])
    assert people(parts.test) == sorted(shuffled(PEOPLE)[3:])
    for images in parts[:2]:
        assert len(images) == 9
        assert len(videos(images)) == 6
    metadata = Builder(data_dir=tmp_path / "tfds").info.metadata
    assert metadata["rule"] == "all_frames"


@pytest.mark.parametrize(
    ("num_people", "num_training"),
    [(2, 1), (3, 2), (10, 6), (347, 208), (1594, 953)],
)
def test_people_are_apart_in_the_papers_proportion(num_people, num_training):
    frames = {
        (video := split.Video(f"P_{person}", number)): {0, 1}
        for person in range(num_people)
        for number in (1, 4)
    }
    del video
    parts = split.split_frames(frames)
    train = {video.person for video in parts.train}
    test = {video.person for video in parts.test}
    assert (len(train), len(test)) == (num_training, num_people - num_training)
    assert not train & test
    assert {**parts.train, **parts.test} == {v: [0, 1] for v in frames}


def test_published_numbers_are_those_of_a_complete_archive():
    frames = {
        split.Video(f"P_{person}", 3): set(range(60, 60 + 100))
        for person in range(1595)
    }
    parts = split.split_frames(frames)
    assert parts.rule == "paper"
    assert (len(parts.train), len(parts.test)) == (954, 641)
    for chosen in (*parts.train.values(), *parts.test.values()):
        assert chosen == [60 + 100 * i // 48 for i in range(48)]
    frames[split.Video("P_7", 3)] = set(range(47))
    assert split.split_frames(frames).rule == "all_frames"


def test_split_of_people_never_changes():
    assert shuffled(PEOPLE) == EXPECTED_ORDER
    frames = {split.Video(person, 0): {0} for person in PEOPLE}
    parts = split.split_frames(frames)
    train = {video.person for video in parts.train}
    assert train == set(EXPECTED_ORDER[:4])


def test_one_person_cannot_be_split(tmp_path):
    files = faces({"Ann_Lee": {0: 2}})
    with pytest.raises(ValueError, match=r"two people.*\['Ann_Lee'\] only"):
        load(tmp_path, packed(tmp_path / "manual", files))


def broken(corruption):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(
        buffer, "jpeg"
    )
    return {
        "empty": b"",
        "text": b"<html>not found</html>",
        "truncated": buffer.getvalue()[: len(buffer.getvalue()) // 2],
        "garbled": b"\xff" * 1000,
    }[corruption]


@pytest.mark.parametrize(
    "corruption", ["empty", "text", "truncated", "garbled"]
)
def test_unreadable_frames_are_named(tmp_path, corruption):
    files = small_faces()
    names = [frame_name("Bo_Ek", 0, 1), frame_name("Ann_Lee", 3, 0)]
    files |= dict.fromkeys(names, broken(corruption))
    with pytest.raises(ValueError, match="Received: 2 that") as error:
        load(tmp_path, packed(tmp_path / "manual", files))
    for name in names:
        assert f"\n  {name} (" in str(error.value)
    assert_nothing_is_prepared(tmp_path)


def test_files_that_may_not_be_read_are_named(tmp_path):
    manual_dir = unpacked(tmp_path / "manual", small_faces())
    name = frame_name("Ann_Lee", 0, 7)
    (manual_dir / name).symlink_to("gone.jpg")
    with pytest.raises(ValueError, match=r"Ann_Lee/0/aligned_detect_0\.7"):
        load(tmp_path, manual_dir)


@pytest.mark.parametrize(
    "corruption", ["half", "trailer", "empty", "text", "bit", "scrambled"]
)
def test_corrupt_archive_is_named_and_can_be_replaced(tmp_path, corruption):
    rng = np.random.default_rng(0)
    noise = {f"aligned_images_DB/noise{i}": rng.bytes(9999) for i in range(9)}
    manual_dir = packed(tmp_path / "manual", {**small_faces(), **noise})
    path = manual_dir / "aligned_images_DB.tar.gz"
    intact = path.read_bytes()
    middle = len(intact) // 2
    flipped = bytes([intact[middle] ^ 1])
    path.write_bytes(
        {
            "half": intact[:middle],
            "trailer": intact[:-4],
            "empty": b"",
            "text": b"<html>log in first</html>",
            "bit": intact[:middle] + flipped + intact[middle + 1 :],
            "scrambled": intact[:middle] + rng.bytes(middle),
        }[corruption]
    )
    with pytest.raises(
        ValueError, match=r"aligned_images_DB\.tar\.gz' cannot be read"
    ) as error:
        load(tmp_path, manual_dir)
    assert "Received: " in str(error.value)
    assert_nothing_is_prepared(tmp_path)
    path.write_bytes(intact)
    assert len(load(tmp_path, manual_dir).train) == 12


@pytest.mark.parametrize(
    ("size", "headers", "received"),
    [
        (
            8,
            {"GNU.sparse.map": "0,8", "GNU.sparse.size": str(7 * 2**30)},
            "a sparse file",
        ),
        (2**24 + 1, {}, "a file of 16,777,217"),
    ],
)
def test_sparse_and_large_files_in_an_archive_are_refused(
    tmp_path, size, headers, received
):
    name = frame_name("Ann_Lee", 9, 0)
    with tarfile.open(
        tmp_path / "aligned_images_DB.tar.gz", "w:gz", format=tarfile.PAX_FORMAT
    ) as archive:
        for good, image in small_faces().items():
            member = tarfile.TarInfo(good)
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))
        member = tarfile.TarInfo(name)
        member.size = size
        member.pax_headers = headers
        archive.addfile(member, io.BytesIO(bytes(size)))
    with pytest.raises(ValueError, match=rf"detect_9\.0.*Rec.*{received}"):
        load(tmp_path, tmp_path)


def test_large_frames_in_a_folder_are_refused(tmp_path):
    unpacked(tmp_path, small_faces())
    large = tmp_path / frame_name("Ann_Lee", 0, 0)
    large.write_bytes(bytes(2**24 + 1))
    with pytest.raises(ValueError, match=r"detect_0\.0.*a file of 16,777,217"):
        load(tmp_path, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_large_headers_in_an_archive_are_refused_unread(
    tmp_path, monkeypatch, kind
):
    sizes = []
    read = gzip.GzipFile.read

    def recorded(stream, size=-1):
        sizes.append(size)
        return read(stream, size)

    monkeypatch.setattr(gzip.GzipFile, "read", recorded)
    member = tarfile.TarInfo("././@LongLink")
    member.type = kind
    member.size = 300 << 20
    header = member.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)
    path = tmp_path / "aligned_images_DB.tar.gz"
    path.write_bytes(gzip.compress(header))
    with pytest.raises(ValueError, match="header of 314,572,800 bytes"):
        load(tmp_path, tmp_path)
    assert min(sizes) > 0
    assert max(sizes) <= 2**24 + 512


def test_archive_that_was_packed_half_is_named(tmp_path):
    path = packed(tmp_path / "m", small_faces()) / "aligned_images_DB.tar.gz"
    half = gzip.decompress(path.read_bytes())[: 512 * 11 + 100]
    path.write_bytes(gzip.compress(half))
    with pytest.raises(ValueError, match=r"\.tar\.gz' .* to its end"):
        load(tmp_path, tmp_path / "m")


@pytest.mark.parametrize("store", [packed, unpacked])
def test_another_layout_is_named(tmp_path, store):
    files = {
        "aligned_images_DB/Ann_Lee/0/frame0.jpg": jpeg(0),
        "aligned_images_DB/Ann_Lee/aligned_detect_0.1.jpg": jpeg(0),
    }
    with pytest.raises(
        ValueError, match=r"<person>/<video>/aligned_detect_<video>\.<frame>"
    ) as error:
        load(tmp_path, store(tmp_path / "manual", files))
    assert "Received: 2 other files, for example 'aligned" in str(error.value)


def test_long_names_in_an_archive_are_cut(tmp_path):
    files = {f"aligned_images_DB/{'x' * 2**20}": jpeg(0)}
    with pytest.raises(ValueError, match=r"Received: 1 other .*x\.\.\.'") as e:
        load(tmp_path, packed(tmp_path / "manual", files))
    assert len(str(e.value)) < 1000


def test_archive_of_another_folder_is_named(tmp_path):
    files = {
        name.replace("aligned_images_DB", "frame_images_DB"): content
        for name, content in small_faces().items()
    }
    with pytest.raises(ValueError, match="for example 'frame_images_DB/Ann"):
        load(tmp_path, packed(tmp_path / "manual", files))


def test_missing_archive_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path, tmp_path / "manual")
    for words in (
        str(tmp_path / "tfds" / "youtube_faces" / "40x40"),
        "'aligned_images_DB.tar.gz'",
        "http://www.cs.tau.ac.il/~wolf/ytfaces/",
        f"manual_dir={str(tmp_path / 'manual')!r}",
    ):
        assert words in str(error.value)


def test_manual_dir_is_by_default_that_of_tfds(tmp_path):
    packed(tmp_path / "tfds" / "downloads" / "manual", small_faces())
    assert len(load(tmp_path, None).train) == 12


def test_the_archive_comes_before_the_folder(tmp_path):
    files = small_faces()
    manual_dir = packed(tmp_path / "manual", files)
    unpacked(manual_dir, dict(list(files.items())[:7]))
    parts = load(tmp_path, manual_dir)
    assert len(parts.train) + len(parts.test) == 18


def test_files_that_are_no_frames_are_counted(tmp_path, caplog):
    files = small_faces()
    expected = load(tmp_path / "1", packed(tmp_path / "m1", files))
    others = {
        "aligned_images_DB/.DS_Store": b"",
        "aligned_images_DB/Ann_Lee/0/._aligned_detect_0.0.jpg": b"",
        "aligned_images_DB/Ann_Lee/3/aligned_detect_0.0.jpg": jpeg(0),
    }
    with caplog.at_level(logging.WARNING):
        parts = load(
            tmp_path / "2", packed(tmp_path / "m2", {**files, **others})
        )
    assert_equal(parts, expected)
    (record,) = [r for r in caplog.records if "Ignored" in r.message]
    assert "Ignored 3 files" in record.message


def test_paths_may_begin_with_the_current_folder_and_folders_be_listed(
    tmp_path, caplog
):
    files = small_faces()
    expected = load(tmp_path / "1", packed(tmp_path / "m1", files))
    unpacked(tmp_path / "m2", files)
    with tarfile.open(
        tmp_path / "m2" / "aligned_images_DB.tar.gz", "w:gz"
    ) as archive:
        archive.add(
            tmp_path / "m2" / "aligned_images_DB", "./aligned_images_DB"
        )
    with caplog.at_level(logging.WARNING):
        assert_equal(load(tmp_path / "2", tmp_path / "m2"), expected)
    assert "Ignored" not in caplog.text


def test_folders_of_people_may_be_links(tmp_path):
    files = small_faces()
    expected = load(tmp_path / "1", packed(tmp_path / "m1", files))
    person = unpacked(tmp_path / "m2", files) / "aligned_images_DB" / "Ann_Lee"
    person.rename(tmp_path / "elsewhere")
    person.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert_equal(load(tmp_path / "2", tmp_path / "m2"), expected)


def test_folders_that_cannot_be_listed_are_named(tmp_path, monkeypatch):
    unpacked(tmp_path, small_faces())

    def walk(top, *, onerror, **kwargs):
        onerror(PermissionError(13, "Permission denied", f"{top}/Ann_Lee"))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(ValueError, match=r"may read it.*Ann_Lee"):
        load(tmp_path, tmp_path)


def test_frames_that_are_packed_twice_are_read_once(tmp_path):
    files = small_faces()
    names = [*files, *list(files)[:5]]
    parts = load(tmp_path, packed(tmp_path / "manual", files, names))
    assert len(parts.train) + len(parts.test) == 18


@pytest.mark.parametrize("store", [packed, unpacked])
def test_names_may_hold_any_letters(tmp_path, store):
    names = {"Ann_Lee", "Penélope_Cruz", "Łech_王"}
    files = faces({name: {0: 1} for name in names})
    parts = load(tmp_path, store(tmp_path / "manual", files))
    assert {*people(parts.train), *people(parts.test)} == names


def test_data_directory_is_taken_from_the_environment(tmp_path, monkeypatch):
    manual_dir = packed(tmp_path / "manual", small_faces())
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    load_youtube_faces(manual_dir=manual_dir)
    assert (tmp_path / "elsewhere" / "youtube_faces" / "40x40").is_dir()


def test_data_directory_is_by_default_that_of_tfds(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "here"))
    with pytest.raises(FileNotFoundError) as error:
        load_youtube_faces()
    assert str(tmp_path / "here" / "youtube_faces") in str(error.value)
    manual_dir = tmp_path / "here" / "downloads" / "manual"
    assert f"manual_dir={str(manual_dir)!r}" in str(error.value)


def test_nothing_asks_the_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("The network was asked.")

    for name in ("create_connection", "getaddrinfo", "socket"):
        monkeypatch.setattr(socket, name, refuse)
    manual_dir = packed(tmp_path / "manual", small_faces())
    load(tmp_path, manual_dir)
    load(tmp_path, None)


def test_tensorflow_datasets_knows_the_builder(tmp_path):
    manual_dir = packed(tmp_path / "manual", small_faces())
    dataset = tfds.load(
        "youtube_faces",
        split="test",
        data_dir=tmp_path,
        download_and_prepare_kwargs={
            "download_config": tfds.download.DownloadConfig(
                manual_dir=manual_dir
            )
        },
    )
    rows = list(tfds.as_numpy(dataset))
    assert len(rows) == 6
    for row in rows:
        assert set(row) == {"image", "person", "video", "frame"}
        assert row["person"].decode() in EXPECTED_ORDER[4:]
        np.testing.assert_allclose(
            row["image"][0, 0],
            [20 * row["video"], 5 * row["frame"], 128],
            atol=2,
        )


def test_builder_is_documented(tmp_path):
    metadata = Builder.get_metadata()
    assert "954 people for training" in metadata.description
    assert "wolf2011face" in metadata.citation
    assert metadata.tags
    known = tfds.core.dataset_metadata.valid_tags()
    assert set(metadata.tags) <= set(known)
    instructions = Builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    assert "aligned_images_DB.tar.gz" in instructions
    builder = Builder(data_dir=tmp_path)
    with pytest.raises(AssertionError, match="Ask for access"):
        builder.download_and_prepare()


@needs_youtube_faces
def test_real_subset_has_three_frames_of_each_video(tmp_path):
    parts = load(tmp_path, REAL)
    assert len(people(parts.train)) == 208
    assert len(people(parts.test)) == 139
    assert not set(people(parts.train)) & set(people(parts.test))
    assert len(parts.train) + len(parts.test) == 3462
    assert len(videos(parts.train)) + len(videos(parts.test)) == 1154
    for images in parts[:2]:
        counts = np.unique(images.labels["video"], return_counts=True)[1]
        np.testing.assert_array_equal(counts, 3)
        # Skin is red before green before blue.
        red, green, blue = images.images.mean(axis=(0, 1, 2))
        assert red > green + 20 > blue + 20
