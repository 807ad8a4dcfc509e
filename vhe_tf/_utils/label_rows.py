"""The rows of a table of labels as stored. No image is read here."""

import csv
import pathlib
from typing import NamedTuple

from vhe_tf._utils.class_tree import IMAGE_SUFFIXES
from vhe_tf._utils.listing import listed
from vhe_tf._utils.spelling import spelling_key

__all__ = ["Row", "file_column", "image_files", "read_table"]

_FILE_COLUMN = "image"
_EXAMPLE = "'image,alphabet,character'"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        number: Integer. Number of the row as a spreadsheet counts; the header
            is row 1.
        cells: List of strings. The text of each cell, without surrounding
            spaces.
    """

    number: int
    cells: list[str]


def read_table(path: pathlib.Path) -> tuple[list[str], list[Row]]:
    """Returns the header and the other rows, all of the header's length."""
    rows = _read_rows(path)
    if not rows:
        raise ValueError(
            f"The table {str(path)!r} needs a header, such as {_EXAMPLE}, and "
            "a row for each image. Received: an empty file."
        )
    header = [spelling_key(cell) for cell in rows[0].cells]
    _check_header(path, header)
    for row in rows[1:]:
        if len(row.cells) != len(header):
            raise ValueError(
                f"Each row of {str(path)!r} needs {len(header)} cells, as the "
                "header has; leave cells empty where there is no label, and "
                "put names with commas in quotation marks. "
                f"Received: {len(row.cells)} cells in row {row.number}."
            )
    if len(rows) == 1:
        raise ValueError(
            f"The table {str(path)!r} needs a row for each image. "
            "Received: a header alone."
        )
    return header, rows[1:]


def _read_rows(path: pathlib.Path) -> list[Row]:
    """Returns the rows with content."""
    # Spreadsheets put a byte order mark in front; the csv module wants line
    # ends as they are.
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                Row(number, [cell.strip() for cell in cells])
                for number, cells in enumerate(csv.reader(file, strict=True), 1)
            ]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "The table of labels must be an existing CSV file. "
            f"Received: {str(path)!r}."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The table {str(path)!r} must be in UTF-8; save it again in that "
            f"encoding ('CSV UTF-8'). Received: {error}"
        ) from error
    except csv.Error as error:
        raise ValueError(
            f"The table {str(path)!r} is not a valid CSV file; look for "
            f"a quotation mark that is not closed. Received: {error}."
        ) from error
    return [row for row in rows if any(row.cells)]


def _check_header(path: pathlib.Path, header: list[str]) -> None:
    # A file name among the names of columns: the header was forgotten.
    files = [
        cell for cell in header if cell.lower().endswith(tuple(IMAGE_SUFFIXES))
    ]
    if files:
        raise ValueError(
            f"The first row of {str(path)!r} must be a header that names the "
            f"columns, such as {_EXAMPLE}. Received: {files[0]!r} in row 1."
        )
    if len(header) < 2:
        raise ValueError(
            f"The table {str(path)!r} needs a column of file names and at "
            f"least one of labels, separated by commas, such as {_EXAMPLE}. "
            f"Received: the header {header[0]!r}."
        )
    if "" in header:
        raise ValueError(
            f"Each column of {str(path)!r} needs a name in the first row; "
            "name the column or delete it. "
            f"Received: none for column {header.index('') + 1}."
        )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise ValueError(
            f"The columns of {str(path)!r} need different names; rename or "
            f"delete one. Received: {header.count(twice[0])} columns "
            f"{twice[0]!r}."
        )


def file_column(header: list[str]) -> int:
    """Returns the index of the column of file names."""
    return header.index(_FILE_COLUMN) if _FILE_COLUMN in header else 0


def image_files(
    path: pathlib.Path, rows: list[Row], *, column: int
) -> list[pathlib.Path]:
    """Returns the files that the rows of a table name.

    Args:
        path: Path. The table; files are relative to its folder.
        rows: List of `Row`s. The rows.
        column: Integer. Index of the column of file names.

    Raises:
        ValueError: If a row names none.
        FileNotFoundError: If one does not exist.
    """
    for row in rows:
        if not row.cells[column]:
            raise ValueError(
                f"Each row of {str(path)!r} needs the file name of an image; "
                f"fill it in or delete the row. Received: none in row "
                f"{row.number}."
            )
    files = [path.parent / row.cells[column] for row in rows]
    absent = [index for index, file in enumerate(files) if not file.is_file()]
    if absent:
        lines = [
            f"row {rows[index].number}: {rows[index].cells[column]!r}, which "
            f"would be {str(files[index])!r}"
            for index in absent
        ]
        raise FileNotFoundError(
            f"The table {str(path)!r} lists images that do not exist; file "
            "names are relative to the table's folder. "
            f"Received: {len(absent):,} such rows:{listed(lines)}"
        )
    return files
