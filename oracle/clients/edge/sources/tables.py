"""Tables: CSV, Parquet, and SQL through SQLAlchemy."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from oracle.clients.edge.errors import IdentifierRefused, SourceInvalid
from oracle.clients.edge.sources.rows import Rows, refuse_identifiers
from oracle.clients.edge.sources.settings import CsvSource, ParquetSource, SqlSource

Row = Mapping[str, Any]
Table = CsvSource | ParquetSource | SqlSource


def read(source: Table, folder: Path) -> Rows:
    """All rows of a table.

    Raises:
        SourceInvalid, IdentifierRefused: see `open.open_dataset`.
    """
    shown = (*source.columns, source.label, *source.bands)
    refuse_identifiers(shown, source.allow_identifiers)
    if source.id in shown:
        raise IdentifierRefused(source.id)
    if isinstance(source, CsvSource):
        where: object = folder / source.path
        rows: Iterable[Row] = _csv(folder / source.path)
    elif isinstance(source, ParquetSource):
        where = folder / source.path
        rows = _parquet(folder / source.path, source)
    else:
        where = "the query"
        rows = _sql(folder / source.url_file, source.query)
    found = Rows(str(where), source.columns, source.missing, source.bands)
    for number, row in enumerate(rows, start=1):
        place = f"{where}, record {number}"
        for column in (source.id, source.label, *source.columns, *source.bands):
            if column not in row:
                raise SourceInvalid(where, f"there is no column {column}")
        found.add(
            place,
            _text(row[source.id]),
            [_number(row[column], place, column) for column in source.columns],
            _label(row[source.label], source, place),
            tuple(_text(row[column]) or "missing" for column in source.bands),
        )
    return found


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _number(value: object, place: str, column: str) -> float | None:
    written = _text(value)
    if not written:
        return None
    try:
        return float(written)
    except ValueError:
        # Without the cause: it would show the value.
        raise SourceInvalid(place, f"column {column} is not a number") from None


def _label(value: object, source: Table, place: str) -> int | None:
    written = _text(value)
    if not written:
        return None
    if source.classes:
        if written not in source.classes:
            raise SourceInvalid(place, f"column {source.label} is none of the classes")
        return source.classes.index(written)
    number = _number(value, place, source.label)
    if number is None or not number.is_integer():
        raise SourceInvalid(place, f"column {source.label} is not a whole number")
    return int(number)


def _csv(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise SourceInvalid(path, "a column stands twice")
            for row in reader:
                if len(row) != len(header):
                    raise SourceInvalid(
                        path, f"line {reader.line_num} has {len(row)} of {len(header)} fields"
                    )
                yield dict(zip(header, row, strict=True))
    except OSError as error:
        raise SourceInvalid(path, error.strerror or "cannot be read") from error
    except UnicodeDecodeError:
        raise SourceInvalid(path, "not UTF-8") from None
    except csv.Error as error:
        raise SourceInvalid(path, f"not CSV: {error}") from error


def _parquet(path: Path, source: ParquetSource) -> Iterable[Row]:
    from pyarrow import ArrowException, parquet

    wanted = list(dict.fromkeys((source.id, source.label, *source.columns, *source.bands)))
    try:
        # One file and no directory; and only what is wanted is read at all.
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            there = [column for column in wanted if column in names]
            rows: list[Row] = file.read(columns=there).to_pylist()
    except (OSError, ArrowException) as error:
        raise SourceInvalid(path, f"not a readable Parquet file ({type(error).__name__})") from None
    return rows


def _sql(url_file: Path, query: str) -> list[Row]:
    try:
        url = url_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceInvalid(url_file, "holds no database URL") from error
    try:
        engine = create_engine(url)
        try:
            with engine.connect() as connection:
                return [dict(row) for row in connection.execute(text(query)).mappings()]
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        # Without the cause: it may show the password, or a record.
        raise SourceInvalid(
            "the query", f"the database refused it ({type(error).__name__})"
        ) from None
