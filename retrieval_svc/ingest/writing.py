"""Writes: validate -> extract -> split -> embed -> commit -> offer. Acknowledged means durable, and searchable here.

The record orders the writes of a collection; nothing is locked in this process. A write commits to the record, hands what it
did to the shards that lie on this node, and waits until searches of those see it. Other nodes follow the log; a search there
that carries the write's token waits for it.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from opentelemetry.trace import Span, Tracer

from penstock import semconv
from penstock.errors import InvalidArgument, Overloaded, PenstockError
from retrieval_svc import checks
from retrieval_svc.consistency import merged
from retrieval_svc.filters import Filter
from retrieval_svc.ingest.ports import ChangeLog, Collections, Embeddings, Followers, Matcher
from retrieval_svc.ingest.preparing import Cutting, Preparation, Prepared, content_hash, cutting
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.ingest.streaming import Item, ItemError, Streamed, StreamLimits, Written, ingest_stream
from retrieval_svc.unbroken import unbroken
from retrieval_svc.values import EVERYTHING, Chunk, Collection, Commit, Document, Matrix, Sequences, Visibility, WriteBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """How much of a write is taken on, and how documents are split that do not say."""

    writes_max: int
    chunk_text_bytes_max: int
    document_text_bytes_max: int
    document_content_bytes_max: int
    splitting: Splitting
    stream: StreamLimits = field(default_factory=StreamLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What became of a deletion."""

    deleted_count: int = 0
    positions: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Where documents go, and how they are split on the way."""

    collection: Collection
    embeddings: Embeddings
    how: Cutting


class Ingest:
    """Stores and deletes chunks."""

    def __init__(
        self,
        collections: Collections,
        log: ChangeLog,
        shards: Followers,
        matcher: Matcher,
        *,
        preparation: Preparation,
        limits: IngestLimits,
        tracer: Tracer,
    ) -> None:
        self._collections = collections
        self._log = log
        self._shards = shards
        self._matcher = matcher
        self._preparation = preparation
        self._limits = limits
        self._tracer = tracer
        self._writes = 0

    async def ingest_documents(self, name: str, documents: Sequence[Document], splitting: Splitting) -> Written:
        """Stores documents, each in place of all its former chunks; all of them or none.

        Those that are stored already exactly as they come are left alone. Raises InvalidArgument and what is below it.
        """
        checks.documents(documents)
        for at, document in enumerate(documents):
            self._check(document, f"documents[{at}]")
        target = await self._target(name, splitting)
        with self._write(target.collection) as span:
            written, prepared = await self._prepare(target, documents)
            ready = [_or_raise(each) for each in prepared]
            if sum(len(each.chunks) for each in ready) > checks.CHUNKS_MAX:
                message = f"these documents are more than {checks.CHUNKS_MAX} chunks; ingest fewer of them in one call"
                raise InvalidArgument(message, metadata={"limit": str(checks.CHUNKS_MAX)})
            written += await self._store(target, ready)
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, written.chunk_count)
            return written

    async def ingest_stream(self, name: str, messages: AsyncIterator[Sequence[Item]], splitting: Splitting) -> Streamed:
        """Stores documents as they come. Raises what is no single document's fault, with what is stored in the metadata."""
        target = await self._target(name, splitting)

        async def store(batch: Sequence[tuple[int, Document]]) -> tuple[Written, Sequence[ItemError]]:
            return await self._store_batch(target, batch)

        with self._write(target.collection) as span:
            streamed = await ingest_stream(messages, store, self._limits.stream)
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, streamed.written.chunk_count)
            return streamed

    async def upsert_chunks(self, name: str, chunks: Sequence[Chunk]) -> Written:
        """Stores ready chunks, embedding those without a vector."""
        checks.chunks(chunks, self._limits.chunk_text_bytes_max)
        collection = await self._collections.find(name)
        with self._write(collection) as span:
            batch = WriteBatch(chunks=tuple(chunks), vectors=await self._vectors(collection, chunks))
            commit = await self._apply(collection, batch)
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, len(chunks))
            return Written(chunk_count=len(chunks), positions=commit.positions)

    async def delete_chunks(
        self,
        name: str,
        chunk_ids: Sequence[str],
        document_ids: Sequence[str],
        filter_: Filter | None = None,
        visibility: Visibility = EVERYTHING,
    ) -> Deleted:
        """Deletes chunks by id, by document, and all that match a filter among those that were stored when the call began."""
        checks.deletions(chunk_ids, document_ids, by_filter=filter_ is not None)
        collection = await self._collections.find(name)
        with self._write(collection):
            rows: Mapping[int, Sequences] = {}
            if filter_ is not None:
                at_least = await self._log.positions(collection.uid)
                rows = await self._matcher.match(collection, filter_, visibility, at_least=at_least)
            nothing = np.empty((0, collection.spec.dimension), dtype=np.float32)
            named = WriteBatch(vectors=nothing, delete_chunk_ids=tuple(chunk_ids), delete_document_ids=tuple(document_ids))
            batches = [named] if chunk_ids or document_ids else []
            batches += [WriteBatch(vectors=nothing, delete_rows=part) for part in _parts(rows)]
            return await self._delete(collection, batches)

    @contextmanager
    def _write(self, collection: Collection) -> Iterator[Span]:
        """A place among the writes in progress, and the write's span."""
        if self._writes >= self._limits.writes_max:
            message = f"{self._writes} writes are in progress already; try again in a moment, or send larger batches"
            raise Overloaded(message, metadata={"limit": str(self._limits.writes_max)}, retry_after_s=1.0)
        self._writes += 1
        try:
            attributes = {semconv.GEN_AI_DATA_SOURCE_ID: collection.spec.id}
            with self._tracer.start_as_current_span(f"write {collection.spec.id}", attributes=attributes) as span:
                yield span
        finally:
            self._writes -= 1

    async def _target(self, name: str, splitting: Splitting) -> _Target:
        collection = await self._collections.find(name)
        embeddings = self._collections.embeddings_for(collection.spec)
        model = embeddings.model
        how = cutting(
            splitting,
            window_tokens=model.window_tokens,
            fingerprint=model.fingerprint,
            defaults=self._limits.splitting,
        )
        return _Target(collection=collection, embeddings=embeddings, how=how)

    def _check(self, document: Document, field_: str) -> None:
        text_max, content_max = self._limits.document_text_bytes_max, self._limits.document_content_bytes_max
        checks.document(document, field_, text_bytes_max=text_max, content_bytes_max=content_max)

    async def _prepare(
        self, target: _Target, documents: Sequence[Document]
    ) -> tuple[Written, list[Prepared | tuple[Document, PenstockError]]]:
        """What is stored already, and the rest ready to be stored or with what is wrong with it."""
        hashed = [(document, content_hash(document, target.how)) for document in documents]
        uid = target.collection.uid
        records = await self._log.documents_by_id(uid, [document.id for document in documents])
        known = {record.id: record.content_hash for record in records}
        fresh = [(document, digest) for document, digest in hashed if known.get(document.id) != digest]
        same = len(documents) - len(fresh)
        # They may have been stored on another node a moment ago: the answer's token is to cover that.
        positions = await self._log.positions(uid) if same else {}
        await self._shards.visible(uid, positions)
        prepared = await self._preparation.prepare(fresh, target.how, target.embeddings.token_spans) if fresh else []
        outcomes: list[Prepared | tuple[Document, PenstockError]] = [
            (document, each) if isinstance(each, PenstockError) else each
            for (document, _), each in zip(fresh, prepared, strict=True)
        ]
        return Written(unchanged_count=same, positions=positions), outcomes

    async def _store_batch(self, target: _Target, batch: Sequence[tuple[int, Document]]) -> tuple[Written, list[ItemError]]:
        """Stores what can be stored of a stream's batch."""
        errors: list[ItemError] = []
        places = {document.id: index for index, document in batch}

        def refuse(document: Document, error: PenstockError) -> None:
            errors.append(ItemError(index=places[document.id], document_id=document.id, error=error))

        checked = []
        for _, document in batch:
            try:
                self._check(document, "document")
                checked.append(document)
            except InvalidArgument as error:
                refuse(document, error)
        written, prepared = await self._prepare(target, checked)
        for each in prepared:
            if isinstance(each, tuple):
                refuse(*each)
        for group in _groups([each for each in prepared if isinstance(each, Prepared)]):
            written += await self._store(target, group)
        return written, errors

    async def _store(self, target: _Target, prepared: Sequence[Prepared]) -> Written:
        if not prepared:
            return Written()
        chunks = tuple(chunk for each in prepared for chunk in each.chunks)
        batch = WriteBatch(
            chunks=chunks,
            vectors=await _embed(target.embeddings, [chunk.text for chunk in chunks]),
            delete_document_ids=tuple(each.record.id for each in prepared),
            documents=tuple(each.record for each in prepared),
        )
        commit = await self._apply(target.collection, batch)
        return Written(document_count=len(prepared), chunk_count=len(chunks), positions=commit.positions)

    async def _vectors(self, collection: Collection, chunks: Sequence[Chunk]) -> Matrix:
        """A vector for each chunk: the caller's own, checked, or the model's."""
        matrix = np.empty((len(chunks), collection.spec.dimension), dtype=np.float32)
        given = [at for at, chunk in enumerate(chunks) if chunk.vector]
        missing = [at for at, chunk in enumerate(chunks) if not chunk.vector]
        if given:
            raw = [chunks[at].vector for at in given]
            fields = (f"chunks[{at}].vector" for at in given)
            vectors = checks.vectors(raw, fields, dimension=collection.spec.dimension, metric=collection.spec.metric)
            if not missing:
                return vectors
            matrix[given] = vectors
        embeddings = self._collections.embeddings_for(collection.spec)
        matrix[missing] = await _embed(embeddings, [chunks[at].text for at in missing])
        return matrix

    async def _delete(self, collection: Collection, batches: Sequence[WriteBatch]) -> Deleted:
        """Deletes part by part, so that no transaction holds a shard for long."""
        deleted = Deleted()
        for batch in batches:
            try:
                commit = await self._apply(collection, batch)
            except PenstockError as error:
                raise error.located(deleted_count=str(deleted.deleted_count)) from None
            positions = merged(deleted.positions, commit.positions)
            deleted = Deleted(deleted_count=deleted.deleted_count + commit.deleted_count, positions=positions)
        return deleted

    async def _apply(self, collection: Collection, batch: WriteBatch) -> Commit:
        """Commits, also when the caller leaves meanwhile, and waits until searches here see it."""
        commit = await unbroken(self._commit(collection.uid, batch))
        try:
            await self._shards.visible(collection.uid, commit.positions)
        except PenstockError as error:
            raise error.located(durable="true") from None
        return commit

    async def _commit(self, uid: int, batch: WriteBatch) -> Commit:
        commit = await self._log.commit(uid, batch)
        self._shards.offer(uid, commit.changes)
        return commit


