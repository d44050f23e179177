"""What writes stand on, in memory: a record that keeps a log, shards that follow it, a model of words."""

import asyncio
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from opentelemetry.sdk.trace import TracerProvider

from penstock.errors import CollectionNotFound, FailedPrecondition, PenstockError
from retrieval_svc.filters import Filter, OneOf
from retrieval_svc.ingest.chunking import Span
from retrieval_svc.ingest.extraction import Extractor
from retrieval_svc.ingest.preparing import Preparation
from retrieval_svc.ingest.reading_limits import ReadingLimits
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.ingest.streaming import StreamLimits
from retrieval_svc.ingest.writing import Ingest, IngestLimits
from retrieval_svc.values import (
    Changes,
    Chunk,
    Collection,
    CollectionSpec,
    Commit,
    DocumentRecord,
    EmbeddingModel,
    Matrix,
    Metric,
    Rows,
    Sequences,
    StoredChunk,
    Visibility,
    WriteBatch,
    shard_of,
)

DIMENSION = 16
WINDOW_TOKENS = 32
SHARDS = 2
TEXTS, VECTORS = "collections/texts", "collections/vectors"


class Words:
    """A model whose tokens are words and marks."""

    def __init__(self, fingerprint: str = "words/1") -> None:
        self.model = EmbeddingModel(name="words", dimension=DIMENSION, window_tokens=WINDOW_TOKENS, fingerprint=fingerprint)
        self.embedded: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: PenstockError | None = None

    def token_spans(self, text: str) -> list[Span]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]

    async def texts(self, texts: Sequence[str]) -> Matrix:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.embedded += texts
        return np.stack([self.vector(text) for text in texts])

    def vector(self, text: str) -> Matrix:
        vector = np.full(DIMENSION, 1e-3, dtype=np.float32)
        for start, end in self.token_spans(text):
            vector[zlib.crc32(text[start:end].encode()) % DIMENSION] += 1.0
        return vector


class Collections:
    """Two collections: "texts" is embedded by words, "vectors" takes the caller's."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.open = {
            TEXTS: _collection(1, "texts", "words", DIMENSION),
            VECTORS: _collection(2, "vectors", "", 3),
        }

    async def find(self, name: str) -> Collection:
        if name not in self.open:
            raise CollectionNotFound(f"there is no {name}")
        return self.open[name]

    def embeddings_for(self, spec: CollectionSpec) -> Words:
        if not spec.embedding_model:
            raise FailedPrecondition("give a vector")
        return self.words


def _collection(uid: int, name: str, model: str, dimension: int) -> Collection:
    spec = CollectionSpec(
        id=name,
        embedding_model=model,
        embedding_fingerprint=model,
        dimension=dimension,
        metric=Metric.COSINE,
        shard_count=SHARDS,
    )
    return Collection(uid=uid, spec=spec, chunk_count=0)


@dataclass
class Record:
    """One log a shard, as the real one keeps it: sequence numbers count the shard's entries."""

    rows: dict[tuple[int, int, int], tuple[StoredChunk, Matrix]] = field(default_factory=dict)
    documents: dict[tuple[int, str], DocumentRecord] = field(default_factory=dict)
    last: dict[tuple[int, int], int] = field(default_factory=dict)
    batches: list[WriteBatch] = field(default_factory=list)
    failures: list[PenstockError | None] = field(default_factory=list)

    async def commit(self, uid: int, batch: WriteBatch) -> Commit:
        await asyncio.sleep(0)
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        self.batches.append(batch)
        gone = [key for key in self.rows if key[0] == uid and self._goes(key, batch)]
        for key in gone:
            self.documents.pop((uid, self.rows.pop(key)[0].document_id), None)
        changes = {}
        for shard in range(SHARDS):
            if (change := self._change(uid, shard, batch, [key[2] for key in gone if key[1] == shard])) is not None:
                changes[shard] = change
        self.documents.update({(uid, document.id): document for document in batch.documents})
        return Commit(changes=changes, deleted_count=len(gone))

    async def positions(self, uid: int) -> dict[int, int]:
        return {shard: last for (of, shard), last in self.last.items() if of == uid}

    async def documents_by_id(self, uid: int, document_ids: Sequence[str]) -> list[DocumentRecord]:
        return [self.documents[uid, each] for each in document_ids if (uid, each) in self.documents]

    def texts(self, uid: int = 1) -> dict[str, str]:
        return {chunk.id: chunk.text for (of, _, _), (chunk, _) in sorted(self.rows.items()) if of == uid}

    def chunk(self, chunk_id: str) -> StoredChunk:
        return next(chunk for chunk, _ in self.rows.values() if chunk.id == chunk_id)

    def _goes(self, key: tuple[int, int, int], batch: WriteBatch) -> bool:
        chunk, _ = self.rows[key]
        named = chunk.id in batch.delete_chunk_ids or chunk.document_id in batch.delete_document_ids
        replaced = chunk.id in {each.id for each in batch.chunks}
        return named or replaced or key[2] in batch.delete_rows.get(key[1], ())

    def _change(self, uid: int, shard: int, batch: WriteBatch, gone: list[int]) -> Changes | None:
        places = [at for at, chunk in enumerate(batch.chunks) if shard_of(chunk.id, SHARDS) == shard]
        if not places and not gone:
            return None
        after = self.last.get((uid, shard), 0)
        stored = tuple(_stored(batch.chunks[at], after + 1 + number) for number, at in enumerate(places))
        self.rows |= {(uid, shard, each.sequence): (each, batch.vectors[at]) for each, at in zip(stored, places, strict=True)}
        through = self.last[uid, shard] = after + len(stored) + len(gone)
        return Changes(
            after=after,
            through=through,
            stored=Rows(chunks=stored, vectors=batch.vectors[places]),
            removed=np.array(gone, dtype=np.int64),
            removed_at=np.arange(through - len(gone), through, dtype=np.int64) + 1,
        )


