import os
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_vhe
from tests.data.conftest import assert_same_images
from tests.data.conftest import assert_same_labels
from tests.processes import ROOT
from vhe_tf._utils import atomic_io
from vhe_tf.data import MISSING
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data import RecordedImages
from vhe_tf.data import datasets
from vhe_tf.data import write_records
from vhe_tf.data.datasets.records import recorded_images
from vhe_tf.data.datasets.records.recorded_images import CorruptRecordsError

FRAME_BYTES = 16  # of a record, around its data
NUM_IMAGES = 60
# About 260 bytes a record, so that there are several files.
SHARD_BYTES = 2000


def in_memory(shape=(9, 9, 2)):
    """Images of groups of five that are not stored in order."""
    generator = np.random.default_rng(0)
    character = np.arange(NUM_IMAGES) % 12
    style = np.where(generator.random(NUM_IMAGES) < 0.3, MISSING, character % 3)
    return GroupedImages(
        generator.integers(0, 256, (NUM_IMAGES, *shape), np.uint8),
        {"character": 2**40 + character, "style": style},
        {"style": {0: "plain", 2: "schön"}},
    )


@pytest.fixture
def folder(tmp_path):
    write_records(
        tmp_path / "written", in_memory(), max_shard_bytes=SHARD_BYTES
    )
    return tmp_path / "written"


@pytest.fixture(scope="module")
def kept_folder(tmp_path_factory):
    """The same records, for tests that do not corrupt them."""
    folder = tmp_path_factory.mktemp("kept")
    write_records(folder, in_memory(), max_shard_bytes=SHARD_BYTES)
    return folder


def shards(folder):
    return sorted(folder.glob("*.tfrecord"))


def record_sizes(path):
    """The bytes of each record of an intact file, frames included."""
    sizes = []
    with path.open("rb") as file:
        while length := file.read(8):
            sizes.append(int.from_bytes(length, "little") + FRAME_BYTES)
            file.seek(sizes[-1] - 8, 1)
    return sizes


def assert_same_episodes(one, other, *, num_steps=3):
    assert one.element_spec == other.element_spec
    for left, right in zip(
        one.take(num_steps), other.take(num_steps), strict=True
    ):
        tf.nest.map_structure(np.testing.assert_array_equal, left, right)


# There and back ---------------------------------------------------------------


def test_images_come_back_as_they_were_written(kept_folder):
    data = RecordedImages(kept_folder)
    expected = in_memory()
    assert_same_images(data.load(), expected)
    assert_same_labels(data, expected)
    assert len(shards(kept_folder)) > 3
    assert data.describe_group("style", 2) == "2 ('schön')"
    np.testing.assert_array_equal(data.group_ids("style"), [0, 1, 2])


def test_images_are_read_in_any_order(kept_folder):
    indices = np.random.default_rng(0).integers(0, NUM_IMAGES, 200)
    read = RecordedImages(kept_folder).reader()
    np.testing.assert_array_equal(
        read(tf.constant(indices)), in_memory().images[indices]
    )


def test_large_images_are_loaded_a_few_at_a_time(kept_folder, monkeypatch):
    monkeypatch.setattr(recorded_images, "_CHUNK_BYTES", 400)  # two images
    assert_same_images(RecordedImages(kept_folder).load(), in_memory())


def held_out(data):
    return datasets.hold_out_groups(data, "character", num_groups=4, seed=3)


@pytest.mark.parametrize(
    "keep",
    [
        lambda data: data.where(np.arange(NUM_IMAGES) % 7 == 2),
        lambda data: data.with_groups("style", [2, 0]),
        lambda data: data.where(np.arange(NUM_IMAGES) > 3).with_groups(
            "character", [2**40 + 5]
        ),
        lambda data: held_out(data)[0],
        lambda data: held_out(data)[1],
    ],
)
def test_a_choice_of_images_is_that_choice(kept_folder, keep):
    data = RecordedImages(kept_folder)
    chosen, expected = keep(data), keep(in_memory())
    assert 0 < len(chosen) < NUM_IMAGES
    assert_same_labels(chosen, expected)
    assert_same_images(chosen.load(), expected)
    assert len(data) == NUM_IMAGES


