"""What a GGUF file says of its model, read from the start of the file without loading it.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, number of tensors, number of
key-value pairs, then the pairs. All little-endian.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from penstock.errors import FailedPrecondition

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING: Final = 8
_ARRAY: Final = 9
_FORMATS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_PAIRS_MAX: Final = 10_000
_FILE_TYPES: Final = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 12: "q3_k_m", 14: "q4_k_s",
    15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 32: "bf16",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """`context_window` is in tokens, 0 where the file does not say, as is `vocabulary`; `precision` such as "gguf-q4_1"."""

    context_window: int
    precision: str
    vocabulary: int = 0


def read_header(path: Path) -> GgufHeader:
    """Raises FailedPrecondition when the file is no GGUF or is cut off."""
    window, file_type, vocabulary = 0, -1, 0
    try:
        with path.open("rb") as file:
            for _ in range(_count_of_pairs(file, path)):
                key = _read_string(file)
                value = _read_value(file, _unpack(file, "I"))
                if key.endswith(".context_length") and isinstance(value, int):
                    window = value
                elif key == "general.file_type" and isinstance(value, int):
                    file_type = value
                elif key == "tokenizer.ggml.tokens" and isinstance(value, int):
                    vocabulary = value
                if window and file_type >= 0 and vocabulary:
                    break
    except (struct.error, KeyError, UnicodeDecodeError, OverflowError) as error:
        message = f"{path} is no readable GGUF file, or only a part of one; download it again"
        raise FailedPrecondition(message) from error
    precision = f"gguf-{_FILE_TYPES[file_type]}" if file_type in _FILE_TYPES else "gguf"
    return GgufHeader(context_window=window, precision=precision, vocabulary=vocabulary)


def _count_of_pairs(file: BinaryIO, path: Path) -> int:
    magic, version = file.read(4), _unpack(file, "I")
    if magic != _MAGIC or version not in _VERSIONS:
        message = f"{path} is not a GGUF file of version {' or '.join(map(str, _VERSIONS))}"
        raise FailedPrecondition(message)
    _unpack(file, "Q")
    return min(_unpack(file, "Q"), _PAIRS_MAX)


def _read_value(file: BinaryIO, kind: int) -> object:
    """A value; of an array its length."""
    if kind == _STRING:
        return _read_string(file)
    if kind != _ARRAY:
        return _unpack(file, _FORMATS[kind])
    item, count = _unpack(file, "I"), _unpack(file, "Q")
    if item == _STRING:
        for _ in range(count):
            file.seek(_unpack(file, "Q"), 1)
    else:
        file.seek(count * struct.calcsize(_FORMATS[item]), 1)
    return count


def _read_string(file: BinaryIO) -> str:
    return file.read(_unpack(file, "Q")).decode()


def _unpack(file: BinaryIO, code: str) -> int:
    value: int = struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]
    return value
