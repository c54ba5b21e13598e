"""Tables as users have them: CSV, TSV (gzipped or not) and Parquet, read without guessing.

Owns the bytes-to-cells step. Text stays text (an id of ``NA`` or ``007`` is kept as written), numbers are exact
doubles, and every refusal says the file, the row as a spreadsheet shows it (the header is row 1) and the column.
Shape suffixes: R rows, G number columns.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mmsurv.errors import CohortError, MmsurvError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "'--", "[not available]"})
"""Spellings of a missing value, in lower case; R, pandas and the GDC portal write these. Never applied to ids."""

ErrorType = type[MmsurvError]


@dataclass(frozen=True)
class Layout:
    """Which columns of a table to read, and as what; all others are skipped."""

    text: tuple[str, ...]
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The columns of one file that were asked for."""

    path: Path
    columns: tuple[str, ...]
    """Every column of the file, read or not."""
    row_numbers: np.ndarray
    """(R,) spreadsheet row of each record."""
    text: dict[str, list[str]]
    """Stripped cells of each text column, as written."""
    number_columns: tuple[str, ...]
    numbers: np.ndarray
    """(R, G) float64; NaN where the cell was blank or said that the value is missing; never infinite."""

    def row(self, index: int) -> int:
        """Spreadsheet row of the record at ``index``."""
        return int(self.row_numbers[index])

    def rows(self, indices: Sequence[int]) -> str:
        """Spreadsheet rows for a message, such as ``rows 3 and 7``."""
        numbers = [str(self.row(index)) for index in indices]
        return f"row {numbers[0]}" if len(numbers) == 1 else f"rows {', '.join(numbers[:-1])} and {numbers[-1]}"


def is_missing(cell: str) -> bool:
    """True for a blank cell or one of :data:`MISSING`, whatever its case."""
    return cell.strip().lower() in MISSING


def place(path: Path, row: int | None = None, column: str | None = None) -> str:
    """Where something stands, for messages: ``cohort.csv, row 7, column 'age'``."""
    parts = [str(path)]
    if row is not None:
        parts.append(f"row {row}")
    if column is not None:
        parts.append(f"column {column!r}")
    return ", ".join(parts)


def read_table(path: Path, choose: Callable[[tuple[str, ...]], Layout], *, error: ErrorType = CohortError) -> Table:
    """Read the columns that ``choose`` picks from the header.

    Args:
        path: ``.parquet``, or delimited UTF-8 text with a header, with or without a byte-order mark; ``.tsv`` is
            split at tabs, anything else at commas; ``.gz`` is decompressed.
        choose: called with the column names; may raise.
        error: the class of refusals.

    Raises:
        error: the file is missing, is not such a table, has a row of another length or two columns of one
            name, holds no row, or a number column holds text or an infinite value.
    """
    if path.suffix.lower() == ".parquet":
        table = _read_parquet(path, choose, error)
    else:
        table = _read_delimited(path, choose, error)
    if not len(table.row_numbers):
        raise error(f"{path}: the table has a header but no row.")
    infinite = np.argwhere(np.isinf(table.numbers))
    if len(infinite):
        index, column = infinite[0]
        where = place(path, table.row(index), table.number_columns[column])
        raise error(f"{where}: the value is infinite. Leave the cell blank if it is missing.")
    return table


def read_columns(path: Path) -> tuple[str, ...]:
    """Names of a table's columns; raises what :func:`read_table` does."""
    return read_table(path, lambda _columns: Layout(text=())).columns


def _read_delimited(path: Path, choose: Callable[[tuple[str, ...]], Layout], error: ErrorType) -> Table:
    delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    try:
        with _open_text(path) as file:
            records = _records(csv.reader(file, delimiter=delimiter, strict=True))
            header = next(records, None)
            if header is None:
                raise error(f"{path}: the file is empty.")
            columns = _checked_columns(path, [cell.strip() for cell in header[1]], error)
            return _collect(path, columns, choose(columns), records, error)
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 text ({cause}). Save the table as CSV in UTF-8.") from cause
    except (csv.Error, EOFError, zlib.error) as cause:
        raise error(f"{path}: not a delimited table ({cause}).") from cause
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror or cause}).") from cause


