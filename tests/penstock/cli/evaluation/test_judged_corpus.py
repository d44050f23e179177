"""Folders as they are published: BEIR's, TREC's, with and without headers; and broken ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.evaluation.judged_corpus import read_folder
from penstock.errors import InvalidArgument

ROOT = Path(__file__).parents[4]


def lines(path: Path, *records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def folder_with(tmp_path: Path, qrels: str, at: str = "qrels/test.tsv") -> Path:
    lines(
        tmp_path / "corpus.jsonl",
        {"_id": "a b", "title": "Towers", "text": "of Paris."},
        {"_id": "c", "title": "", "text": "Bridges."},
        {"_id": "d", "title": "", "text": " "},
    )
    lines(tmp_path / "queries.jsonl", {"_id": "1", "text": "Which tower?"}, {"_id": "2", "text": "Which bridge?"})
    (tmp_path / at).parent.mkdir(exist_ok=True)
    (tmp_path / at).write_text(qrels)
    return tmp_path


def test_a_beir_folder_has_titles_before_texts_and_leaves_out_what_has_neither(tmp_path: Path) -> None:
    corpus = read_folder(folder_with(tmp_path, "query-id\tcorpus-id\tscore\n1\ta b\t2\n2\tc\t0\n"))
    assert corpus.documents == {"a b": "Towers of Paris.", "c": "Bridges."}
    assert corpus.empty_ids == ("d",)
    assert corpus.judgements == {"1": {"a b": 2}, "2": {"c": 0}}
    assert corpus.judged_queries == {"1": "Which tower?"}, "nothing is relevant to the other"


@pytest.mark.parametrize(
    ("at", "qrels"),
    [
        ("qrels.tsv", "1\tc\t1\n2\tc\t1\n"),
        ("qrels.txt", "1 0 c 1\n2 0 c 1\n"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n\n1\tc\t1.0\n2\tc\t1\n"),
    ],
)
def test_judgements_are_read_with_and_without_a_header_and_in_trecs_columns(tmp_path: Path, at: str, qrels: str) -> None:
    assert read_folder(folder_with(tmp_path, qrels, at)).judgements == {"1": {"c": 1}, "2": {"c": 1}}


def test_another_split_has_judgements_of_its_own(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "1\tc\t1\n")
    (folder / "qrels/dev.tsv").write_text("2\tc\t1\n")
    assert read_folder(folder, split="dev").judgements == {"2": {"c": 1}}


def test_the_example_corpus_is_judged_by_its_questions_own_paragraphs() -> None:
    corpus = read_folder(ROOT / "examples/corpus/squad_xquad_en")
    assert (len(corpus.documents), len(corpus.judged_queries)) == (240, 1190)
    assert corpus.judgements["56beb4343aeaaa14008c925b"] == {"xq-00-0": 1}
    assert corpus.documents["xq-00-0"].count("Super Bowl 50") == 1, "its text has the title already"


@pytest.mark.parametrize(
    ("qrels", "said"),
    [
        ("1\tc\t1\n1\tc\tmuch\n", "test.tsv:2: it must be a query's id"),
        ("1\tc\n", "test.tsv:1: it must be a query's id"),
        ("9\tc\t1\n", "none of its 2 queries has a relevant document"),
        ("", "none of its 2 queries has a relevant document"),
    ],
)
def test_bad_judgements_are_told_with_their_place(tmp_path: Path, qrels: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        read_folder(folder_with(tmp_path, qrels))


def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"corpus\.jsonl cannot be read"):
        read_folder(tmp_path)
    folder = folder_with(tmp_path, "1\tc\t1\n")
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "x"}\n{"_id"\n')
    with pytest.raises(InvalidArgument, match=r"queries\.jsonl:2: it is not JSON"):
        read_folder(folder)
    (folder / "queries.jsonl").write_text('["1"]\n')
    with pytest.raises(InvalidArgument, match=r"queries\.jsonl:1: it must be an object"):
        read_folder(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(InvalidArgument, match=r"has none of queries\.jsonl, questions\.jsonl, test\.jsonl"):
        read_folder(folder)
