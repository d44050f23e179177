"""Documents of JSON lines, gzipped or not, in UTF-8. A bad line is told by its number."""

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import orjson

from penstock.corpora.files import CorpusFile
from penstock.corpora.records import BadFieldsError, BadRecord, CorpusRecord, ReadingOptions, record_of

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SKIP_BYTES: Final = 2**20


def read_json_lines(file: CorpusFile, options: ReadingOptions) -> Iterator[tuple[int, CorpusRecord | BadRecord]]:
    """Documents and bad lines, each with the bytes of the file that have been read by then."""
    number = 0
    with file.open() as raw:
        lines = gzip.GzipFile(fileobj=raw) if file.suffix.endswith(".gz") else raw
        try:
            for number, line in _lines(lines, options.line_bytes_max):
                if line is None:
                    message = f"the line is longer than {options.line_bytes_max} bytes; split the document"
                    yield raw.tell(), _bad(file, number, message)
                elif not line.isspace():
                    yield raw.tell(), _record(file, number, line, options)
        except (OSError, EOFError, zlib.error) as error:
            yield raw.tell(), _bad(file, number + 1, f"the rest of the file cannot be read: {error}")


def _lines(stream: "BinaryIO | gzip.GzipFile", bytes_max: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers; None for one that is too long, which is never in memory as a whole."""
    number = 0
    while line := stream.readline(bytes_max + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK) or b"\n"
        if len(line) <= bytes_max or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := stream.readline(_SKIP_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield number, None


def _record(file: CorpusFile, number: int, line: bytes, options: ReadingOptions) -> CorpusRecord | BadRecord:
    try:
        return record_of(orjson.loads(line), file=file.name, number=number, options=options)
    except BadFieldsError as error:
        return _bad(file, number, str(error))
    except orjson.JSONDecodeError as error:
        return _bad(file, number, _not_utf8(line) or f"it is not JSON: {error.msg} (character {error.pos})")


def _not_utf8(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8: byte {error.start} of the line (0x{line[error.start]:02x}) does not fit"
    return ""


def _bad(file: CorpusFile, number: int, message: str) -> BadRecord:
    return BadRecord(file=file.name, number=number, place=f"{file.name}:{number}", message=message)