def _open_text(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _records(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Records with their spreadsheet row; blank rows are passed over, but counted."""
    for number, cells in enumerate(reader, start=1):
        if any(cells):
            yield number, cells


def _checked_columns(path: Path, columns: list[str], error: ErrorType) -> tuple[str, ...]:
    """Column names, each once. The first may be blank: a row index written without a name."""
    first: dict[str, int] = {}
    for position, name in enumerate(columns, start=1):
        if not name and position > 1:
            raise error(f"{path}, row 1: column {position} has no name. Name it or delete it.")
        if name in first:
            raise error(
                f"{path}, row 1: {name!r} names both column {first[name]} and column {position}. "
                "Keep one, or give them different names."
            )
        first[name] = position
    return tuple(columns)


def _collect(
    path: Path,
    columns: tuple[str, ...],
    layout: Layout,
    records: Iterator[tuple[int, list[str]]],
    error: ErrorType,
) -> Table:
    position = {name: index for index, name in enumerate(columns)}
    number_positions = [position[name] for name in layout.numbers]
    text: dict[str, list[str]] = {name: [] for name in layout.text}
    row_numbers: list[int] = []
    numbers: list[np.ndarray] = []
    for row, cells in records:
        if len(cells) != len(columns):
            raise error(
                f"{place(path, row)}: expected {len(columns)} cells as in the header, found {len(cells)}. "
                "Look for a stray or missing delimiter or quote."
            )
        row_numbers.append(row)
        for name, column in text.items():
            column.append(cells[position[name]].strip())
        if number_positions:
            numbers.append(_numbers(path, row, layout.numbers, [cells[i] for i in number_positions], error))
    matrix = np.stack(numbers) if numbers else np.empty((len(row_numbers), len(layout.numbers)))
    return Table(path, columns, np.array(row_numbers, dtype=np.int64), text, layout.numbers, matrix)


def _numbers(path: Path, row: int, names: Sequence[str], cells: list[str], error: ErrorType) -> np.ndarray:
    """One row of doubles. Tables are wide and mostly clean, so cells are looked at one by one only on trouble."""
    if "_" not in "".join(cells):  # float() takes 1_000 for a number; a table does not
        try:
            return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
        except ValueError:
            pass
    values = np.full(len(cells), np.nan)
    for index, cell in enumerate(cells):
        if is_missing(cell):
            continue
        value = parse_number(cell)
        if value is None:
            raise error(f"{place(path, row, names[index])}: expected a number, found {cell!r}.")
        values[index] = value
    return values


def parse_number(cell: str) -> float | None:
    """The number a cell spells, or None when it spells none."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _read_parquet(path: Path, choose: Callable[[tuple[str, ...]], Layout], error: ErrorType) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = _checked_columns(path, list(file.schema_arrow.names), error)
            layout = choose(columns)
            arrow = file.read(columns=[*layout.text, *layout.numbers])
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror or cause}).") from cause
    except pa.ArrowException as cause:
        raise error(f"{path}: not a Parquet table ({cause}).") from cause
    row_numbers = np.arange(arrow.num_rows, dtype=np.int64) + 2
    text = {name: _parquet_text(path, name, arrow.column(name), error) for name in layout.text}
    matrix = np.empty((arrow.num_rows, len(layout.numbers)))
    for index, name in enumerate(layout.numbers):
        matrix[:, index] = _parquet_numbers(path, name, arrow.column(name), error)
    return Table(path, columns, row_numbers, text, layout.numbers, matrix)


def _parquet_text(path: Path, name: str, column: Any, error: ErrorType) -> list[str]:
    import pyarrow.types as kinds

    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_integer(kind)):
        raise error(f"{place(path, column=name)}: expected text, found the Parquet type {column.type}.")
    return ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]


def _parquet_numbers(path: Path, name: str, column: Any, error: ErrorType) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.types as kinds

    kind = column.type
    if not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_null(kind)):
        cells = column.to_pylist()
        index = next((i for i, cell in enumerate(cells) if cell is not None), 0)
        found = repr(cells[index]) if cells else f"the Parquet type {kind}"
        raise error(f"{place(path, index + 2, name)}: expected a number, found {found} (Parquet type {kind}).")
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
