"""Corpora in files: what is read, what is told, what is never in memory."""

import array
import datetime
import gzip
import sys
import tracemalloc
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.corpora import BadRecord, Corpus, CorpusRecord, ReadingOptions
from penstock.corpora.files import find_files
from penstock.errors import InvalidArgument


def read(*paths: Path | str, options: ReadingOptions | None = None) -> list[CorpusRecord | BadRecord]:
    with Corpus.of([str(path) for path in paths], options=options) as corpus:
        found = list(corpus)
        assert corpus.bytes_read == corpus.bytes_total
        return found


def told(found: list[CorpusRecord | BadRecord]) -> list[str]:
    return [each.id if isinstance(each, CorpusRecord) else f"{Path(each.place).name} {each.message}" for each in found]


def lines(path: Path, *each: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in each))
    return path


def test_a_json_line_is_a_document_and_the_rest_of_it_metadata(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        '{"id": 7, "contents": "some\u2028text", "title": "T"}',
        "",
        '{"_id": "b", "text": "more", "metadata": {"k": [1, null]}, "n": 2}\r',
        '{"doc_id": "c", "content": "last", "vector": [1, 2.5]}',
    )
    first, second, third = read(file)
    assert first == CorpusRecord(
        file=str(file), number=1, place=f"{file}:1", id="7", text="some\u2028text", metadata={"title": "T"}
    )
    assert isinstance(second, CorpusRecord)
    assert (second.place, second.metadata) == (f"{file}:3", {"k": [1, None], "n": 2})
    assert isinstance(third, CorpusRecord)
    assert third.vector == array.array("f", [1, 2.5]).tobytes()


def test_a_title_is_put_before_the_text_on_request(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", '{"_id": "a", "title": "T", "text": "x"}', '{"_id": "b", "title": "", "text": "x"}')
    records = read(file, options=ReadingOptions(join_title=True))
    assert [record.text for record in records if isinstance(record, CorpusRecord)] == ["T\nx", "x"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ('{"id": "a"}', "no text"),
        ('{"text": "a"}', "no id"),
        ('{"id": true, "text": "a"}', "no id"),
        ('{"id": "", "text": "a"}', "no id"),
        ('{"id": "a", "text": 3}', "no text"),
        ('{"id": "a", "text": " "}', "nothing in it"),
        ('{"id": "a", "text": "x", "vector": ["y"]}', "not a list of numbers"),
        ('{"id": "a", "text": NaN}', "not JSON"),
        (b'{"id": "a", "text": "\xff"}', "not UTF-8: byte 21"),
        ("[" * 100_000, "not JSON"),
        ('{"id": "first", "text": "again"}', "a.jsonl:1 before"),
    ],
)
def test_a_bad_line_in_the_middle_is_told_with_its_number_and_the_rest_goes_on(
    tmp_path: Path, line: str | bytes, says: str
) -> None:
    file = lines(tmp_path / "a.jsonl", '{"id": "first", "text": "x"}', line, '{"id": "last", "text": "x"}')
    first, bad, last = read(file)
    assert told([first, last]) == ["first", "last"]
    assert isinstance(bad, BadRecord)
    assert (bad.number, bad.place) == (2, f"{file}:2")
    assert says in bad.message


def test_a_byte_order_mark_and_an_empty_file_are_no_documents(tmp_path: Path) -> None:
    marked = lines(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"id": "a", "text": "x"}')
    only_mark = lines(tmp_path / "b.jsonl", b"\xef\xbb\xbf")
    assert told(read(marked, only_mark, lines(tmp_path / "c.jsonl"))) == ["a"]


def test_a_line_that_is_too_long_is_told_and_never_held(tmp_path: Path) -> None:
    huge = b'{"id": "huge", "text": "' + b"x" * 40_000_000 + b'"}'
    file = lines(tmp_path / "a.jsonl.gz", "")
    file.write_bytes(gzip.compress(b'{"id": "a", "text": "x"}\n' + huge + b'\n{"id": "b", "text": "x"}\n', 1))
    del huge
    tracemalloc.start()
    found = read(file, options=ReadingOptions(line_bytes_max=1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told(found) == ["a", "a.jsonl.gz:2 the line is longer than 1000 bytes; split the document", "b"]
    assert peak < 8 * 2**20


def test_a_gzip_that_ends_early_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.ndjson.gz"
    content = b"".join(b'{"id": "%d", "text": "%d"}\n' % (number, number**9) for number in range(5000))
    file.write_bytes(gzip.compress(content)[:-5000])
    *records, bad = read(file, lines(tmp_path / "b.jsonl", '{"id": "b", "text": "x"}'))[:-1]
    assert len(records) > 100
    assert isinstance(bad, BadRecord)
    assert bad.number == len(records) + 1
    assert "the rest of the file cannot be read" in bad.message


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with file.open("w") as out:
        out.writelines(f'{{"id": "{number}", "text": "{"words " * 100}"}}\n' for number in range(30_000))
    tracemalloc.start()
    with Corpus.of([str(file)]) as corpus:
        count = sum(1 for _ in corpus)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 2 * 2**20


def test_parquet_rows_are_documents_with_their_columns_as_metadata(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": [1, 2, None],
            "text": ["one", "two", "three"],
            "when": [datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC), None, None],
            "embedding": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], type=pa.list_(pa.float64(), 2)),
        }
    )
    file = tmp_path / "a.parquet"
    pq.write_table(table, file)
    first, second, bad = read(file)
    assert isinstance(first, CorpusRecord)
    assert isinstance(second, CorpusRecord)
    assert (first.id, first.text, first.place) == ("1", "one", f"{file}:1")
    assert first.metadata == {"when": "2026-11-22T00:00:00+00:00"}
    assert second.vector == array.array("f", [3, 4]).tobytes()
    assert told([bad]) == ["a.parquet:3 it has no id: give id or _id or doc_id or docid, a string or a whole number"]


