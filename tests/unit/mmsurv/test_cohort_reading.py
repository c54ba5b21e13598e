"""Cells as they are written, and refusals that say where."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmsurv.cohort.reading import Layout, Table, read_table
from mmsurv.errors import CohortError, SplitError


def read(path: Path, text: tuple[str, ...] = ("id",), numbers: tuple[str, ...] = ("x",)) -> Table:
    return read_table(path, lambda columns: Layout(text=text, numbers=numbers))


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_ids_that_look_like_missing_values_or_numbers_stay_text(tmp_path: Path) -> None:
    table = read(write(tmp_path / "t.csv", "id,x\nNA,1\n007,2\nnull,3\n1e5,4\n"))
    assert table.text["id"] == ["NA", "007", "null", "1e5"]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_byte_order_mark_and_white_space_are_not_part_of_names(tmp_path: Path, name: str) -> None:
    content = "\ufeffid , x\r\n a ,1\r\n".encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    table = read(path)
    assert table.columns == ("id", "x")
    assert table.text["id"] == ["a"]


def test_missing_numbers_are_nan_and_numbers_are_exact(tmp_path: Path) -> None:
    table = read(write(tmp_path / "t.csv", "id,x\na,\nb,NA\nc,[Not Available]\nd,0.1234567890123456789\ne,NaN\n"))
    np.testing.assert_array_equal(table.numbers[:, 0], [np.nan, np.nan, np.nan, 0.1234567890123456789, np.nan])


def test_blank_rows_and_line_breaks_in_cells_count_as_a_spreadsheet_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'id,x\n"two\nlines",1\n\n,\nlast,oops\n')
    with pytest.raises(CohortError, match=r"t\.csv, row 5, column 'x': expected a number, found 'oops'"):
        read(path)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".tsv.gz"])
def test_delimiter_and_compression_follow_the_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    content = "id,x\na,1.5\n".replace(",", "\t" if "tsv" in suffix else ",").encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    table = read(path)
    assert (table.text["id"], table.numbers.tolist()) == (["a"], [[1.5]])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", r"the file is empty"),
        ("id,x\n", r"a header but no row"),
        ("id,x\na,1,2\n", r"row 2: expected 2 cells as in the header, found 3"),
        ("id,x\na,1\nb\n", r"row 3: expected 2 cells as in the header, found 1"),
        ("id,x,x\na,1,2\n", r"row 1: 'x' names both column 2 and column 3"),
        ("id,,x\na,1,2\n", r"row 1: column 2 has no name"),
        ("id,x\na,1_000\n", r"row 2, column 'x': expected a number, found '1_000'"),
        ("id,x\na,1\nb,inf\n", r"row 3, column 'x': the value is infinite"),
        ("id,x\na,1e999\n", r"row 2, column 'x': the value is infinite"),
        ('id,x\n"a,1\nb,2\n', r"not a delimited table"),
    ],
)
def test_refusals_name_the_place(tmp_path: Path, content: str, match: str) -> None:
    with pytest.raises(CohortError, match=match):
        read(write(tmp_path / "t.csv", content))


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id,x\nMüller,1\n".encode("latin-1"))
    with pytest.raises(CohortError, match="not UTF-8"):
        read(path)


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"id,x\n" + b"".join(b"a%d,%d\n" % (i, i * i) for i in range(999)))[:-30])
    with pytest.raises(CohortError, match="not a delimited table"):
        read(path)


def test_a_gzip_file_with_damaged_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    content = bytearray(gzip.compress(b"id,x\n" + b"".join(b"a%d,%d\n" % (i, i * i) for i in range(999))))
    content[10:200] = b"\xff" * 190  # after the header, so that it is gzip still and its blocks are not
    path.write_bytes(content)
    with pytest.raises(CohortError, match=r"t\.csv\.gz: not a delimited table \(Error -3"):
        read(path)


def test_a_file_that_is_no_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="cannot be read"):
        read(write(tmp_path / "t.csv.gz", "id,x\na,1\n"))


def test_a_missing_file_is_refused_in_the_class_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="cannot be read"):
        read_table(tmp_path / "none.csv", lambda columns: Layout(text=columns), error=SplitError)


def test_parquet_gives_the_same_cells_as_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["NA", "b"], "x": [0.1, np.nan], "y": pd.array([1, 2], dtype="int32")})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    tables = [read(tmp_path / name, numbers=("x", "y")) for name in ("t.parquet", "t.csv")]
    for table in tables:
        assert table.text["id"] == ["NA", "b"]
        assert table.row(1) == 3
        np.testing.assert_array_equal(table.numbers, [[0.1, 1], [np.nan, 2]])


def test_text_in_a_parquet_number_column_is_refused_with_its_row(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["a", "b"], "x": [None, "high"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(CohortError, match=r"row 3, column 'x': expected a number, found 'high'"):
        read(tmp_path / "t.parquet")


def test_floating_ids_in_parquet_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"id": [1.0, 2.0], "x": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(CohortError, match=r"column 'id': expected text, found the Parquet type double"):
        read(tmp_path / "t.parquet")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="not a Parquet table"):
        read(write(tmp_path / "t.parquet", "id,x\na,1\n"))
