"""Grouped searches over real shards, against every chunk compared: top_k documents, each with its best hits."""

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.filters import Filter, OneOf
from retrieval_svc.search.calls import Grouping, SearchCall, SearchMode, SearchResult
from retrieval_svc.values import EVERYTHING, Collection, Visibility
from tests.retrieval_svc.fakes import Core, CoreLimits, found_ids, running_core
from tests.retrieval_svc.test_bad_input import Context

NAME = "collections/notes"
DIMENSION = 16
SIZES = (90, 60, 45, 30, 25, 20, 12, 8, 5, 3, 2, 1, 1)
"""Chunks of each document; the last ones stand alone, without a document."""
WORDS = ("canal", "lock", "barge", "weir", "tow")
TEXT = "canal lock"


@dataclass(frozen=True, kw_only=True)
class Note:
    id: str
    document_id: str
    vector: np.ndarray
    text: str
    kind: str
    principals: tuple[str, ...]

    def chunk(self) -> pb.Chunk:
        chunk = pb.Chunk(
            id=self.id, document_id=self.document_id, text=self.text, vector=self.vector.tobytes(),
            allowed_principals=self.principals,
        )  # fmt: skip
        chunk.metadata.update({"kind": self.kind})
        return chunk


def drawn() -> list[Note]:
    random = np.random.default_rng(8)
    notes = []
    for number, size in enumerate(SIZES):
        centre = random.standard_normal(DIMENSION)
        for at in range(size):
            notes.append(
                Note(
                    id=f"{number}#{at}",
                    document_id=f"d{number}" if size > 1 else "",
                    vector=(centre + 2.0 * random.standard_normal(DIMENSION)).astype("<f4"),
                    text=" ".join(random.choice(WORDS, size=random.integers(1, 6))),
                    kind=str(random.choice(("old", "new"))),
                    principals=("user:ann",) if random.random() < 0.3 else (),
                )
            )
    random.shuffle(notes)
    return notes


NOTES = drawn()
BY_ID: Mapping[str, Note] = {note.id: note for note in NOTES}
QUERY = np.random.default_rng(9).standard_normal(DIMENSION).astype("<f4")
FILTERS: tuple[Filter | None, ...] = (None, OneOf(field="kind", values=("old",)))
EYES = (EVERYTHING, Visibility(), Visibility(principals=frozenset({"user:ann"})))


@pytest.fixture(params=[1, 3])
async def core(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Core]:
    """A part of the notes is in merged segments, a part in one of its own, and a part in memory; some were deleted."""
    async with running_core(tmp_path, limits=CoreLimits(shard_count=request.param)) as core:
        service, context = core.servicer, Context()
        created = pb.CreateCollectionRequest(collection_id="notes", collection=pb.Collection(dimension=DIMENSION))
        await service.CreateCollection(created, context)
        for number, start in enumerate(range(0, len(NOTES), 80)):
            gone = pb.Chunk(id=f"gone{number}", document_id="d0", text=TEXT, vector=QUERY.tobytes())
            chunks = [*(note.chunk() for note in NOTES[start : start + 80]), gone]
            await service.UpsertChunks(pb.UpsertChunksRequest(collection=NAME, chunks=chunks), context)
            for replica in core.shards.replicas():
                if number == 1:
                    await core.maintenance.compact(replica)
                if number == 2:
                    await core.maintenance.checkpoint(replica)
            await service.DeleteChunks(pb.DeleteChunksRequest(collection=NAME, chunk_ids=[gone.id]), context)
        yield core


def document_of(chunk_id: str) -> str:
    """The document of a chunk; a chunk without one is its own."""
    return BY_ID[chunk_id].document_id or chunk_id


def grouped(ranked: Sequence[str], hits_max: int) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in ranked:
        groups.setdefault(document_of(name), []).append(name)
    return {document: hits[:hits_max] for document, hits in groups.items()}


def visible(filter_: Filter | None, eyes: Visibility) -> list[Note]:
    return [
        note
        for note in NOTES
        if (filter_ is None or note.kind == "old")
        and (eyes.principals is None or not note.principals or eyes.principals & set(note.principals))
    ]


def scores_of(notes: Sequence[Note]) -> dict[str, float]:
    wide = QUERY.astype(np.float64) / np.linalg.norm(QUERY.astype(np.float64))
    return {note.id: float(note.vector.astype(np.float64) @ wide / np.linalg.norm(note.vector)) for note in notes}


