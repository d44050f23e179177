"""Texts to vectors: batched across requests, with nothing of a long text cut off."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from opentelemetry.trace import Span as TraceSpan
from opentelemetry.trace import Tracer
from opentelemetry.util.types import AttributeValue

from penstock import semconv
from retrieval_svc.ingest.chunking import Span, split_to_windows
from retrieval_svc.values import EmbeddingModel, Matrix, Vector
from retrieval_svc.worker import Lane, Worker

QUERIES: Final = 0
"""The lane of searches, which people wait for."""
WRITES: Final = 1
"""The lane of ingestion. The lanes take turns, so that a search waits for a few texts of a long ingestion, and no more."""


class Embedder(Protocol):
    """A model that is loaded. `embed` is called from one thread; `token_spans` from any."""

    @property
    def model(self) -> EmbeddingModel:
        """What it is."""
        ...

    def token_spans(self, text: str) -> list[Span]:
        """The spans of the text's tokens, [start, end) in characters, without special tokens. Takes a text of any length."""
        ...

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text, shape (len(texts), dimension), in one pass. Every text fits the window."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What became of one job: a vector a text, the tokens in them, and how many texts shared its turn."""

    vectors: Matrix
    token_count: int
    batch_size: int


class Embeddings:
    """An embedder behind a thread and two bounded lanes.

    A text longer than the window is embedded window by window; its vector is the mean of theirs weighted by tokens, brought to
    their mean length (which is 1 where the model normalises).
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
    ) -> None:
        self._embedder = embedder
        self._tracer = tracer
        self._pass_tokens_max = pass_tokens_max
        self._write_batch_max = write_batch_max
        lanes = (
            Lane(batch_max=query_batch_max, waiting_max=query_waiting_max),
            Lane(batch_max=1, waiting_max=1),  # Writes are admitted elsewhere and have one job each in here.
        )
        self._worker = Worker[Sequence[str], Embedded](name="embedding", work=self._work, lanes=lanes)

    @property
    def model(self) -> EmbeddingModel:
        """The loaded model."""
        return self._embedder.model

    @property
    def token_spans(self) -> Callable[[str], list[Span]]:
        """How the model cuts a text into tokens."""
        return self._embedder.token_spans

    async def query(self, text: str) -> Vector:
        """The vector of a search's text. Raises Overloaded when too many wait."""
        with self._span() as span:
            embedded = await self._worker.run([text], lane=QUERIES)
            span.set_attribute(semconv.GEN_AI_USAGE_INPUT_TOKENS, embedded.token_count)
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, embedded.batch_size)
            vector: Vector = embedded.vectors[0]
            return vector

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """A vector for each text of a write, a few texts at a time so that searches get their turns."""
        with self._span() as span:
            parts = [
                await self._worker.run(texts[at : at + self._write_batch_max], lane=WRITES, always=True)
                for at in range(0, len(texts), self._write_batch_max)
            ]
            span.set_attribute(semconv.GEN_AI_USAGE_INPUT_TOKENS, sum(part.token_count for part in parts))
            span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, len(texts))
            return np.concatenate([part.vectors for part in parts])

    async def close(self) -> None:
        """Ends the thread."""
        await self._worker.close()

    def _span(self) -> AbstractContextManager[TraceSpan]:
        attributes: dict[str, AttributeValue] = {
            semconv.GEN_AI_OPERATION_NAME: "embeddings",
            semconv.GEN_AI_REQUEST_MODEL: self.model.name,
            semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: self.model.dimension,
        }
        return self._tracer.start_as_current_span(f"embeddings {self.model.name}", attributes=attributes)

    def _work(self, jobs: list[Sequence[str]]) -> list[Embedded]:
        texts = [text for job in jobs for text in job]
        windows = [split_to_windows(text, self._embedder.token_spans, self.model.window_tokens) for text in texts]
        vectors = self._embed_all([window for pieces in windows for window in pieces])
        counts = [[count for _, count in pieces] for pieces in windows]
        means = combine_windows(vectors, counts)
        results, at = [], 0
        for job in jobs:
            end = at + len(job)
            tokens = sum(map(sum, counts[at:end]))
            results.append(Embedded(vectors=means[at:end], token_count=tokens, batch_size=len(texts)))
            at = end
        return results

    def _embed_all(self, windows: Sequence[tuple[str, int]]) -> Matrix:
        vectors = np.empty((len(windows), self.model.dimension), dtype=np.float32)
        for places in plan_passes([count for _, count in windows], self._pass_tokens_max):
            vectors[places] = self._embedder.embed([windows[at][0] for at in places])
        return vectors


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
