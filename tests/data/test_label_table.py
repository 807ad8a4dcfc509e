import math
import re

import numpy as np
import pytest
from PIL import Image

from vhe_tf.data import GroupedImages
from vhe_tf.data import check_nested
from vhe_tf.data import from_columns
from vhe_tf.data import read_label_table

HEADER = "image,alphabet,character"


@pytest.fixture
def folder(tmp_path):
    """A folder of six images, the pixels of each hold its number."""
    (tmp_path / "scans").mkdir()
    for number in range(6):
        save(tmp_path / "scans" / f"{number}.png", grey(10 * number))
    return tmp_path


def grey(value):
    return np.full((4, 4), value, np.uint8)


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def write(folder, *lines, end="\n", encoding="utf-8"):
    path = folder / "labels.csv"
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def read(path, **options):
    return read_label_table(path, **({"image_size": (4, 4)} | options))


def blank(num_images):
    return np.zeros((num_images, 2, 2, 1), np.uint8)


# Tables -----------------------------------------------------------------------


def assert_is_the_example(data):
    assert data.images.dtype == np.uint8
    np.testing.assert_array_equal(data.images[:, 0, 0, 0], [30, 0, 10, 50])
    assert list(data.labels) == ["alphabet", "character"]
    np.testing.assert_array_equal(data.labels["alphabet"], [1, 0, 1, -1])
    np.testing.assert_array_equal(data.labels["character"], [2, 1, -1, 0])
    assert data.group_names == {
        "alphabet": {0: "Bengali", 1: "Greek"},
        "character": {0: "a, the first", 1: "ka", 2: "Ω"},
    }


