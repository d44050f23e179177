"""The retrieval part's table."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from bench.report import Table, middle, number, times

if TYPE_CHECKING:
    from bench.retrieval_part import Row


def search_table(rows: Sequence["Row"], count: int) -> Table:
    """A row a way of asking and a setting of the graph."""
    return Table(
        title=f"Searches over gRPC, 10 of {count:,} x 384, HNSW (m 32, efC 80), hits with 500 characters: beside FAISS",
        note="CPU in microseconds a query: of the service, and of FAISS over the same graph in a process of its own, on "
        "one thread, a query a call and 32 a call. Aims: Search 2.20 x one by one, SearchBatch 1.20 x batched.",
        columns=(
            "asked", "ef", "calls in flight", "queries/s", "p50 ms", "p99 ms", "errors", "CPU service", "FAISS one by one",
            "FAISS batched", "to one by one", "to batched", "recall@10", "FAISS recall", "other",
        ),
        rows=tuple(map(_row, rows)),
    )  # fmt: skip


def _row(row: "Row") -> tuple[str, ...]:
    return (
        row.way.name,
        str(row.ef),
        str(row.way.in_flight),
        number(row.way.batch * middle(row.service, lambda each: each.rate)),
        number(middle(row.service, lambda each: each.p50_ms)),
        number(middle(row.service, lambda each: each.p99_ms)),
        str(sum(each.errors for each in row.service)),
        number(median(row.service_us)),
        number(median(row.alone_us)),
        number(median(row.batched_us)),
        times(_ratio(row.service_us, row.alone_us)),
        times(_ratio(row.service_us, row.batched_us)),
        f"{row.recall:.4f}",
        f"{row.faiss_recall:.4f}",
        number(middle(row.service, lambda each: each.other_cores), 2),
    )


def _ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, reference, strict=True))
