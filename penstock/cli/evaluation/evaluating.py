"""`penstock eval retrieval`: every way of searching over a judged corpus, as a table or as JSON."""

import json
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.cli.command import api_key
from penstock.cli.evaluation.judged_corpus import JudgedCorpus, read_folder
from penstock.cli.evaluation.rankings import WAYS, filled_collection, rankings
from penstock.cli.local import LocalStack
from penstock.clients import Collection, RetrievalClient
from penstock.ranking_quality import Mean, Measure, mean_over_queries, ndcg, recall, reciprocal_rank

MEASURES: Final[Mapping[str, tuple[Measure, int]]] = {
    "nDCG@10": (ndcg, 10),
    "recall@10": (recall, 10),
    "recall@100": (recall, 100),
    "MRR@10": (reciprocal_rank, 10),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What to evaluate, and where. Without a `target` a service is started for it."""

    folder: Path
    target: str = ""
    collection: str = ""
    keep: bool = False
    split: bool = False
    qrels: str = "test"
    ways: Sequence[str] = tuple(WAYS)
    ignore_identical_ids: bool = False
    as_json: bool = False


async def evaluate_retrieval(options: EvaluationOptions, console: Console) -> None:
    """Prints how good each way's rankings are. Progress goes to `console`, the result to standard output."""
    corpus = read_folder(options.folder, split=options.qrels)
    async with _service(options.target, console) as target, RetrievalClient(target, api_key=api_key()) as client:
        with _progress(console) as progress:
            collection, means = await _evaluated(client, corpus, options, progress)
    if options.as_json:
        print(json.dumps(_plain(corpus, collection, means), indent=2))
    else:
        Console(highlight=False).print(table_of(corpus, collection, means))


async def _evaluated(
    client: RetrievalClient, corpus: JudgedCorpus, options: EvaluationOptions, progress: Progress
) -> tuple[Collection, dict[str, dict[str, Mean]]]:
    filling = progress.add_task("embedding and storing", total=len(corpus.documents))
    queries = corpus.judged_queries
    async with filled_collection(
        client,
        corpus,
        name=options.collection,
        keep=options.keep,
        split=options.split,
        heard=partial(progress.advance, filling),
    ) as name:
        means = {}
        for way in options.ways:
            task = progress.add_task(way, total=len(queries))
            found = await rankings(client, name, queries, WAYS[way], partial(progress.advance, task))
            means[way] = means_of(found, corpus, ignore_identical_ids=options.ignore_identical_ids)
        return await client.get_collection(name), means


def means_of(found: Mapping[str, Sequence[str]], corpus: JudgedCorpus, *, ignore_identical_ids: bool) -> dict[str, Mean]:
    """Every measure of some rankings. A query's own document counts for nothing where `ignore_identical_ids` is set."""
    ranked = {query: [each for each in ids if not (ignore_identical_ids and each == query)] for query, ids in found.items()}
    judged = {query: corpus.judgements[query] for query in corpus.judged_queries}
    return {name: mean_over_queries(measure, ranked, judged, depth) for name, (measure, depth) in MEASURES.items()}


def table_of(corpus: JudgedCorpus, collection: Collection, means: Mapping[str, Mapping[str, Mean]]) -> Table:
    """The means, each with its interval."""
    left_out = f", {len(corpus.empty_ids)} empty ones left out" if corpus.empty_ids else ""
    table = Table(
        title=f"{corpus.name}: {len(corpus.documents):,} documents{left_out}, {len(corpus.judged_queries):,} queries",
        caption=f"{collection.chunk_count:,} chunks by {collection.embedding_fingerprint}. "
        "Below each mean: 95 % of the means of resampled queries.",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for column in ("search", *MEASURES):
        table.add_column(column, no_wrap=True)
    for way, by_measure in means.items():
        cells = (f"{mean.value:.4f}\n[dim]{mean.low:.3f}-{mean.high:.3f}[/]" for mean in by_measure.values())
        table.add_row(way, *cells)
    return table


def _plain(corpus: JudgedCorpus, collection: Collection, means: Mapping[str, Mapping[str, Mean]]) -> dict[str, Any]:
    return {
        "corpus": corpus.name,
        "documents": len(corpus.documents),
        "documents_left_out": list(corpus.empty_ids),
        "queries": len(corpus.judged_queries),
        "chunks": collection.chunk_count,
        "embedding_model": collection.embedding_model,
        "embedding_fingerprint": collection.embedding_fingerprint,
        "index": collection.index_kind_in_use,
        "searches": {way: {name: asdict(mean) for name, mean in each.items()} for way, each in means.items()},
    }


@asynccontextmanager
async def _service(target: str, console: Console) -> AsyncIterator[str]:
    """The address of a service: the one that is given, or one of our own over a folder that goes with it."""
    if target:
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="penstock-eval-") as folder:
        environment = {"PENSTOCK_RETRIEVAL_LOG_LEVEL": "WARNING", "OTEL_TRACES_EXPORTER": "none"}
        stack = LocalStack(Path(folder), fixed_ports=False, environment=environment, names=("retrieval",))
        began = time.monotonic()
        await stack.start(lambda _: None)
        console.print(f"[dim]a retrieval service of its own was ready after {time.monotonic() - began:.1f} s[/]")
        try:
            yield stack.services["retrieval"].grpc
        finally:
            await stack.stop()


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)
