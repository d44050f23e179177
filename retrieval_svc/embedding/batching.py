"""Texts to vectors: batched across requests, with nothing of a long text cut off."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
from opentelemetry.trace import Span as TraceSpan
from opentelemetry.trace import Tracer
from opentelemetry.util.types import AttributeValue

from penstock import semconv
from penstock.tracing import inner_span
from retrieval_svc.embedding.cache import VectorCache
from retrieval_svc.embedding.embedder import Embedded, Embedder, Purpose
from retrieval_svc.embedding.prompts import NO_PROMPTS, Prompts, prompted
from retrieval_svc.ingest.chunking import Span, split_to_windows
from retrieval_svc.values import EmbeddingModel, Matrix, Vector
from retrieval_svc.worker import Lane, Worker

QUERIES: Final = 0
"""The lane of searches, which people wait for."""
WRITES: Final = 1
"""The lane of ingestion. The lanes take turns, so that a search waits for a few texts of a long ingestion, and no more."""


_QUERIES_OF_A_JOB: Final = 8
"""A batch of searches waits as jobs of so many texts, so that single searches get in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    texts: Sequence[str]
    purpose: Purpose


class Embeddings:
    """An embedder behind a thread and two bounded lanes.

    A text longer than the window is embedded window by window; its vector is the mean of theirs weighted by tokens, brought to
    their mean length (which is 1 where the model normalises). Each window has the prompt of the text's purpose. `turned` hears
    how many texts each turn of the model had.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        tracer: Tracer,
        query_batch_max: int,
        query_waiting_max: int,
        write_batch_max: int,
        pass_tokens_max: int,
        prompts: Prompts = NO_PROMPTS,
        cache: VectorCache | None = None,
        turned: Callable[[int], None] | None = None,
    ) -> None:
        self._embedders = prompted(embedder, prompts)
        self._tracer = tracer
        self._cache = cache or VectorCache(0)
        self._pass_tokens_max = pass_tokens_max
        self._write_batch_max = write_batch_max
        self._turned = turned
        lanes = (
            Lane(batch_max=query_batch_max, waiting_max=query_waiting_max),
            Lane(batch_max=1, waiting_max=1),  # Writes are admitted elsewhere and have one job each in here.
        )
        self._worker = Worker[_Job, Embedded](name="embedding", work=self._work, lanes=lanes)

    @property
    def model(self) -> EmbeddingModel:
        """The loaded model. Its window is what a document has of it."""
        return self._embedders[Purpose.DOCUMENT].model

    @property
    def token_spans(self) -> Callable[[str], list[Span]]:
        """How the model cuts a text into tokens."""
        return self._embedders[Purpose.DOCUMENT].token_spans

    async def query(self, text: str) -> Vector:
        """The vector of a search's text. Raises Overloaded when too many wait."""
        vector: Vector = (await self.queries([text]))[0]
        return vector

    async def queries(self, texts: Sequence[str]) -> Matrix:
        """One vector a text. Raises Overloaded when too many wait."""
        return (await self.embed(texts, Purpose.QUERY))[0]

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """A vector for each text of a write, a few texts at a time so that searches get their turns."""
        return (await self.embed(texts, Purpose.DOCUMENT))[0]

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> tuple[Matrix, int]:
        """A vector a text, and the tokens of all. Vectors that are kept cost nothing. Raises Overloaded, queries only."""
        with self._span() as span:
            batch_size = 0

            async def make(missing: list[str]) -> Embedded:
                nonlocal batch_size
                embedded = await self._run(missing, purpose)
                batch_size = max(batch_size, embedded.batch_size)
                return embedded

            vectors, token_count = await self._cache.embed(self.model.fingerprint, purpose, texts, make)
            span.set_attribute(semconv.GEN_AI_USAGE_INPUT_TOKENS, token_count)
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, batch_size)
            return vectors, token_count

    async def _run(self, texts: list[str], purpose: Purpose) -> Embedded:
        """Through the purpose's lane. Queries wait all at once; of a write, a job waits when the one before it is done."""
        if purpose is Purpose.QUERY:
            parts = await asyncio.gather(
                *(self._worker.run(job, lane=QUERIES) for job in _jobs(texts, purpose, _QUERIES_OF_A_JOB))
            )
        else:
            jobs = _jobs(texts, purpose, self._write_batch_max)
            parts = [await self._worker.run(job, lane=WRITES, always=True) for job in jobs]
        return Embedded(
            vectors=np.concatenate([part.vectors for part in parts]),
            token_counts=tuple(count for part in parts for count in part.token_counts),
            batch_size=max(part.batch_size for part in parts),
        )

    async def close(self) -> None:
        """Ends the thread."""
        await self._worker.close()

    def _span(self) -> AbstractContextManager[TraceSpan]:
        attributes: dict[str, AttributeValue] = {
            semconv.GEN_AI_OPERATION_NAME: "embeddings",
            semconv.GEN_AI_REQUEST_MODEL: self.model.name,
            semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: self.model.dimension,
        }
        return inner_span(self._tracer, f"embeddings {self.model.name}", attributes)

    def _work(self, jobs: list[_Job]) -> list[Embedded]:
        embedder = self._embedders[jobs[0].purpose]  # A lane has one purpose, and a batch comes from one lane.
        texts = [text for job in jobs for text in job.texts]
        if self._turned is not None:
            self._turned(len(texts))
        windows = [split_to_windows(text, embedder.token_spans, embedder.model.window_tokens) for text in texts]
        vectors = self._embed_all(embedder, [window for pieces in windows for window in pieces])
        counts = [[count for _, count in pieces] for pieces in windows]
        means = combine_windows(vectors, counts)
        results, at = [], 0
        for job in jobs:
            end = at + len(job.texts)
            results.append(Embedded(vectors=means[at:end], token_counts=tuple(map(sum, counts[at:end])), batch_size=len(texts)))
            at = end
        return results

    def _embed_all(self, embedder: Embedder, windows: Sequence[tuple[str, int]]) -> Matrix:
        vectors = np.empty((len(windows), embedder.model.dimension), dtype=np.float32)
        for places in plan_passes([count for _, count in windows], self._pass_tokens_max):
            vectors[places] = embedder.embed([windows[at][0] for at in places])
        return vectors


