"""Documents from files: JSON lines, plain text, Markdown."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from penstock.clients import Document
from penstock.errors import InvalidArgument

TEXT_SUFFIXES: Final = {".txt", ".md"}
SUFFIXES: Final = TEXT_SUFFIXES | {".jsonl"}


def read_documents(paths: Sequence[str]) -> Iterator[Document]:
    """Every document of the files, and of the files in the folders, in a stable order.

    A JSON line is {"id", "text"} or {"id", "contents"}, the rest of it metadata. A text file is one document, its path the id.
    Raises InvalidArgument with the file and the line.
    """
    for path in _files(paths):
        if path.suffix in TEXT_SUFFIXES:
            yield Document(id=str(path), text=_text(path), metadata={"path": str(path)})
        else:
            yield from _json_lines(path)


def _files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES)
        elif path.suffix in SUFFIXES:
            yield path
        else:
            message = f"{path}: only {', '.join(sorted(SUFFIXES))} can be read"
            raise InvalidArgument(message)


def _json_lines(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield _document(line, f"{path}:{number}")


def _document(line: str, place: str) -> Document:
    try:
        fields: dict[str, Any] = json.loads(line)
        text = fields.pop("text", None) or fields.pop("contents")
        return Document(id=str(fields.pop("id")), text=str(text), metadata=fields)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        message = f'{place}: a line must be {{"id": ..., "text": ...}}: {type(error).__name__}: {error}'
        raise InvalidArgument(message) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: {error}"
        raise InvalidArgument(message) from error