EXAMPLE = [
    HEADER,
    "scans/3.png,Greek,Ω",
    "scans/0.png,Bengali,ka",
    "scans/1.png,Greek,",
    'scans/5.png,,"a, the first"',
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_are_images_and_columns_are_groupings(folder, end, encoding):
    path = write(folder, *EXAMPLE, end=end, encoding=encoding)
    assert_is_the_example(read(path))
    assert_is_the_example(read(str(path)))


def test_spaces_and_rows_without_content_do_not_count(folder):
    spaced = [line.replace(",", " ,  ") for line in EXAMPLE[:-1]]
    assert_is_the_example(
        read(write(folder, spaced[0], "", *spaced[1:], " , ,", EXAMPLE[-1]))
    )


def test_the_files_are_in_the_first_column_unless_one_is_named_image(folder):
    first = write(folder, "scan,kind", "scans/2.png,b", "scans/4.png,a")
    assert list(read(first).labels) == ["kind"]
    np.testing.assert_array_equal(read(first).images[:, 0, 0, 0], [20, 40])
    named = write(folder, "kind,image", "b,scans/2.png", "a,scans/4.png")
    assert list(read(named).labels) == ["kind"]
    np.testing.assert_array_equal(read(named).images[:, 0, 0, 0], [20, 40])
    np.testing.assert_array_equal(read(named).labels["kind"], [1, 0])


def test_a_cell_in_quotation_marks_may_hold_anything(folder):
    cell = 'of two\r\nlines, "quoted"'
    quoted = cell.replace('"', '""')
    data = read(write(folder, "image,kind", f'scans/2.png,"{quoted}"'))
    assert data.group_names["kind"] == {0: cell}


def test_a_byte_order_mark_is_no_part_of_a_name(folder):
    lines = ["kind,image", "b,scans/2.png", "a,scans/4.png"]
    assert list(read(write(folder, *lines, encoding="utf-8-sig")).labels) == [
        "kind"
    ]
    quoted = ['"image",kind', "scans/2.png,b"]
    read(write(folder, *quoted, encoding="utf-8-sig"))


def test_files_are_relative_to_the_table(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    data = read(write(folder, "image,kind", "scans/2.png,a"))
    assert data.images[0, 0, 0, 0] == 20
    absolute = str(folder / "scans" / "4.png")
    data = read(write(folder, "image,kind", f"{absolute},a"))
    assert data.images[0, 0, 0, 0] == 40


def test_images_are_read_as_asked_for(folder):
    Image.fromarray(np.full((9, 7, 3), [200, 100, 50], np.uint8)).save(
        folder / "colour.png"
    )
    path = write(folder, "image,kind", "colour.png,a")
    data = read(path, image_size=(5, 6), channels=3)
    assert data.image_shape == (5, 6, 3)
    np.testing.assert_array_equal(data.images[0, 2, 2], [200, 100, 50])
    inverted = read(path, channels=3, invert=True)
    np.testing.assert_array_equal(inverted.images[0, 2, 2], [55, 155, 205])
    assert read_label_table(path).image_shape == (28, 28, 1)


def test_a_group_of_one_image_is_a_group(folder):
    data = read(write(folder, "image,kind", "scans/2.png,only"))
    np.testing.assert_array_equal(data.group_ids("kind"), [0])


@pytest.mark.parametrize(
    ("lines", "received"),
    [
        ([], "Received: an empty file."),
        (["", ",,"], "Received: an empty file."),
        ([HEADER], "Received: a header alone."),
        (EXAMPLE[1:], "Received: 'scans/3.png' in row 1."),
        (["image", "scans/1.png"], "Received: the header 'image'."),
        (["image;kind", "scans/1.png;a"], "Received: the header 'image;kind'."),
        (["image,kind,", "scans/1.png,a,"], "Received: none for column 3."),
        (
            ["image,kind,kind ", "scans/1.png,a,b"],
            "Received: 2 columns 'kind'.",
        ),
        (
            [HEADER, "scans/1.png,a,b", "", "scans/2.png,a"],
            "Received: 2 cells in row 4.",
        ),
        (
            [HEADER, "scans/1.png,a,b,c"],
            "Received: 4 cells in row 2.",
        ),
        (
            [HEADER, '"scans/1.png",a,"of two\nlines"', "scans/2.png,a"],
            "Received: 2 cells in row 3.",
        ),
        ([HEADER, ",a,b"], "Received: none in row 2."),
        (
            ["image,kind,style", "scans/1.png,a,", "scans/2.png,b, "],
            "Received: 2 empty values.",
        ),
        (
            ["image,kind", 'scans/1.png,"a', "scans/2.png,b"],
            "Received: unexpected end",
        ),
    ],
)
def test_tables_that_are_none_are_refused(folder, lines, received):
    path = write(folder, *lines)
    with pytest.raises(ValueError, match=re.escape(received)):
        read(path)


def test_the_refused_table_or_column_is_named(folder):
    with pytest.raises(ValueError, match=r"labels\.csv' needs a header"):
        read(write(folder))
    lines = ["image,kind,style", "scans/1.png,a,", "scans/2.png,b,"]
    with pytest.raises(ValueError, match=r"column 'style' must have a label"):
        read(write(folder, *lines))


def test_other_encodings_are_refused(folder):
    path = write(folder, "image,kind", "scans/1.png,é", encoding="latin-1")
    with pytest.raises(ValueError, match=r"labels\.csv' must be in UTF-8"):
        read(path)


def test_an_absent_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received: .*absent\.csv'"):
        read(tmp_path / "absent.csv")


def test_absent_images_are_named_with_their_row(folder):
    lines = [HEADER, "scans/1.png,a,b", "scans/9.png,a,b", "8.png,a,b"]
    path = write(folder, *lines)
    with pytest.raises(FileNotFoundError, match=r"labels\.csv' lists") as error:
        read(path)
    told = str(error.value)
    assert "Received: 2 such rows:" in told
    assert "row 3: 'scans/9.png', which would be" in told
    assert "row 4: '8.png', which would be" in told


@pytest.mark.parametrize("num_absent", [20, 23])
def test_twenty_absent_images_are_named_and_the_others_counted(
    folder, num_absent
):
    lines = [f"absent{number}.png,a,b" for number in range(num_absent)]
    with pytest.raises(FileNotFoundError) as error:
        read(write(folder, HEADER, *lines))
    told = str(error.value)
    assert told.count("which would be") == 20
    assert ("and 3 more" in told) == (num_absent == 23)


def test_broken_images_are_named(folder):
    (folder / "broken.png").write_bytes(b"<html>not found</html>")
    path = write(folder, "image,kind", "scans/1.png,a", "broken.png,b")
    with pytest.raises(ValueError, match=r"broken\.png' cannot be read"):
        read(path)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_without_a_known_range_are_named(folder, dtype):
    Image.fromarray(np.ones((4, 4), dtype)).save(folder / "deep.tiff")
    path = write(folder, "image,kind", "scans/1.png,a", "deep.tiff,b")
    with pytest.raises(ValueError, match=r"deep\.tiff' cannot .* 8 or 16 bits"):
        read(path)


@pytest.mark.parametrize(
    "options", [{"image_size": (4, 0)}, {"channels": 2}, {"channels": "RGB"}]
)
def test_bad_arguments_are_refused(folder, options):
    ((name, value),) = options.items()
    with pytest.raises(
        ValueError, match=re.escape(f"Received: {name}={value!r}.")
    ):
        read(write(folder, *EXAMPLE), **options)


# Columns ----------------------------------------------------------------------


def test_columns_of_names_become_groupings():
    images = blank(5)
    data = from_columns(
        images,
        {
            "alphabet": ["Greek", "", None, " Greek ", "Bengali"],
            "drawer": np.array([20, 3, 3, 20, 100]),
        },
    )
    assert data.images is images
    np.testing.assert_array_equal(data.labels["alphabet"], [1, -1, -1, 1, 0])
    np.testing.assert_array_equal(data.labels["drawer"], [1, 2, 2, 1, 0])
    assert data.group_names == {
        "alphabet": {0: "Bengali", 1: "Greek"},
        "drawer": {0: "100", 1: "20", 2: "3"},
    }


@pytest.mark.parametrize("nan", [math.nan, np.nan, np.float32("nan"), None, ""])
def test_missing_values_are_missing_labels(nan):
    for values in (["b", nan, "a"], [2, nan, 1], [2.0, nan, 1.0]):
        data = from_columns(blank(3), {"kind": values})
        np.testing.assert_array_equal(data.labels["kind"], [1, -1, 0])
    assert data.group_names == {"kind": {0: "1", 1: "2"}}


def test_arrays_of_strings_and_of_floats_are_columns():
    data = from_columns(
        blank(2),
        {"kind": np.array(["b", "a"]), "style": np.array([7.0, np.nan])},
    )
    np.testing.assert_array_equal(data.labels["kind"], [1, 0])
    np.testing.assert_array_equal(data.labels["style"], [0, -1])
    assert data.group_names["style"] == {0: "7"}


@pytest.mark.parametrize(
    ("values", "received"),
    [
        (["a", "b"], "Received: 2 values for 3 images."),
        (["a", "b", "c", "d"], "Received: 4 values for 3 images."),
        ([None, "", math.nan], "Received: 3 empty values."),
        (["a", 0.5, "b"], "Received: 0.5 at index 1."),
        (["a", "b", math.inf], "Received: inf at index 2."),
        (["a", ("b",), "c"], "Received: ('b',) at index 1."),
    ],
)
def test_bad_columns_are_refused_by_name(values, received):
    with pytest.raises(ValueError, match=re.escape(received)) as error:
        from_columns(blank(3), {"fine": [1, 2, 3], "kind": values})
    assert "'kind'" in str(error.value)


def test_images_without_columns_are_refused():
    with pytest.raises(ValueError, match="at least one grouping"):
        from_columns(blank(3), {})


# Hierarchies ------------------------------------------------------------------


def test_groups_within_groups_are_nested():
    data = from_columns(
        blank(7),
        {
            "character": ["a", "b", "a", "c", None, "d", None],
            "alphabet": ["G", "G", "G", "L", "L", None, "G"],
        },
    )
    check_nested(data, "character", parent="alphabet")
    check_nested(data, "character", parent="character")


@pytest.mark.parametrize(
    ("alphabets", "received"),
    [
        (
            ["Greek", "Greek", "Latin", "Latin"],
            "Received: character 1 ('beta') with images in alphabet "
            "0 ('Greek') and in 1 ('Latin') (1 such groups).",
        ),
        (
            ["Greek", "Greek", None, "Latin"],
            "Received: character 1 ('beta') with images in alphabet "
            "no group at all and in 0 ('Greek') (1 such groups).",
        ),
        (
            ["Greek", "Latin", None, "Cyrillic"],
            "Received: character 1 ('beta') with images in alphabet "
            "no group at all and in 2 ('Latin') (1 such groups).",
        ),
    ],
)
def test_a_group_in_two_groups_is_not_nested(alphabets, received):
    data = from_columns(
        blank(4),
        {"character": ["alpha", "beta", "beta", "c"], "alphabet": alphabets},
    )
    with pytest.raises(ValueError, match=re.escape(received)):
        check_nested(data, "character", parent="alphabet")


def test_groups_without_names_are_told_by_their_ids():
    data = GroupedImages(
        blank(4),
        {
            "character": np.array([40, 40, 7, 7], np.uint64),
            "alphabet": np.array([3, 9, 9, 3]),
        },
    )
    received = "character 7 with images in alphabet 3 and in 9 (2 such groups)"
    with pytest.raises(ValueError, match=re.escape(received)):
        check_nested(data, "character", parent="alphabet")


@pytest.mark.parametrize("pair", [("kind", "style"), ("style", "kind")])
def test_unknown_groupings_are_named_beside_the_known_ones(pair):
    data = from_columns(blank(2), {"kind": ["a", "b"]})
    with pytest.raises(ValueError, match=r"'style'.*Received: .*\['kind'\]"):
        check_nested(data, pair[0], parent=pair[1])