async def pages(core: Core, call: SearchCall) -> list[SearchResult]:
    collection: Collection = await core.catalog.find(NAME)
    found = [await core.search.search(collection, call)]
    while found[-1].next_page_token:
        call = replace(call, page_token=found[-1].next_page_token)
        found.append(await core.search.search(collection, call))
        assert len(found) < 50
    return found


def check_pages(found: Sequence[SearchResult], expected: Mapping[str, Sequence[str]], top_k: int) -> None:
    """Every document is on one page, with all of its hits in their order."""
    documents = list(expected)
    for number, page in enumerate(found):
        here = documents[number * top_k : (number + 1) * top_k]
        assert found_ids(page) == [name for document in here for name in expected[document]]
    assert len(found) == -(-len(documents) // top_k)


async def test_dense_pages_have_every_document_once_with_its_best_hits(core: Core) -> None:
    for filter_, eyes, hits_max, top_k in itertools.product(FILTERS, EYES, (1, 3, 20, 100), (2, 5, 20)):
        scores = scores_of(visible(filter_, eyes))
        expected = grouped(sorted(scores, key=lambda name: -scores[name]), hits_max)
        grouping = Grouping(hits_per_document_max=hits_max)
        call = SearchCall(vector=QUERY.tobytes(), top_k=top_k, filter=filter_, visibility=eyes, grouping=grouping)
        check_pages(await pages(core, call), expected, top_k)


async def test_a_threshold_holds_for_further_hits_too(core: Core) -> None:
    scores = scores_of(NOTES)
    least = sorted(scores.values())[100]
    ranked = sorted((name for name in scores if scores[name] >= least), key=lambda name: -scores[name])
    call = SearchCall(vector=QUERY.tobytes(), top_k=2, score_min=least - 1e-6, grouping=Grouping(hits_per_document_max=50))
    check_pages(await pages(core, call), grouped(ranked, 50), 2)


async def test_lexical_pages_have_every_document_once_with_its_best_hits(core: Core) -> None:
    for filter_, eyes, hits_max, top_k in itertools.product(FILTERS, EYES, (2, 20, 100), (2, 5)):
        call = SearchCall(text=TEXT, mode=SearchMode.LEXICAL, top_k=1000, filter=filter_, visibility=eyes)
        [every] = await pages(core, call)
        ranked = found_ids(every)
        assert set(ranked) == {note.id for note in visible(filter_, eyes) if {"canal", "lock"} & set(note.text.split())}
        grouping = Grouping(hits_per_document_max=hits_max)
        call = SearchCall(text=TEXT, mode=SearchMode.LEXICAL, top_k=top_k, filter=filter_, visibility=eyes, grouping=grouping)
        check_pages(await pages(core, call), grouped(ranked, hits_max), top_k)


async def test_hybrid_pages_have_every_document_once_with_as_many_hits_as_it_has(core: Core) -> None:
    for filter_, eyes, hits_max, top_k in itertools.product(FILTERS, EYES, (2, 20, 100), (2, 5)):
        call = SearchCall(text=TEXT, vector=QUERY.tobytes(), mode=SearchMode.HYBRID, filter=filter_, visibility=eyes)
        fused = grouped(all_ids(await pages(core, replace(call, top_k=100))), hits_max)
        found = await pages(core, replace(call, top_k=top_k, grouping=Grouping(hits_per_document_max=hits_max)))
        hits = grouped(all_ids(found), 1000)
        sizes = {document: len(ids) for document, ids in grouped(ids_of(visible(filter_, eyes)), hits_max).items()}
        assert {document: len(ids) for document, ids in hits.items()} == sizes
        assert list(hits)[: len(fused)] == list(fused)
        assert all(hits[document][: len(ids)] == ids for document, ids in fused.items())
        on_pages = [[document for document, _ in itertools.groupby(map(document_of, found_ids(page)))] for page in found]
        assert [document for documents in on_pages for document in documents] == list(hits)
        assert [len(documents) for documents in on_pages[:-1]] == [top_k] * (len(found) - 1)


def all_ids(found: Sequence[SearchResult]) -> list[str]:
    return [name for page in found for name in found_ids(page)]


def ids_of(notes: Sequence[Note]) -> list[str]:
    return [note.id for note in notes]
