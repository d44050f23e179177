import struct
from pathlib import Path

import pytest

from generation_svc.gguf_header import GgufHeader, read_header
from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model
from tests.generation_svc.processes import GGUF


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def file_with(*pairs: bytes, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + b"".join(pairs)


def test_the_default_models_file_says_its_window_and_precision() -> None:
    assert read_header(Path(locate_model(GGUF))) == GgufHeader(context_window=8192, precision="gguf-q4_1", vocabulary=49152)


def test_pairs_of_every_kind_are_passed_over_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    pairs = (
        text("general.name") + struct.pack("<I", 8) + text("x"),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
        text("scores") + struct.pack("<IIQ3f", 9, 6, 3, 0, 1, 2),
        text("flag") + struct.pack("<I?", 7, True),
        text("llama.context_length") + struct.pack("<II", 4, 4096),
    )
    path.write_bytes(file_with(*pairs))
    assert read_header(path) == GgufHeader(context_window=4096, precision="gguf")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"PK\x03\x04" + bytes(40),
        file_with(version=99),
        file_with(text("general.name"))[:-2],
        file_with(b"\xff" * 8),
    ],
    ids=["empty", "cut", "another format", "another version", "cut in a pair", "absurd length"],
)
def test_what_is_no_whole_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(FailedPrecondition, match="GGUF"):
        read_header(path)
