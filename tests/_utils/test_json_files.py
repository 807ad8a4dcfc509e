import pytest

from vhe_tf._utils.json_files import read_json
from vhe_tf._utils.json_files import write_json

VALUES = {"step": 12, "best": -1.25, "sizes": (1, 2), "of": {"ü": None}}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "state.json"
    write_json(path, VALUES)
    assert read_json(path) == {**VALUES, "sizes": [1, 2]}


def test_any_flipped_bit_is_noticed(tmp_path):
    """Unless it is in a space, or makes the key of the checksum another."""
    path = tmp_path / "state.json"
    write_json(path, {"step": 12, "best": -1.25})
    data = path.read_bytes()
    end = data.index(b'"checksum"')
    for place in range(end):
        if data[place] in b" \n":
            continue
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(ValueError, match=r"state\.json is corrupt"):
                read_json(path)


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"null", b"{", b"\xff{}"])
def test_other_forms_are_named(text, tmp_path):
    path = tmp_path / "state.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"state\.json is corrupt"):
        read_json(path)


def test_a_file_cut_anywhere_is_named(tmp_path):
    path = tmp_path / "state.json"
    write_json(path, VALUES)
    data = path.read_bytes()
    for size in range(len(data) - 2):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"state\.json is corrupt"):
            read_json(path)


def test_a_file_without_a_checksum_is_read(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"step": 12}')
    assert read_json(path) == {"step": 12}
