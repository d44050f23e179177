"""Reranking: scores of query and text together, batched across requests on a thread of its own."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import Tracer

from penstock import semconv
from penstock.errors import FailedPrecondition, InvalidArgument, ModelNotFound, Violation
from penstock.tracing import inner_span
from retrieval_svc.worker import Lane, Worker

Pair = tuple[str, str]
"""A query and a text."""
PairScores = NDArray[np.float32]

_JOB_PAIRS_MAX: Final = 16
"""Pairs of one turn of one request: a request with many candidates takes turns with the others that wait."""


class Reranker(Protocol):
    """A cross-encoder that is loaded. `score` is called from one thread."""

    @property
    def name(self) -> str:
        """The name by which requests know it."""
        ...

    def score(self, pairs: Sequence[Pair]) -> PairScores:
        """One score a pair, higher is better. Takes pairs of any length and of different queries."""
        ...


class Reranking:
    """A reranker behind a thread and a bounded queue. `batch_max` requests share a turn at most."""

    def __init__(self, reranker: Reranker, *, tracer: Tracer, batch_max: int, waiting_max: int) -> None:
        self._reranker = reranker
        self._tracer = tracer
        lanes = (Lane(batch_max=batch_max, waiting_max=waiting_max),)
        self._worker = Worker[Sequence[Pair], PairScores](name="reranking", work=self._work, lanes=lanes)

    @property
    def name(self) -> str:
        """The name by which requests know it."""
        return self._reranker.name

    async def scores(self, query: str, texts: Sequence[str]) -> PairScores:
        """The score of each text. Raises Overloaded when too many requests wait."""
        with inner_span(self._tracer, "rerank") as span:
            if span.is_recording():
                span.set_attribute(semconv.GEN_AI_REQUEST_MODEL, self.name)
                span.set_attribute(semconv.PENSTOCK_CANDIDATE_COUNT, len(texts))
            scores = np.empty(len(texts), dtype=np.float32)
            # Texts of like length go together, for a pass is padded to its longest.
            order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
            for at in range(0, len(order), _JOB_PAIRS_MAX):
                places = order[at : at + _JOB_PAIRS_MAX]
                pairs = [(query, texts[place]) for place in places]
                scores[places] = await self._worker.run(pairs, always=at > 0)  # Who was let in is not turned away half way.
            return scores

    async def close(self) -> None:
        """Ends the thread."""
        await self._worker.close()

    def _work(self, jobs: list[Sequence[Pair]]) -> list[PairScores]:
        scores = self._reranker.score([pair for job in jobs for pair in job])
        ends = np.cumsum([len(job) for job in jobs])
        return np.split(scores, ends[:-1])


def reranking_named(name: str, loaded: Mapping[str, Reranking]) -> Reranking:
    """The reranker of that name; of none, the only one.

    Raises FailedPrecondition where none is loaded, ModelNotFound for another's name, InvalidArgument where one must be chosen.
    """
    if not loaded:
        message = "no reranker is loaded here: leave reranking out, or start the service with one"
        raise FailedPrecondition(message, metadata={"field": "reranking"})
    names = ", ".join(sorted(loaded))
    if not name and len(loaded) > 1:
        message = f"several rerankers are loaded; name one of {names}"
        violation = Violation(message=message, field="reranking.model")
        raise InvalidArgument(message, metadata={"field": violation.field}, violations=[violation])
    if name and name not in loaded:
        message = f"no reranker {name!r} is loaded; there is {names}"
        raise ModelNotFound(message, metadata={"model": name, "loaded": names, "field": "reranking.model"})
    return loaded[name] if name else next(iter(loaded.values()))
