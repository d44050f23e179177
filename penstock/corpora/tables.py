"""Documents of Parquet files, by pyarrow, which is asked for only where there is one."""

import importlib
from collections.abc import Iterator
from typing import Any, Final

from penstock.corpora.files import CorpusFile
from penstock.corpora.records import (
    ID_FIELDS,
    TEXT_FIELDS,
    VECTOR_FIELDS,
    BadFieldsError,
    BadRecord,
    CorpusRecord,
    ReadingOptions,
    record_of,
)
from penstock.errors import InvalidArgument

_BATCH_ROWS: Final = 256
_BUFFER_BYTES: Final = 2**20
"""Of a column that is being read; without it a column of a whole row group is held."""


def read_table(file: CorpusFile, options: ReadingOptions) -> Iterator[tuple[int, CorpusRecord | BadRecord]]:
    """Documents and bad rows, each with about the bytes of the file that have been read by then."""
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidArgument(f"{file.name}: reading Parquet needs pyarrow; install it (pip install pyarrow)") from error
    number = 0
    with file.open() as raw:
        try:
            table = parquet.ParquetFile(raw, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            if missing := _missing(table.schema_arrow.names):
                yield file.size_bytes, _bad(file, 0, missing)
                return
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                for fields in _rows(arrow, batch):
                    number += 1
                    done = file.size_bytes * number // max(1, table.metadata.num_rows)
                    yield done, _record(file, number, fields, options)
        except (arrow.ArrowException, OSError) as error:
            yield file.size_bytes, _bad(file, number, f"the rest of the file cannot be read: {error}")


def _missing(names: list[str]) -> str:
    for wanted in (ID_FIELDS, TEXT_FIELDS):
        if not set(wanted) & set(names):
            return f"it has no column {' or '.join(wanted)}; it has {', '.join(names)[:500]}"
    return ""


def _rows(arrow: Any, batch: Any) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries. Vectors stay bytes: as lists of Python's floats they would take twenty times the time."""
    names = [name for name in VECTOR_FIELDS if name in batch.schema.names and _is_list(arrow, batch.schema.field(name).type)]
    vectors = {name: _packed(arrow, batch.column(name)) for name in names}
    rows = batch.drop_columns(names).to_pylist() if names else batch.to_pylist()
    for at, row in enumerate(rows):
        yield row | {name: packed[at] for name, packed in vectors.items()}


def _is_list(arrow: Any, kind: Any) -> bool:
    listed = arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind)
    return bool(listed and (arrow.types.is_floating(kind.value_type) or arrow.types.is_integer(kind.value_type)))


def _packed(arrow: Any, column: Any) -> list[bytes | None]:
    """Each row's numbers as float32; None for a row that has none, or that has a hole."""
    packed: list[bytes | None] = []
    for row in range(len(column)):
        scalar = column[row]
        values = scalar.values.cast(arrow.float32(), safe=False) if scalar.is_valid else None
        whole = values is not None and values.null_count == 0
        packed.append(_bytes(values) if whole else None)
    return packed


def _bytes(values: Any) -> bytes:
    buffer = values.buffers()[1]
    start = 4 * values.offset
    return bytes(memoryview(buffer)[start : start + 4 * len(values)]) if buffer is not None else b""


def _record(file: CorpusFile, number: int, fields: dict[str, Any], options: ReadingOptions) -> CorpusRecord | BadRecord:
    try:
        return record_of(fields, file=file.name, number=number, options=options)
    except BadFieldsError as error:
        return _bad(file, number, str(error))


def _bad(file: CorpusFile, number: int, message: str) -> BadRecord:
    place = f"{file.name}:{number}" if number else file.name
    return BadRecord(file=file.name, number=number, place=place, message=message)
