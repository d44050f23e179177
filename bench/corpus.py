"""What is asked and searched: vectors from a seed, and texts from the example corpus."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

DIMENSION: Final = 384
PASSAGE_CHARACTERS: Final = 500
_CLUSTERS: Final = 64
_SPREAD: Final = 0.7
_SEED: Final = 20_261_121
_BLOCK: Final = 10_000
CORPUS: Final = Path(__file__).parents[1] / "examples/corpus/squad_xquad_en"


def clustered_vectors(count: int, *, queries: bool = False) -> Matrix:
    """The first `count` vectors of length 1 around a few centres, as embeddings are; or queries around the same centres."""
    return np.concatenate(list(clustered_blocks(count, queries=queries)))


def clustered_blocks(count: int, *, queries: bool = False) -> Iterator[Matrix]:
    """The same a block at a time, for those who have no room for all of them in double precision."""
    centres = np.random.default_rng(_SEED).standard_normal((_CLUSTERS, DIMENSION))
    rng = np.random.default_rng(_SEED + 1 + queries)
    for at in range(0, count, _BLOCK):
        rows = np.arange(at, min(at + _BLOCK, count))
        vectors = centres[rows % _CLUSTERS] + rng.standard_normal((len(rows), DIMENSION)) * _SPREAD
        yield np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def passages(count: int) -> Iterator[str]:
    """Texts of PASSAGE_CHARACTERS characters; they repeat when there are more than the corpus has paragraphs."""
    whole = (" ".join([text] * (PASSAGE_CHARACTERS // len(text) + 1)) for text in cycle(_contents()))
    return (text[:PASSAGE_CHARACTERS] for text in islice(whole, count))


def questions(count: int) -> list[str]:
    """The corpus's questions."""
    return [line["question"] for line in islice(_lines("questions.jsonl"), count)]


def prompts(count: int, *, skip: int) -> list[str]:
    """Prompts as the example flow makes them, two passages and a question; no passage stands in two of them."""
    by_document: dict[str, str] = {}
    for line in _lines("questions.jsonl"):
        by_document.setdefault(line["metadata"]["gold_doc_ids"][0], line["question"])
    texts = dict(zip(_ids(), _contents(), strict=True))
    asked = list(by_document.items())
    return [_prompt(asked[2 * at], asked[2 * at + 1], texts) for at in range(skip, skip + count)]


def answered_passages(questions_each: int) -> dict[str, list[str]]:
    """Passages with so many questions that they answer; those with fewer are left out."""
    by_document: dict[str, list[str]] = {}
    for line in _lines("questions.jsonl"):
        by_document.setdefault(line["metadata"]["gold_doc_ids"][0], []).append(line["question"])
    texts = dict(zip(_ids(), _contents(), strict=True))
    return {texts[name]: asked[:questions_each] for name, asked in by_document.items() if len(asked) >= questions_each}


def _prompt(one: tuple[str, str], other: tuple[str, str], texts: dict[str, str]) -> str:
    (first, question), (second, _) = one, other
    return (
        f"Passages:\n[1] {texts[first]}\n\n[2] {texts[second]}\n\nQuestion: {question}\n"
        "Answer in a long paragraph, from the passages alone."
    )


@cache
def _contents() -> tuple[str, ...]:
    return tuple(line["contents"] for line in _lines("corpus.jsonl"))


@cache
def _ids() -> tuple[str, ...]:
    return tuple(line["id"] for line in _lines("corpus.jsonl"))


def _lines(name: str) -> Iterator[Any]:
    with (CORPUS / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
