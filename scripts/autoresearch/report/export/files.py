"""The two tables as files: CSV that spreadsheets may open, and Parquet."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoresearch.errors import UsageError
from autoresearch.report.export.tables import Row

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, columns: Mapping[str, type], rows: Sequence[Row]) -> None:
    """RFC 4180 in UTF-8, None as an empty cell, numbers to their last digit.

    A text that a spreadsheet would take for a formula gets an apostrophe in front: descriptions are written
    by an agent, and ``=HYPERLINK(…)`` is one click away from the network.
    """
    page = io.StringIO(newline="")
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
    replace_file(path, page.getvalue().encode("utf-8", "replace"))


def write_parquet(path: Path, columns: Mapping[str, type], rows: Sequence[Row]) -> None:
    """Every column with its type, also where all its values are missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    page = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_plain(row) for row in rows], schema=schema), page)
    replace_file(path, page.getvalue())


def replace_file(path: Path, content: bytes) -> None:
    """Write ``path`` whole: a reader sees the old file or the new one. Its folder is made if it is missing.

    ``UsageError`` where no such file can be.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        told = f"{path} cannot be written: {error.strerror}."
        raise UsageError(told, hint="Name a file in a folder of yours.") from error


def _cell(value: object) -> object:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else str(value)
    return value


def _plain(row: Row) -> Row:
    return {name: str(value) if isinstance(value, str) else value for name, value in row.items()}
