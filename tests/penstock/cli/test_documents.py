"""Documents from files."""

from pathlib import Path

import pytest

from penstock.cli.documents import read_documents
from penstock.errors import InvalidArgument


def test_a_json_line_is_a_document_and_the_rest_of_it_metadata(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 7, "contents": "some\u2028text", "title": "T"}\n\n{"id": "b", "text": "more"}\n', encoding="utf-8")
    first, second = read_documents([str(file)])
    assert (first.id, first.text, first.metadata) == ("7", "some\u2028text", {"title": "T"})
    assert (second.id, second.text, second.metadata) == ("b", "more", {})


def test_folders_are_read_in_a_stable_order_and_other_files_in_them_left_out(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "c.png"):
        (tmp_path / name).write_text(name)
    assert [document.text for document in read_documents([str(tmp_path)])] == ["a.txt", "b.md"]


def test_the_first_bad_line_is_told_with_its_file_and_number(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "a", "text": "fine"}\n{')
    with pytest.raises(InvalidArgument, match=r"a\.jsonl:2: it is not JSON"):
        list(read_documents([str(file)]))