async def _embed(embeddings: Embeddings, texts: Sequence[str]) -> Matrix:
    """A vector for each text. What comes again, such as a notice at the foot of every page, is embedded once."""
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    vectors = await embeddings.texts(list(distinct))
    return vectors if len(distinct) == len(texts) else vectors[[distinct[text] for text in texts]]


def _or_raise(outcome: Prepared | tuple[Document, PenstockError]) -> Prepared:
    if isinstance(outcome, tuple):
        raise outcome[1]
    return outcome


def _groups(prepared: Sequence[Prepared]) -> Iterator[list[Prepared]]:
    """Documents of at most CHUNKS_MAX chunks together."""
    group: list[Prepared] = []
    count = 0
    for each in prepared:
        if group and count + len(each.chunks) > checks.CHUNKS_MAX:
            yield group
            group, count = [], 0
        group.append(each)
        count += len(each.chunks)
    if group:
        yield group


def _parts(rows: Mapping[int, Sequences]) -> Iterator[dict[int, Sequences]]:
    """Rows of one shard each, at most CHUNKS_MAX."""
    for shard, sequences in sorted(rows.items()):
        for first in range(0, len(sequences), checks.CHUNKS_MAX):
            yield {shard: sequences[first : first + checks.CHUNKS_MAX]}
