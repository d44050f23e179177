"""A judged corpus in a collection, and the rankings that each way of searching gives for its queries."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from uuid import uuid4

from penstock.cli.evaluation.judged_corpus import JudgedCorpus
from penstock.clients import Chunk, Document, Fusion, Grouping, Query, RetrievalClient
from penstock.errors import AlreadyExists

DEPTH: Final = 100
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "dense": {"mode": "dense"},
    "lexical": {"mode": "lexical"},
    "hybrid, convex": {"mode": "hybrid", "fusion": Fusion(method="convex")},
    "hybrid, RRF": {"mode": "hybrid", "fusion": Fusion(method="reciprocal_rank")},
}
_BATCH: Final = 32

Heard = Callable[[int], None]
"""Hears how many more are done."""


@asynccontextmanager
async def filled_collection(
    client: RetrievalClient, corpus: JudgedCorpus, *, name: str, keep: bool, split: bool, heard: Heard
) -> AsyncIterator[str]:
    """The name of a collection with the corpus in it, a chunk a document unless `split`.

    One that exists is taken as it is. A new one stays when `keep` is set or it was given a name.
    """
    used = name or f"eval-{uuid4().hex[:12]}"
    try:
        await client.create_collection(used)
    except AlreadyExists:
        heard(len(corpus.documents))
        yield used
        return
    try:
        await _fill(client, corpus, used, split=split, heard=heard)
        yield used
    finally:
        if not (keep or name):
            await client.delete_collection(used)


async def rankings(
    client: RetrievalClient, collection: str, queries: Mapping[str, str], way: Mapping[str, Any], heard: Heard
) -> dict[str, list[str]]:
    """The ids of the DEPTH best documents for each query, best first."""
    found: dict[str, list[str]] = {}
    for batch in _groups(list(queries.items())):
        asked = [_query(text, way) for _, text in batch]
        for (identity, _), hits in zip(batch, await client.search_batch(collection, asked), strict=True):
            found[identity] = [hit.document_id for hit in hits]
        heard(len(batch))
    return found


def _query(text: str, way: Mapping[str, Any]) -> Query:
    # Where every document is one chunk, grouping changes nothing.
    grouping = Grouping(hits_per_document_max=1)
    return cast("Query", {"query": text, "top_k": DEPTH, "grouping": grouping, "fields": ("document_id",), **way})


async def _fill(client: RetrievalClient, corpus: JudgedCorpus, name: str, *, split: bool, heard: Heard) -> None:
    for batch in _groups(list(corpus.documents.items())):
        if split:
            await client.ingest(name, [Document(id=identity, text=text) for identity, text in batch])
        else:
            chunks = [Chunk(id=identity, document_id=identity, text=text) for identity, text in batch]
            await client.upsert_chunks(name, chunks)
        heard(len(batch))


def _groups(items: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    return (items[at : at + _BATCH] for at in range(0, len(items), _BATCH))
