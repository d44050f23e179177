"""Records to chunks with vectors, in a worker: split or taken as they are, embedded unless they bring a vector."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import orjson

from penstock.corpora import CorpusRecord
from penstock.errors import InvalidArgument, PenstockError
from retrieval_svc import checks
from retrieval_svc.bulk.parts import Part
from retrieval_svc.embedding.batching import combine_windows, plan_passes
from retrieval_svc.embedding.embedder import Embedder
from retrieval_svc.ingest.chunking import split_to_windows
from retrieval_svc.ingest.extraction import Extractor
from retrieval_svc.ingest.preparing import Cutting, Preparation, Prepared, content_hash
from retrieval_svc.ingest.reading_limits import ReadingLimits
from retrieval_svc.values import Chunk, CollectionSpec, Document, DocumentRecord, EmbeddingModel, Matrix


class ModelSource(Protocol):
    """Where a model comes from, as a value that can be sent to another process."""

    def load(self) -> Embedder:
        """The model for documents, loaded. Takes seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparingLimits:
    """How large what may be; as the service has it."""

    chunk_text_bytes_max: int
    document_text_bytes_max: int
    document_content_bytes_max: int
    extraction_timeout_s: float
    extraction_memory_bytes: int
    pass_tokens_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A record that is left out, where it stands, and why."""

    place: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedPart:
    """A part ready to be recorded. Row i of `vectors` is chunk i's, and the chunks' own are empty."""

    part: Part
    """Without its records."""
    chunks: tuple[Chunk, ...]
    vectors: Matrix
    documents: tuple[DocumentRecord, ...]
    document_count: int
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeStep:
    """Loads a model elsewhere to say what it is."""

    source: ModelSource

    @contextmanager
    def open(self) -> Iterator[Callable[[None], EmbeddingModel]]:
        """As the port has it."""
        model = self.source.load().model
        yield lambda _: model


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareStep:
    """Prepares parts for a collection. Without `how` each record becomes one chunk; without a source each has a vector."""

    spec: CollectionSpec
    source: ModelSource | None
    how: Cutting | None
    limits: PreparingLimits

    @contextmanager
    def open(self) -> Iterator[Callable[[Part], PreparedPart]]:
        """As the port has it. The model is loaded when the first text comes."""
        limits = self.limits
        reading = ReadingLimits(
            timeout_s=limits.extraction_timeout_s,
            memory_bytes=limits.extraction_memory_bytes,
            text_bytes_max=limits.document_text_bytes_max,
        )
        with asyncio.Runner() as runner:
            extractor = Extractor(reading)
            preparation = Preparation(extractor, text_bytes_max=limits.document_text_bytes_max)
            worker = _Worker(step=self, runner=runner, preparation=preparation)
            try:
                yield worker.prepare
            finally:
                runner.run(extractor.close())


@dataclass(slots=True, kw_only=True)
class _Chosen:
    """What comes of a part's records: chunks that are to be embedded, ready ones, and those that are refused."""

    texts: list[Chunk] = field(default_factory=list)
    ready: list[tuple[str, Chunk]] = field(default_factory=list)
    split: list[tuple[str, Document]] = field(default_factory=list)
    documents: list[DocumentRecord] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Worker:
    step: PrepareStep
    runner: asyncio.Runner
    preparation: Preparation
    loaded: Embedder | None = None

    def prepare(self, part: Part) -> PreparedPart:
        chosen = _Chosen()
        for record in part.records:
            try:
                self._choose(record, chosen)
            except InvalidArgument as error:
                chosen.refused.append(Refused(place=record.place, message=error.message))
        self._split(chosen)
        ready, vectors = self._checked(chosen)
        if chosen.texts:
            vectors = np.concatenate([vectors, self._embed([chunk.text for chunk in chosen.texts])])
        return PreparedPart(
            part=replace(part, records=()),
            chunks=(*ready, *chosen.texts),
            vectors=vectors,
            documents=tuple(chosen.documents),
            document_count=len(part.records) - len(chosen.refused),
            refused=tuple(chosen.refused),
        )

    def _choose(self, record: CorpusRecord, chosen: _Chosen) -> None:
        step, limits = self.step, self.step.limits
        metadata = orjson.dumps(dict(record.metadata)).decode() if record.metadata else ""
        if step.how is not None and not record.vector:
            document = Document(
                id=record.id,
                text=record.text,
                metadata_json=metadata,
                content=record.content,
                content_type=record.content_type,
            )
            text_max, content_max = limits.document_text_bytes_max, limits.document_content_bytes_max
            checks.document(document, "document", text_bytes_max=text_max, content_bytes_max=content_max)
            chosen.split.append((record.place, document))
            return
        if record.content:
            raise InvalidArgument("a file that is no text cannot be a chunk as a whole; have it split")
        chunk = Chunk(id=record.id, document_id=record.id, text=record.text, metadata_json=metadata, vector=record.vector)
        checks.chunks([chunk], limits.chunk_text_bytes_max)
        if record.vector:
            chosen.ready.append((record.place, chunk))
        elif step.source is None:
            raise InvalidArgument("it has no vector, and no model was named that would make one")
        else:
            chosen.texts.append(chunk)

    def _split(self, chosen: _Chosen) -> None:
        if not chosen.split or self.step.how is None:
            return
        how, embedder = self.step.how, self._embedder()
        hashed = [(document, content_hash(document, how)) for _, document in chosen.split]
        outcomes = self.runner.run(self.preparation.prepare(hashed, how, embedder.token_spans))
        for (place, _), outcome in zip(chosen.split, outcomes, strict=True):
            match outcome:
                case Prepared():
                    chosen.texts.extend(outcome.chunks)
                    chosen.documents.append(outcome.record)
                case PenstockError():
                    chosen.refused.append(Refused(place=place, message=outcome.message))

    def _checked(self, chosen: _Chosen) -> tuple[list[Chunk], Matrix]:
        """The ready chunks whose vectors are right, without them, and the vectors."""
        spec = self.step.spec
        good = chosen.ready
        try:
            vectors = _vectors(spec, [chunk for _, chunk in good]) if good else np.empty((0, spec.dimension), np.float32)
        except InvalidArgument:
            good = [each for each in chosen.ready if self._is_right(*each, chosen)]
            vectors = _vectors(spec, [chunk for _, chunk in good]) if good else np.empty((0, spec.dimension), np.float32)
        return [replace(chunk, vector=b"") for _, chunk in good], vectors

    def _is_right(self, place: str, chunk: Chunk, chosen: _Chosen) -> bool:
        try:
            _vectors(self.step.spec, [chunk])
        except InvalidArgument as error:
            chosen.refused.append(Refused(place=place, message=error.message))
            return False
        return True

    def _embed(self, texts: Sequence[str]) -> Matrix:
        return embed_texts(self._embedder(), texts, self.step.limits.pass_tokens_max)

    def _embedder(self) -> Embedder:
        if self.loaded is None:
            assert self.step.source is not None  # noqa: S101  # Texts without a model were refused.
            self.loaded = self.step.source.load()
        return self.loaded


def embed_texts(embedder: Embedder, texts: Sequence[str], pass_tokens_max: int) -> Matrix:
    """A vector for each text, of any length; each distinct text is embedded once."""
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    pieces = [split_to_windows(text, embedder.token_spans, embedder.model.window_tokens) for text in distinct]
    windows = [window for each in pieces for window in each]
    vectors = np.empty((len(windows), embedder.model.dimension), np.float32)
    for places in plan_passes([count for _, count in windows], pass_tokens_max):
        vectors[places] = embedder.embed([windows[at][0] for at in places])
    combined = combine_windows(vectors, [[count for _, count in each] for each in pieces])
    return combined[[distinct[text] for text in texts]]


def _vectors(spec: CollectionSpec, chunks: Sequence[Chunk]) -> Matrix:
    names = ("its vector" for _ in chunks)
    return checks.vectors([chunk.vector for chunk in chunks], names, dimension=spec.dimension, metric=spec.metric)
