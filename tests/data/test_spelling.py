import logging
import math
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vhe_tf._utils.spelling import spelling_key
from vhe_tf._utils.spelling import unified_names
from vhe_tf.data import from_columns
from vhe_tf.data import read_label_table

ALIKE = [
    ("é", unicodedata.normalize("NFD", "é")),
    ("가", unicodedata.normalize("NFD", "가")),
    ("beta", "be\u200bta"),  # zero width space
    ("beta", "\ufeffbeta"),  # byte order mark
    ("beta", "beta\u200e"),  # left-to-right mark
    ("beta", "be\u00adta"),  # soft hyphen
    ("❤", "❤\ufe0f"),  # variation selector
    ("two words", "two\u00a0words"),  # no-break space
    ("two words", "two\u3000words"),  # ideographic space
    ("two words", "two  words"),
    ("two words", "two \t words"),
    ("7", "7.0"),
    ("7", "7."),
    ("-7", "-7.00"),
    ("17", "\uff11\uff17"),  # full width
    ("ハ", "\uff8a"),  # half width
    ("ガ", "\uff76\uff9e"),
    ("a-b", "a\u2010b"),  # hyphen
    ("a-b", "a\u2011b"),  # no-break hyphen
    ("beta", "be\x00ta"),
    ("beta", "beta\x1b"),
]
DIFFERENT = [
    ("a", "A"),
    ("7", "7.5"),
    ("2", "\u00b2"),  # superscript
    ("R", "\u211d"),  # double-struck
    ("fi", "\ufb01"),  # ligature
    ("na", "NA."),
    ("é", "e"),
    ("1.10", "1.1"),
    ("v7", "v7.0"),
    ("\u0430", "a"),  # the Cyrillic letter
    ("of two\nlines", "of two lines"),
]
MISSING = ["NaN", "nan", "NA", "N/A", "n/a", "None", "null", "NULL", "<NA>"]
MISSING += ["NaT", "#N/A", " nan ", "NaN\u200b", "\u200b"]
MISSING += ["NAN", "N.A.", "n.a.", "#n/a", "#VALUE!", "#REF!"]
MISSING += ["<na>", "<null>", "(null)", "NaN\x00", "\x00"]


@pytest.mark.parametrize(("name", "other"), ALIKE)
def test_names_that_look_alike_are_one_group(name, other, caplog):
    with caplog.at_level(logging.WARNING):
        names = unified_names([other, "b", name], grouping="kind")
    assert names == [name, "b", name]
    (record,) = caplog.records
    assert ascii(name) in record.getMessage()
    assert ascii(other) in record.getMessage()


@pytest.mark.parametrize(("name", "other"), DIFFERENT)
def test_names_that_differ_stay_different(name, other, caplog):
    assert unified_names([name, other], grouping="kind") == [name, other]
    assert not caplog.records


@pytest.mark.parametrize("spelling", MISSING)
def test_spellings_of_missing_values_are_no_group(spelling, caplog):
    data = from_columns(
        np.zeros((3, 2, 2, 1), np.uint8), {"kind": ["b", spelling, "a"]}
    )
    np.testing.assert_array_equal(data.labels["kind"], [1, -1, 0])
    (record,) = caplog.records
    assert "'kind'" in record.getMessage()
    assert ascii(spelling.strip()) in record.getMessage()


@pytest.mark.parametrize("syllable", ["na", "Na", "nat", "Nat", "nine"])
def test_words_that_could_be_names_are_groups(syllable, caplog):
    assert unified_names([syllable], grouping="kind") == [syllable]
    assert not caplog.records


@pytest.mark.parametrize(
    "name", ["none", "NONE", "nil", "-", "?", "Unknown", "Null", "Nan"]
)
def test_doubtful_names_are_groups_with_a_warning(name, caplog):
    assert unified_names([name, "b"], grouping="kind") == [name, "b"]
    (record,) = caplog.records
    assert f"kind: read as groups: {name!r}." in record.getMessage()


def test_numbers_with_leading_zeros_are_warned_of(caplog):
    names = ["1", "01", "10", "001", "2", "x1"]
    assert unified_names(names, grouping="kind") == names
    (record,) = caplog.records
    assert "different groups: '001' and '01' and '1'." in record.getMessage()


@pytest.mark.parametrize("name", ["be\x00ta", "be\x1bta\x07", "be\x85ta"])
def test_names_have_no_control_characters(name):
    assert unified_names([name], grouping="kind") == ["beta"]


def test_empty_cells_are_no_groups_without_a_warning(caplog):
    names = ["", " ", "a", " b", "b"]
    assert unified_names(names, grouping="kind") == ["", "", "a", "b", "b"]
    assert not caplog.records


def test_missing_values_of_pandas_are_no_groups():
    missing = type("NAType", (), {})()
    data = from_columns(
        np.zeros((3, 2, 2, 1), np.uint8), {"kind": [2, missing, 1]}
    )
    np.testing.assert_array_equal(data.labels["kind"], [1, -1, 0])


def test_arrays_of_strings_of_missing_values_have_none():
    # What NumPy makes of a list with None and NaN.
    kinds = np.array(["b", None, math.nan, "a"], str)
    data = from_columns(np.zeros((4, 2, 2, 1), np.uint8), {"kind": kinds})
    np.testing.assert_array_equal(data.labels["kind"], [1, -1, -1, 0])


def test_a_table_merges_cells_and_columns_that_look_alike(tmp_path, caplog):
    for number in range(3):
        page = Image.new("L", (4, 4), 10 * number)
        page.save(tmp_path / f"{number}.png")
    path = tmp_path / "labels.csv"
    rows = ["image,ki\u200bnd", "0.png,1", "1.png,1.0", "2.png,null"]
    path.write_text("\n".join(rows), encoding="utf-8")
    data = read_label_table(path, image_size=(4, 4))
    np.testing.assert_array_equal(data.labels["kind"], [0, 0, -1])
    assert data.group_names == {"kind": {0: "1"}}
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "'1' and '1.0'" in told
    assert "'null'" in told
    path.write_text("image,kind,kind\u200b\n0.png,a,b", encoding="utf-8")
    with pytest.raises(ValueError, match="Received: 2 columns 'kind'"):
        read_label_table(path)


def test_unicode_marks_that_are_seen_are_kept():
    assert spelling_key("\u0915\u093f") == "\u0915\u093f"  # a vowel sign
    assert spelling_key("e\u0323\u0301") == unicodedata.normalize(
        "NFC", "e\u0323\u0301"
    )
