"""`penstock bench retrieval`: a collection of a running service, searched by vectors, one setting after the other."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

import grpc
import orjson
from rich.console import Console

from penstock.cli.benchmark.loops import PERCENTS, Call, Measured, Window, closed_loop, open_loop, percentile
from penstock.cli.benchmark.query_vectors import Matrix, draw_vectors, read_vectors
from penstock.cli.benchmark.report import check_plot, draw_plot, table_of
from penstock.cli.command import api_key
from penstock.clients import Collection, Hit, Query, RetrievalClient
from penstock.clients.retrieval_messages import collection_name
from penstock.clients.search_messages import search_message

METHOD: Final = "/penstock.retrieval.v1.RetrievalService/Search"
_ANSWER_BYTES_MAX: Final = 64 * 2**20
_RECALL_BATCH: Final = 32
_SCORE_ROUNDING: Final = 1e-6
"""Scores nearer than that are one: of vectors that are as near as each other any may be found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to ask, and how. With a `rate` the loop is open, else closed with `in_flight` callers.

    `settings` are the values of `parameter` ("ef_search" or "nprobe") to try; none: the collection's own.
    """

    collection: str
    target: str
    queries: Path | None = None
    draw: int = 1000
    top_k: int = 10
    parameter: str = "ef_search"
    settings: Sequence[int] = ()
    in_flight: int = 32
    rate: float = 0.0
    seconds: float = 3.0
    warmup_s: float = 1.0
    rounds: int = 3
    recall_queries: int = 200
    timeout_s: float = 30.0
    seed: int = 0
    json_file: Path | None = None
    plot_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingResult:
    """One setting: what share of the exact answers' hits it finds, and its windows, one a round."""

    setting: int | None
    recall: float
    windows: tuple[Measured, ...]

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return median(window.rate for window in self.windows)

    @property
    def errors(self) -> int:
        """Of all rounds."""
        return sum(sum(window.faults.values()) for window in self.windows)

    @property
    def client_cores(self) -> float:
        """The median of the rounds."""
        return median(window.client_cores for window in self.windows)

    @property
    def latency_ms(self) -> dict[str, float]:
        """Percentiles over the answers of all rounds together."""
        took = [each for window in self.windows for each in window.took_ms]
        return {name: percentile(took, percent) for name, percent in PERCENTS.items()}


async def bench_retrieval(options: BenchOptions, console: Console) -> None:
    """Measures, prints a table, writes what was asked for."""
    if options.plot_file:
        check_plot(options.plot_file)  # Told now, and not when everything has been measured.
    async with RetrievalClient(options.target, api_key=api_key()) as client:
        collection = await client.get_collection(options.collection)
        queries = await _queries(client, collection, options)
        with console.status("recall"):
            recalls = {setting: await recall(client, queries, options, setting) for setting in _settings(options)}
        results = await _measured(queries, recalls, options, console)
    console.print(table_of(results, collection, options))
    if options.json_file:
        options.json_file.write_bytes(_json(results, collection, options))
    if options.plot_file:
        draw_plot(options.plot_file, results, options)


async def _queries(client: RetrievalClient, collection: Collection, options: BenchOptions) -> Matrix:
    if options.queries:
        return await asyncio.to_thread(read_vectors, options.queries, dimension=collection.dimension)
    return await draw_vectors(client, options.collection, options.draw, seed=options.seed)


async def recall(client: RetrievalClient, queries: Matrix, options: BenchOptions, setting: int | None) -> float:
    """The share of the exact answers' hits that a setting finds, the mean over the first of the queries."""
    shares: list[float] = []
    asked = queries[: options.recall_queries]
    for at in range(0, len(asked), _RECALL_BATCH):
        batch = [query.tobytes() for query in asked[at : at + _RECALL_BATCH]]
        common: dict[str, Any] = {"top_k": options.top_k, "fields": ("document_id",)}
        tried = common | ({} if setting is None else {options.parameter: setting})
        exact = [cast("Query", {"query": query, "exact": True, **common}) for query in batch]
        found = [cast("Query", {"query": query, **tried}) for query in batch]
        answers = await client.search_batch(options.collection, exact), await client.search_batch(options.collection, found)
        shares += [share(list(best), list(hits)) for best, hits in zip(*answers, strict=True)]
    return sum(shares) / len(shares)


def share(exact: Sequence[Hit], found: Sequence[Hit]) -> float:
    """Of the exact hits, the share that was found; a hit that scores as well as the last of them is as good."""
    if not exact:
        return 1.0
    known, enough = {hit.chunk_id for hit in exact}, exact[-1].score - _SCORE_ROUNDING
    return sum(hit.chunk_id in known or hit.score >= enough for hit in found) / len(exact)


async def _measured(
    queries: Matrix, recalls: Mapping[int | None, float], options: BenchOptions, console: Console
) -> list[SettingResult]:
    """Every setting once a round, beginning one further each round, so that what drifts meets them all alike."""
    windows: dict[int | None, list[Measured]] = {setting: [] for setting in recalls}
    order = list(recalls)
    with console.status("") as status:
        for number in range(options.rounds):
            for setting in (*order[number % len(order) :], *order[: number % len(order)]):
                status.update(f"{options.parameter} {setting or 'of the collection'}, round {number + 1} of {options.rounds}")
                async with calling(queries, options, setting) as call:
                    windows[setting].append(await _window(call, options, seed=options.seed + number))
    return [
        SettingResult(setting=setting, recall=recalls[setting], windows=tuple(measured))
        for setting, measured in windows.items()
    ]


async def _window(call: Call, options: BenchOptions, *, seed: int) -> Measured:
    window = Window(seconds=options.seconds, warmup_s=options.warmup_s)
    if options.rate:
        return await open_loop(call, rate=options.rate, window=window, seed=seed)
    return await closed_loop(call, in_flight=options.in_flight, window=window)


@asynccontextmanager
async def calling(queries: Matrix, options: BenchOptions, setting: int | None) -> AsyncIterator[Call]:
    """Searches as bytes that were made beforehand, whose answers are not parsed: the client must not be what is measured."""
    asked: Any = {"top_k": options.top_k} | ({} if setting is None else {options.parameter: setting})
    name = collection_name(options.collection)
    requests = [search_message(name, query.tobytes(), asked).SerializeToString() for query in queries]
    key = api_key()
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    async with grpc.aio.insecure_channel(
        options.target, options=[("grpc.max_receive_message_length", _ANSWER_BYTES_MAX)]
    ) as channel:
        method: Any = channel.unary_unary(METHOD, None, None)

        async def call(number: int) -> str:
            try:
                await method(requests[number % len(requests)], timeout=options.timeout_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return ""

        yield call


def _settings(options: BenchOptions) -> tuple[int | None, ...]:
    return tuple(options.settings) or (None,)


def _json(results: Sequence[SettingResult], collection: Collection, options: BenchOptions) -> bytes:
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    kept = {
        "collection": {
            "name": collection.name,
            "chunks": collection.chunk_count,
            "dimension": collection.dimension,
            "index": collection.index_kind_in_use,
            "shards": collection.shard_count,
        },
        "options": asked,
        "results": [
            {
                options.parameter: result.setting,
                "recall": result.recall,
                "queries_per_second": result.rate,
                "latency_ms": result.latency_ms,
                "errors": result.errors,
                "client_cores": result.client_cores,
                "rounds": [
                    {"queries_per_second": each.rate, "faults": each.faults, "client_cores": each.client_cores}
                    for each in result.windows
                ],
            }
            for result in results
        ],
    }
    return orjson.dumps(kept, option=orjson.OPT_INDENT_2)