def _jobs(texts: list[str], purpose: Purpose, size: int) -> list[_Job]:
    return [_Job(texts=texts[at : at + size], purpose=purpose) for at in range(0, len(texts), size)]


def plan_passes(token_counts: Sequence[int], tokens_max: int) -> Iterator[list[int]]:
    """Which texts go through the model together: those of like length, as many as are `tokens_max` when padded to the longest.

    Padding is computed on like anything else, and a pass that outgrows the caches of a CPU is slower for each of its texts.
    """
    places: list[int] = []
    for at in sorted(range(len(token_counts)), key=token_counts.__getitem__):
        if places and token_counts[at] * (len(places) + 1) > tokens_max:
            yield places
            places = []
        places.append(at)
    if places:
        yield places


def combine_windows(vectors: Matrix, token_counts: Sequence[Sequence[int]]) -> Matrix:
    """One vector for each text out of its windows' (consecutive rows of `vectors`, with the tokens of each)."""
    if len(vectors) == len(token_counts):
        return vectors
    combined, at = [], 0
    for counts in token_counts:
        windows = vectors[at : at + len(counts)]
        combined.append(_weighted_mean(windows, counts) if len(counts) > 1 else windows[0])
        at += len(counts)
    return np.stack(combined)


def _weighted_mean(vectors: Matrix, counts: Sequence[int]) -> Vector:
    weights = np.maximum(np.asarray(counts, dtype=np.float64), 1.0)
    wide = vectors.astype(np.float64)
    mean = np.average(wide, axis=0, weights=weights)
    length = np.linalg.norm(mean)
    if length == 0.0:  # Windows that cancel out exactly: any of them says more than nothing.
        mean, length = wide[0], np.linalg.norm(wide[0])
    wanted = np.average(np.linalg.norm(wide, axis=1), weights=weights)
    combined: Vector = (mean * (wanted / max(length, np.finfo(np.float64).tiny))).astype(np.float32)
    return combined