def _stored(chunk: Chunk, sequence: int) -> StoredChunk:
    return StoredChunk(
        sequence=sequence,
        id=chunk.id,
        document_id=chunk.document_id,
        text=chunk.text,
        metadata_json=chunk.metadata_json,
        allowed_principals=chunk.allowed_principals,
    )


class Shards:
    """Shards that apply what they are offered when `gate` is open."""

    def __init__(self) -> None:
        self.applied: dict[int, int] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: PenstockError | None = None
        self.waited_for: list[Mapping[int, int]] = []

    def offer(self, uid: int, changes: Mapping[int, Changes]) -> None:
        self.applied |= {shard: change.through for shard, change in changes.items()}

    async def visible(self, uid: int, positions: Mapping[int, int]) -> None:
        await self.gate.wait()
        self.waited_for.append(positions)
        if self.failure is not None:
            raise self.failure
        assert all(self.applied.get(shard, 0) >= position for shard, position in positions.items())


class Matcher:
    """Finds rows whose text is one of the filter's values, as a shard at a position has them."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.asked: list[tuple[Visibility, Mapping[int, int]]] = []

    async def match(
        self, collection: Collection, filter_: Filter, visibility: Visibility, *, at_least: Mapping[int, int]
    ) -> dict[int, Sequences]:
        assert isinstance(filter_, OneOf)
        self.asked.append((visibility, at_least))
        found: dict[int, list[int]] = {}
        for (uid, shard, sequence), (chunk, _) in self._record.rows.items():
            if uid == collection.uid and chunk.text in filter_.values:
                found.setdefault(shard, []).append(sequence)
        return {shard: np.array(sequences, dtype=np.int64) for shard, sequences in found.items()}


class Core:
    """The writes over all of these."""

    def __init__(self, *, writes_max: int = 8, stream: StreamLimits | None = None, fingerprint: str = "words/1") -> None:
        self.words = Words(fingerprint)
        self.collections = Collections(self.words)
        self.record, self.shards = Record(), Shards()
        self.matcher = Matcher(self.record)
        limits = ReadingLimits(timeout_s=20.0, memory_bytes=512 * 2**20, text_bytes_max=20_000)
        self.extractor = Extractor(limits)
        self.provider = TracerProvider()
        self.ingest = self.over(self.record, writes_max=writes_max, stream=stream)

    def over(self, record: Record, *, writes_max: int = 8, stream: StreamLimits | None = None) -> Ingest:
        """The writes over some record."""
        return Ingest(
            self.collections,
            record,
            self.shards,
            self.matcher,
            preparation=Preparation(self.extractor, text_bytes_max=20_000),
            limits=IngestLimits(
                writes_max=writes_max,
                chunk_text_bytes_max=10_000,
                document_text_bytes_max=20_000,
                document_content_bytes_max=100_000,
                splitting=Splitting(chunk_tokens_max=16, overlap_tokens=4),
                stream=stream or StreamLimits(),
            ),
            tracer=self.provider.get_tracer("test"),
        )
