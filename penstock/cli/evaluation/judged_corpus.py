"""A corpus, queries and judgements of what is relevant to them, read from a folder.

The layout is BEIR's (https://github.com/beir-cellar/beir): corpus.jsonl with "_id", "title" and "text", queries.jsonl with
"_id" and "text", and qrels/SPLIT.tsv or qrels.tsv with a query's id, a document's id and a grade a line. Read as well: ids
under "id"; texts under "contents" and "question"; queries in questions.jsonl or SPLIT.jsonl; judgements in a query's own
metadata.gold_doc_ids, each of grade 1; and the four columns of TREC's judgements.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import InvalidArgument
from penstock.ranking_quality import Judgements


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCorpus:
    """`documents` and `queries` are texts by id; `judgements` are those of each query that has any.

    `empty_ids` are documents without a text, which cannot be stored and are left out.
    """

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    judgements: Mapping[str, Judgements]
    empty_ids: tuple[str, ...] = ()

    @property
    def judged_queries(self) -> dict[str, str]:
        """The queries for which something is judged relevant: the others say nothing about a ranking."""
        judged = {query for query, grades in self.judgements.items() if any(grade > 0 for grade in grades.values())}
        return {query: text for query, text in self.queries.items() if query in judged}


def read_folder(folder: Path, *, split: str = "test") -> JudgedCorpus:
    """The corpus of a folder. Raises InvalidArgument that names the file, and the line, that is missing or bad."""
    texts = {identity: _joined(fields) for identity, fields in _records(folder / "corpus.jsonl")}
    fields_of = dict(_records(_first(folder, "queries.jsonl", "questions.jsonl", f"{split}.jsonl")))
    corpus = JudgedCorpus(
        name=folder.resolve().name,
        documents={identity: text for identity, text in texts.items() if text},
        queries={identity: _text(fields) for identity, fields in fields_of.items()},
        judgements=_judgements(folder, split, fields_of),
        empty_ids=tuple(identity for identity, text in texts.items() if not text),
    )
    if not corpus.judged_queries:
        raise InvalidArgument(f"{folder}: none of its {len(corpus.queries)} queries has a relevant document in its judgements")
    return corpus


def _judgements(folder: Path, split: str, queries: Mapping[str, Mapping[str, Any]]) -> dict[str, Judgements]:
    gold = {identity: _gold_ids(fields) for identity, fields in queries.items()}
    if any(gold.values()):
        return {identity: dict.fromkeys(ids, 1) for identity, ids in gold.items() if ids}
    return _read_table(_first(folder, f"qrels/{split}.tsv", "qrels.tsv", f"qrels/{split}.txt", "qrels.txt"))


def _read_table(path: Path) -> dict[str, Judgements]:
    """Judgements of a table with three columns, or TREC's four. A first line whose grade is no number is a header."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for number, line in _lines(path):
        columns = line.split("\t") if "\t" in line else line.split()
        grade = _grade(columns)
        if grade is not None:
            found[columns[0]][columns[-2]] = grade
        elif number > 1 or len(columns) not in {3, 4}:
            raise InvalidArgument(
                f"{path}:{number}: it must be a query's id, a document's id and a grade, with tabs between them"
            )
    return dict(found)


def _grade(columns: list[str]) -> int | None:
    try:
        return int(float(columns[-1])) if len(columns) in {3, 4} else None
    except ValueError:
        return None


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in _lines(path):
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise InvalidArgument(f"{path}:{number}: it is not JSON: {error}") from error
        identity = fields.get("_id", fields.get("id")) if isinstance(fields, dict) else None
        if identity is None:
            raise InvalidArgument(f'{path}:{number}: it must be an object with an "_id"')
        yield str(identity), fields


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error


def _joined(fields: Mapping[str, Any]) -> str:
    """Title and text with a space between them, as BEIR's collections are indexed; one that has its title already is left."""
    title, text = str(fields.get("title") or "").strip(), _text(fields)
    return text if text.lstrip('"').startswith(title) else f"{title} {text}".strip()


def _text(fields: Mapping[str, Any]) -> str:
    return next((str(fields[name]).strip() for name in ("text", "contents", "question") if fields.get(name)), "")


def _gold_ids(fields: Mapping[str, Any]) -> list[str]:
    metadata = fields.get("metadata")
    given = metadata.get("gold_doc_ids") if isinstance(metadata, dict) else None
    return [str(each) for each in given] if isinstance(given, list) else []


def _first(folder: Path, *names: str) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InvalidArgument(f"{folder} has none of {', '.join(names)}")
    return found