def test_a_parquet_file_without_the_columns_or_broken_is_told_and_the_others_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["x"], "text": ["y"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"id": ["x"], "text": ["y"]}), tmp_path / "c.parquet")
    found = told(read(tmp_path))
    assert found[0] == "a.parquet it has no column id or _id or doc_id or docid; it has name, text"
    assert found[1].startswith("b.parquet the rest of the file cannot be read")
    assert found[2:] == ["x"]


def test_a_missing_library_is_told_with_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidArgument, match="pip install pyarrow"):
        read(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InvalidArgument, match="install fsspec"):
        read("s3://bucket/corpus.jsonl")


def test_text_markdown_html_and_pdf_files_are_one_document_each(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffgrün", encoding="utf-8")
    (tmp_path / "b.md").write_text("# Top")
    (tmp_path / "c.HTM").write_bytes(b"<p>\xff")
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "e.png").write_bytes(b"x")
    found = [each for each in read(tmp_path) if isinstance(each, CorpusRecord)]
    assert [(each.text, each.content, each.content_type) for each in found] == [
        ("grün", b"", "text/plain"),
        ("# Top", b"", "text/markdown"),
        ("", b"<p>\xff", "text/html"),
        ("", b"%PDF-1.4", "application/pdf"),
    ]
    assert found[0].id == found[0].place == found[0].metadata["path"] == str(tmp_path / "a.txt")


def test_a_file_that_is_no_text_too_large_or_empty_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"123\xff")
    with (tmp_path / "b.txt").open("wb") as sparse:
        sparse.truncate(100 * 2**20)
    (tmp_path / "c.txt").write_bytes(b" \n")
    tracemalloc.start()
    found = told(read(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [
        "a.md it is not UTF-8: byte 3 (0xff) does not fit",
        "b.txt it has 104857600 bytes, and a document has at most 12582912; split it",
        "c.txt there is nothing in it",
    ]
    assert peak < 40 * 2**20


def test_folders_globs_and_files_are_read_in_a_stable_order_each_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.md", "a.txt", "sub/c.txt", "sub/d.png"):
        (tmp_path / name).write_text(name)
    names = [
        Path(file.name).name for file in find_files([str(tmp_path / "sub/c.txt"), str(tmp_path), str(tmp_path / "**/*.txt")])
    ]
    assert names == ["c.txt", "a.txt", "b.md"]


@pytest.mark.parametrize("name", ["none.jsonl", "*.nothing", "empty", "a.png", "memory://nothing/there", "no-such-store://x"])
def test_a_path_where_nothing_can_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InvalidArgument, match=name.replace("*", r"\*")):
        find_files([name if "://" in name else str(tmp_path / name)])


def test_an_object_store_is_read_by_its_url_or_glob(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    with gzip.open(store.open("/bucket/a.jsonl.gz", "wb"), "wb") as out:
        out.write(b'{"id": "a", "text": "x"}\n')
    store.pipe("/bucket/sub/b.txt", b"text")
    store.pipe("/bucket/sub/c.png", b"x")
    assert told(read("memory://bucket")) == ["a", "memory:///bucket/sub/b.txt"]
    assert told(read("memory://bucket/*.jsonl.gz")) == ["a"]
    [file] = find_files(["memory://bucket/sub/b.txt"])
    store.pipe("/bucket/sub/b.txt", b"longer")
    assert find_files(["memory://bucket/sub/b.txt"])[0].version != file.version


def test_what_was_read_before_is_passed_over_and_its_ids_still_count(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", *(f'{{"id": "{name}", "text": "x"}}' for name in "abcad"))
    (tmp_path / "b.txt").write_text("text")
    files = find_files([str(tmp_path)])
    with Corpus(files, passed={str(file): 2, str(tmp_path / "b.txt"): 1}) as corpus:
        assert told(list(corpus)) == ["c", f"a.jsonl:4 the id 'a' stood at {file}:1 before; only that one is taken", "d"]