def test_no_choice_is_of_nothing(kept_folder):
    data = RecordedImages(kept_folder)
    received = f"Received: none of 60 in {str(kept_folder)!r}."
    with pytest.raises(ValueError, match=re.escape(received)):
        data.with_groups("style", [7])
    unlabelled = data.labels["style"] == MISSING
    with pytest.raises(ValueError, match=r"'style'.*Received: -1 for all"):
        data.where(unlabelled)


def test_records_are_examples_that_others_can_read(kept_folder):
    data = in_memory()
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label/character": tf.io.FixedLenFeature([], tf.int64),
        "label/style": tf.io.FixedLenFeature([], tf.int64),
    }
    paths = [str(path) for path in shards(kept_folder)]
    for index, record in enumerate(tf.data.TFRecordDataset(paths)):
        example = tf.io.parse_single_example(record, features)
        assert example["image"] == data.images[index].tobytes()
        for name, ids in data.labels.items():
            assert example[f"label/{name}"] == ids[index]


# Episodes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "augmentation"),
    [
        ({"resamples": False}, Augmentation(binarization="none")),
        (
            {"resamples": True, "support_size": (1, 3)},
            Augmentation(symmetries=8, affine_copies=3),
        ),
        (
            {"resamples": False, "group_latents": ["character"]},
            Augmentation(2, 2, "threshold", image_size=(4, 5)),
        ),
    ],
)
def test_episodes_are_those_of_memory(kept_folder, options, augmentation):
    """Groupings with and without missing labels."""
    one, other = (
        Episodes(
            data,
            **{"batch_size": 6, "support_size": 2, "seed": 5, **options},
            augmentation=augmentation,
        ).dataset(first_step=4)
        for data in (RecordedImages(kept_folder), in_memory())
    )
    assert_same_episodes(one, other)


def test_episodes_of_some_images_are_those_of_memory(kept_folder):
    one, other = (
        Episodes(
            datasets.hold_out_groups(data, "character", num_groups=5)[0],
            batch_size=4,
            support_size=2,
            resamples=True,
        ).dataset()
        for data in (RecordedImages(kept_folder), in_memory())
    )
    assert_same_episodes(one, other)


def test_the_input_path_holds_no_python(kept_folder):
    sampler = sampler_of(RecordedImages(kept_folder))
    serialized = tf.raw_ops.DatasetToGraphV2(
        input_dataset=sampler.dataset()._variant_tensor
    )
    graph = tf.compat.v1.GraphDef.FromString(serialized.numpy())
    ops = {
        node.op
        for function in graph.library.function
        for node in function.node_def
    }
    assert "TFRecordDatasetV2" in ops
    assert not {op for op in ops if "PyFunc" in op}


def sampler_of(data, **options):
    defaults = {
        "batch_size": 6,
        "support_size": 2,
        "resamples": True,
        "group_latents": ["character"],
        "augmentation": Augmentation(binarization="none"),
    }
    return Episodes(data, **(defaults | options))


# Memory -----------------------------------------------------------------------

LIMITED = """
import pathlib, re, resource, sys
from vhe_tf.data import Episodes, RecordedImages

few, many, how, room = sys.argv[1:]

def draw(data, num_steps):
    sampler = Episodes(
        data, batch_size=2, support_size=2, resamples=True
    )
    for episode in sampler.dataset().take(num_steps):
        pass

draw(RecordedImages(few), 5)  # starts the threads and fills the caches
status = pathlib.Path("/proc/self/status").read_text()
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", status)[1])
limit = used + int(room)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
data = RecordedImages(many)
draw(data.load() if how == "memory" else data, 200)
print("drawn", how)
"""


