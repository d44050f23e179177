"""What a text costs on each backend of the embedding model, and how good the rankings by its vectors are, side by side."""

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from bench.corpus import CORPUS
from bench.embedding_reference import DEFAULT, Matrix
from bench.plan import Plan
from bench.processes import Worker, worker
from bench.report import PartResult, Table, number, times
from bench.rounds import Tell, turned
from penstock.cli.evaluation.judged_corpus import JudgedCorpus, read_folder
from penstock.ranking_quality import mean_over_queries, ndcg
from retrieval_svc.settings import RetrievalSettings

NAME: Final = "embedding"
BACKENDS: Final = (DEFAULT, "torch", "onnxruntime", "openvino")
_KINDS: Final[Mapping[str, tuple[str, bool]]] = {
    "passage": ("documents", True),
    "query": ("queries", False),
    "query of 32": ("queries", True),
}
"""What is timed: which texts, and whether together."""
_TEXTS: Final = 32
_DEPTH: Final = 10
_MODEL: Final = RetrievalSettings.model_fields["embedding_model"].default


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A backend: its process, what a text cost in each round by kind, and nDCG@10 by corpus."""

    backend: str
    worker: Worker
    loaded_s: float
    costs: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})
    quality: dict[str, float] = field(default_factory=dict)

    def cpu_ms(self, kind: str) -> list[float]:
        """A round each."""
        return [each["cpu_ms"] for each in self.costs[kind]]


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part: costs in rounds over the first corpus, then each corpus's ranking on each backend."""
    corpora = [read_folder(Path(each)) for each in plan.corpora or (str(CORPUS),)]
    async with _loaded(folder, tell) as rows:
        for each in range(plan.rounds):
            for row in turned(rows, each):
                tell(f"embedding: {row.backend}, round {each + 1}")
                await _cost(row, corpora[0])
        for corpus in corpora:
            for row in rows:
                tell(f"embedding: {row.backend} over {corpus.name}")
                row.quality[corpus.name] = await _quality(row.worker, corpus)
    raw = tuple(
        {"backend": row.backend, "loaded_s": row.loaded_s, "costs": row.costs, "ndcg_at_10": row.quality} for row in rows
    )
    return PartResult(name=NAME, tables=(_costs(rows), _qualities(rows, [corpus.name for corpus in corpora])), raw=raw)


@asynccontextmanager
async def _loaded(folder: Path, tell: Tell) -> AsyncIterator[list[Row]]:
    rows = []
    async with AsyncExitStack() as stack:
        for backend in BACKENDS:
            tell(f"embedding: loading {backend}")
            process = await stack.enter_async_context(worker("embedding", folder / backend))
            asked: dict[str, Any] = {"backend": backend, "reference": _MODEL, "cache_dir": str(folder / "prepared")}
            loaded = await process.ask("load", **asked)
            rows.append(Row(backend=backend, worker=process, loaded_s=loaded["seconds"]))
        yield rows


async def _cost(row: Row, corpus: JudgedCorpus) -> None:
    texts = {"documents": corpus.documents, "queries": corpus.judged_queries}
    for kind, (which, together) in _KINDS.items():
        some = list(islice(texts[which].values(), _TEXTS))
        row.costs[kind].append(await row.worker.ask("cost", texts=some, together=together))


async def _quality(process: Worker, corpus: JudgedCorpus) -> float:
    """nDCG@10 of exact search by inner product."""
    ids, queries = list(corpus.documents), corpus.judged_queries
    documents = _matrix(await process.ask("vectors", texts=list(corpus.documents.values())), len(ids))
    asked = _matrix(await process.ask("vectors", texts=list(queries.values())), len(queries))
    nearest = np.argsort(-(asked @ documents.T), axis=1, kind="stable")[:, :_DEPTH]
    rankings = {query: [ids[at] for at in row] for query, row in zip(queries, nearest, strict=True)}
    return mean_over_queries(ndcg, rankings, corpus.judgements, _DEPTH).value


def _matrix(encoded: str, rows: int) -> Matrix:
    return np.frombuffer(base64.b64decode(encoded), dtype=np.float32).reshape(rows, -1)


def _costs(rows: Sequence[Row]) -> Table:
    default = rows[0]
    return Table(
        title="An embedding on one thread, beside sentence-transformers as it comes (default)",
        note="CPU in ms a text. passage, query of 32: 32 at once; query: one a call. Loading: preparing included.",
        columns=("backend", "passage", "to default", "query", "to default", "query of 32", "alone to of 32", "loading s"),
        rows=tuple(
            (
                row.backend,
                number(median(row.cpu_ms("passage"))),
                times(_ratio(default.cpu_ms("passage"), row.cpu_ms("passage"))),
                number(median(row.cpu_ms("query"))),
                times(_ratio(default.cpu_ms("query"), row.cpu_ms("query"))),
                number(median(row.cpu_ms("query of 32"))),
                times(_ratio(row.cpu_ms("query"), row.cpu_ms("query of 32"))),
                number(row.loaded_s),
            )
            for row in rows
        ),
    )


def _ratio(reference: Sequence[float], ours: Sequence[float]) -> float:
    return median(theirs / own for theirs, own in zip(reference, ours, strict=True))


def _qualities(rows: Sequence[Row], names: Sequence[str]) -> Table:
    default = rows[0]
    return Table(
        title="nDCG@10 by exact search over the vectors of each backend",
        note="In brackets: the difference to the default.",
        columns=("backend", *names),
        rows=tuple(
            (row.backend, *(f"{row.quality[name]:.4f} ({row.quality[name] - default.quality[name]:+.4f})" for name in names))
            for row in rows
        ),
    )
