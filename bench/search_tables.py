"""The search part's tables."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Table, middle, number, times

if TYPE_CHECKING:
    from bench.search_part import Row


def search_tables(by_vector: Sequence["Row"], by_text: Sequence["Row"], memory: Mapping[str, float]) -> tuple[Table, ...]:
    """All of them."""
    return (_by_vector(by_vector), _by_text(by_text), _memory(memory))


def _by_vector(rows: Sequence["Row"]) -> Table:
    return Table(
        title="Search by vector, 10 of N, 384 dimensions, exact: gRPC beside IndexFlatIP in a process of its own",
        note="CPU in microseconds a query. one by one, batched: FAISS alone, a query a call, as many a call as are in flight.",
        columns=(
            "chunks", "in flight", "queries/s", "p50 ms", "p99 ms", "errors", "CPU service", "FAISS one by one",
            "FAISS batched", "to one by one", "to batched", "added us", "same ids", "other",
        ),
        rows=tuple(_row(row, f"{row.same_ids:.4f}") for row in rows),
    )  # fmt: skip


def _by_text(rows: Sequence["Row"]) -> Table:
    return Table(
        title="Search by text (questions of the example corpus): gRPC beside the embedding model in a process of its own",
        note="CPU in microseconds a query. one by one, batched: the model alone, a text a call, and as many as are in flight. "
        "Aims: 1.30 x the model at each load, and at 32 in flight 2.50 x the queries/s of one by one. Nothing is cached.",
        columns=(
            "chunks", "in flight", "queries/s", "p50 ms", "p99 ms", "errors", "CPU service", "model one by one",
            "model batched", "to one by one", "to batched", "added us", "queries/s to one by one", "other",
        ),
        rows=tuple(_row(row, times(_throughput(row))) for row in rows),
    )  # fmt: skip


def _row(row: "Row", *more: str) -> tuple[str, ...]:
    service = [1000 * sample.cpu_ms("retrieval") for sample in row.service]
    alone = [reference.cpu_us for reference in row.alone]
    batched = [reference.cpu_us for reference in row.batched]
    return (
        f"{row.chunks:,}",
        str(row.in_flight),
        number(middle(row.service, lambda each: each.rate)),
        number(middle(row.service, lambda each: each.p50_ms)),
        number(middle(row.service, lambda each: each.p99_ms)),
        str(sum(each.errors for each in row.service)),
        number(median(service)),
        number(median(alone)),
        number(median(batched)),
        times(_ratio(service, alone)),
        times(_ratio(service, batched)),
        number(median(ours - library for ours, library in zip(service, batched, strict=True))),
        *more,
        number(middle(row.service, lambda each: each.other_cores), 2),
    )


def _throughput(row: "Row") -> float:
    """Queries a second of the service to texts a second of the model called with one at a time."""
    pairs = zip(row.service, row.alone, strict=True)
    return median(sample.rate * alone.wall_us / 1e6 for sample, alone in pairs)


def _ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, reference, strict=True))


def _memory(memory: Mapping[str, float]) -> Table:
    return Table(
        title="Memory of the retrieval service (RSS, MiB)",
        note="A chunk here is 500 bytes of text and 1,536 bytes of vector; the rest is the embedding model and what runs it.",
        columns=("when", "MiB"),
        rows=tuple((when, number(mib, 4)) for when, mib in memory.items()),
    )