@pytest.mark.integration
@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="limits the memory of a process as Linux counts it",
)
def test_images_that_do_not_fit_in_memory_can_be_drawn(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    def examples(count):
        return ((image, {"character": index // 10}) for index in range(count))

    write_records(tmp_path / "few", examples(100))
    write_records(tmp_path / "many", examples(24_000))
    size = sum(path.stat().st_size for path in shards(tmp_path / "many"))
    room = 80 * 2**20
    assert size > 3 * room

    def run(how):
        # Threads have small stacks, and memory is counted as it is used.
        return subprocess.run(
            [
                *("sh", "-c", 'ulimit -s 512; exec "$@"', "sh"),
                *(sys.executable, "-c", LIMITED),
                *(str(tmp_path / "few"), str(tmp_path / "many"), how),
                str(room),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            check=False,
            timeout=300,
        )

    done = run("records")
    assert done.returncode == 0, done.stderr
    assert "drawn records" in done.stdout
    control = run("memory")
    assert control.returncode == 1, control.stdout
    assert "MemoryError" in control.stderr


# Writing ----------------------------------------------------------------------


def test_examples_are_written_as_they_come(tmp_path):
    data = in_memory()
    seen = []

    def examples():
        for index, image in enumerate(data.images):
            seen.append(len(shards(tmp_path)))
            yield image, {"character": index % 3}

    write_records(tmp_path, examples(), max_shard_bytes=SHARD_BYTES)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert len(set(seen)) > 3
    loaded = RecordedImages(tmp_path).load()
    np.testing.assert_array_equal(loaded.images, data.images)
    np.testing.assert_array_equal(
        loaded.labels["character"], np.arange(NUM_IMAGES) % 3
    )
    assert loaded.group_names == {}


def test_files_do_not_grow_beyond_their_limit(kept_folder):
    sizes = [path.stat().st_size for path in shards(kept_folder)]
    assert max(sizes) <= SHARD_BYTES
    for path, following in zip(
        shards(kept_folder)[:-1], shards(kept_folder)[1:], strict=True
    ):
        first = record_sizes(following)[0]
        assert path.stat().st_size + first > SHARD_BYTES


def test_an_image_larger_than_the_limit_has_a_file_of_its_own(tmp_path):
    data = in_memory()
    write_records(tmp_path, data, max_shard_bytes=1)
    assert len(shards(tmp_path)) == NUM_IMAGES
    assert_same_images(RecordedImages(tmp_path).load(), data)


def test_names_given_are_those_of_the_groups(tmp_path):
    names = {"style": {1: "other"}}
    write_records(tmp_path, in_memory(), group_names=names)
    assert RecordedImages(tmp_path).group_names == names


def test_a_folder_with_records_is_not_written_to(kept_folder):
    received = f"Received: {str(kept_folder)!r}, which has an index.npz."
    with pytest.raises(FileExistsError, match=re.escape(received)):
        write_records(kept_folder, in_memory())
    assert_same_images(RecordedImages(kept_folder).load(), in_memory())


IMAGE = np.zeros((3, 4, 1), np.uint8)


@pytest.mark.parametrize(
    ("examples", "received"),
    [
        ([], "Received: none."),
        ([(IMAGE[..., 0], {"a": 1})], "Received: (3, 4)."),
        ([([[[0]]], {"a": 1})], "Received: list."),
        ([(IMAGE[:0], {"a": 1})], "Received: (0, 4, 1)."),
        ([(IMAGE, {})], "Received: {}."),
        (
            [(IMAGE / 255, {"a": 1})],
            "Received: float64 of shape (3, 4, 1) as image 0.",
        ),
        (
            [(IMAGE, {"a": 1}), (IMAGE[1:], {"a": 1})],
            "Received: uint8 of shape (2, 4, 1) as image 1.",
        ),
        (
            [(IMAGE, {"a": 1}), (IMAGE, {"a": 1, "b": 2})],
            "Received: ['a', 'b'] with image 1.",
        ),
        ([(IMAGE, {"a": 1}), (IMAGE, {})], "Received: [] with image 1."),
        ([(IMAGE, {"a": -2})], "Received: -2 with image 0."),
        ([(IMAGE, {"a": 1.0})], "Received: 1.0 with image 0."),
        ([(IMAGE, {"a": 2**63})], f"Received: {2**63} with image 0."),
        ([(IMAGE, {"a": 1, "b": -1})] * 3, "Received: -1 for all 3 images."),
    ],
)
def test_what_cannot_be_recorded_is_refused(tmp_path, examples, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        write_records(tmp_path, iter(examples))
    with pytest.raises(FileNotFoundError):
        RecordedImages(tmp_path)


def test_images_of_floating_point_are_refused(tmp_path):
    data = datasets.ready(in_memory(), "colour")
    received = "Received: images.dtype=float32."
    with pytest.raises(ValueError, match=re.escape(received)):
        write_records(tmp_path, data)


def test_a_file_that_is_not_as_it_was_written_is_told(tmp_path):
    def examples():
        yield IMAGE, {"a": 1}
        with shards(tmp_path)[0].open("ab") as file:
            file.write(1000 * b"of another")
        yield IMAGE, {"a": 1}

    with pytest.raises(
        atomic_io.NotWrittenError, match=r"must be of \d+ bytes"
    ):
        write_records(tmp_path, examples())


def test_a_writer_that_was_killed_leaves_no_data_set(tmp_path):
    code = (
        "import os, signal, sys; import numpy as np\n"
        "from vhe_tf.data import write_records\n"
        "def examples():\n"
        "    for index in range(60):\n"
        "        if index == 50: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield np.zeros((9, 9, 2), np.uint8), {'character': index}\n"
        f"write_records(sys.argv[1], examples(), max_shard_bytes={SHARD_BYTES})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False
    )
    assert done.returncode == -9
    left = shards(tmp_path)
    assert len(left) > 3
    with pytest.raises(
        FileNotFoundError, match="that was interrupted"
    ) as error:
        RecordedImages(tmp_path)
    assert repr(str(tmp_path)) in str(error.value)
    # Fewer files than were left.
    write_records(tmp_path, in_memory().with_groups("style", [1]))
    assert len(shards(tmp_path)) == 1
    assert len(os.listdir(tmp_path)) == 2


# Corruption -------------------------------------------------------------------


def flip(path, byte, bit=3):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


# Bytes of a record: its length, a checksum of that, its data, a checksum.
FLIPPED = {
    "length": 0,
    "high byte of the length": 7,
    "checksum of the length": 9,
    "first byte": 12,
    "pixels": 100,
    "checksum": -1,
}


def flip_record(folder, shard, number, what="pixels"):
    with np.load(folder / "index.npz") as index:
        record = index["shard_starts"][shard] + number
        begin = index["offsets"][record]
        # No record that is corrupted here is the last of its file.
        end = index["offsets"][record + 1]
    path = shards(folder)[shard]
    byte = FLIPPED[what]
    flip(path, (end if byte < 0 else begin) + byte)
    return path


@pytest.mark.parametrize("what", FLIPPED)
def test_a_flipped_bit_is_named_by_file_and_record(folder, what):
    path = flip_record(folder, 2, 3, what)
    message = f"Record 3 of {path} cannot be read: "
    data = RecordedImages(folder)
    with pytest.raises(CorruptRecordsError, match=f"^{re.escape(message)}"):
        data.load()
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=re.escape(message)
    ):
        for _ in sampler_of(data).dataset().take(40):
            pass


def test_the_first_corrupt_record_is_named_wherever_it_is(folder):
    read = RecordedImages(folder).reader()
    sizes = [len(record_sizes(path)) for path in shards(folder)]
    for index in (0, 2, 5):
        flip_record(folder, 0, index)
    for indices, message in [
        ([0, 1], "Record 0 of"),
        ([1, 0, 2], "Record 0 of"),
        ([3, 4, 5], "Record 5 of"),
        ([sizes[0], 2, 1, 5], "Record 2 of"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            read(tf.constant(indices))
    # Other records are none the worse.
    intact = [1, 3, sizes[0], 59]
    np.testing.assert_array_equal(
        read(tf.constant(intact)), in_memory().images[intact]
    )


def test_a_file_with_any_name_is_named(tmp_path):
    folder = tmp_path / "Bücher's [1] \\303"
    write_records(folder, in_memory())
    path = flip_record(folder, 0, 7)
    with pytest.raises(CorruptRecordsError) as error:
        RecordedImages(folder).load()
    assert str(error.value).startswith(f"Record 7 of {path} cannot be read: ")


def test_a_file_of_another_size_is_named_at_once(folder):
    path = shards(folder)[1]
    size = path.stat().st_size
    for other in (size - 1, size + 5, 0):
        os.truncate(path, other)
        with pytest.raises(CorruptRecordsError) as error:
            RecordedImages(folder)
        assert f"{str(path)!r} must " in str(error.value)
        assert f" {size:,} bytes; " in str(error.value)
        assert str(error.value).endswith(f"Received: {other:,} bytes.")
    path.unlink()
    with pytest.raises(CorruptRecordsError, match="Received: no file"):
        RecordedImages(folder)


def test_a_file_that_is_deleted_is_named(folder):
    data = RecordedImages(folder)
    path = shards(folder)[1]
    read = data.reader()
    path.unlink()
    with pytest.raises(tf.errors.InvalidArgumentError, match=str(path)):
        read(tf.range(NUM_IMAGES))


def test_training_stops_at_a_corrupt_record(tmp_path):
    folder = tmp_path / "written"
    write_records(folder, in_memory((8, 8, 1)))
    path = flip_record(folder, 0, 31)
    keras.utils.set_random_seed(0)
    model = tiny_vhe()
    model.compile("adam")
    sampler = sampler_of(
        RecordedImages(folder),
        augmentation=Augmentation(),
    )

    message = f"^Record 31 of {re.escape(str(path))} cannot be read: restore"
    with pytest.raises(CorruptRecordsError, match=message):
        model.fit(sampler, epochs=2, steps_per_epoch=10, verbose=0)


def test_other_errors_are_not_taken_for_corruption():
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"),
        recorded_images.name_corrupt_records(),
    ):
        tf.debugging.Assert(False, ["of another kind"])


# The index --------------------------------------------------------------------


def test_a_folder_without_index_is_no_data_set(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=r"needs an index\.npz"):
            RecordedImages(folder)


def _garbage(index):
    index.write_bytes(np.random.default_rng(0).bytes(5000))


def _empty(index):
    index.write_bytes(b"")


def _cut(index):
    os.truncate(index, index.stat().st_size // 2)


def _array(index):
    with index.open("wb") as file:
        np.save(file, np.arange(5))


def _others(index):
    np.savez(index, images=np.arange(5))


def _pickled(index):
    np.savez(index, about=np.array([{"version": 1}], object))


def _without_offsets(index):
    with zipfile.ZipFile(index) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    del parts["offsets.npy"]
    with zipfile.ZipFile(index, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "spoil",
    [_garbage, _empty, _cut, _array, _others, _pickled, _without_offsets],
)
def test_an_index_that_is_none_is_refused(folder, spoil):
    spoil(folder / "index.npz")
    message = f"{str(folder / 'index.npz')!r} is not an intact"
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        RecordedImages(folder)
    assert "again. Received: " in str(error.value)


def test_a_flipped_bit_in_the_index_never_passes(folder):
    index = folder / "index.npz"
    content = index.read_bytes()
    expected = in_memory()
    for byte in range(0, len(content), 37):
        flip(index, byte)
        try:
            data = RecordedImages(folder)
        except (ValueError, CorruptRecordsError):
            pass
        else:  # in what nobody reads, such as the time of day
            assert_same_images(data.load(), expected)
        index.write_bytes(content)


def test_an_index_of_another_version_is_refused(folder):
    index = folder / "index.npz"
    with np.load(index) as archive:
        arrays = dict(archive)
    about = arrays["about"].tobytes().replace(b'"version": 1', b'"version": 7')
    np.savez(index, **arrays | {"about": np.frombuffer(about, np.uint8)})
    with pytest.raises(ValueError, match=r"index.npz.*Received: .*version 7"):
        RecordedImages(folder)


# Data sets of others ----------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        ("cut", "truncated record at .*"),
        ("flipped", "corrupted record at [0-9]+"),
        ("gone", ".*omniglot.tfrecord; No such file or directory"),
    ],
)
def test_corrupt_files_that_others_wrote_are_named(spoil, what, tmp_path):
    path = tmp_path / "omniglot.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in range(3):
            writer.write(b"%d" % index * 50)

    def read():
        dataset = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        return list(recorded_images.read_whole(dataset, tmp_path))

    assert [data[:1] for data in read()] == [b"0", b"1", b"2"]
    data = bytearray(path.read_bytes())
    if spoil == "cut":
        data = data[:-9]
    else:
        data[90] ^= 1
    path.write_bytes(data)
    if spoil == "gone":
        path.unlink()
    with pytest.raises(
        CorruptRecordsError,
        match=f"A file in {re.escape(str(tmp_path))} is corrupt or missing "
        rf"\({what}\)\. Delete",
    ):
        read()
