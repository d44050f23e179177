"""The peers part's table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.report import Table, cpu_ms, middle, number, ratio, times

if TYPE_CHECKING:
    from bench.peers_part import Absent, Served


def peers_table(served: Sequence["Served"], absent: Sequence["Absent"], count: int) -> Table:
    """A row a peer and a setting of its graph; the first is what the others are compared with."""
    return Table(
        title=f"32 in flight, 10 of {count:,} x 384 with 500 characters, HNSW (m 32, efC 80), each asked by its own client",
        note="CPU in microseconds a query; in the client: of both. to Penstock: queries/s to those of Penstock over gRPC "
        "with the same ef, the median of the rounds' own ratios. Clients share the machine's cores with the servers.",
        columns=(
            "served by", "version", "ef", "recall@10", "queries/s", "to Penstock", "p50 ms", "p99 ms", "errors", "CPU server",
            "CPU client", "other",
        ),
        rows=(*(row for ef in served[0].samples for row in _rows(served, ef)), *map(_missing, absent)),
    )  # fmt: skip


def _rows(served: Sequence["Served"], ef: int) -> list[tuple[str, ...]]:
    first = served[0].samples[ef]
    return [
        (
            each.name,
            each.version,
            str(ef),
            f"{each.recall[ef]:.4f}",
            number(middle(each.samples[ef], lambda sample: sample.rate)),
            times(ratio(each.samples[ef], first, lambda sample: sample.rate)),
            number(middle(each.samples[ef], lambda sample: sample.p50_ms)),
            number(middle(each.samples[ef], lambda sample: sample.p99_ms)),
            str(sum(sample.errors for sample in each.samples[ef])),
            number(1000 * middle(each.samples[ef], cpu_ms("server"))),
            number(1000 * middle(each.samples[ef], cpu_ms("client"))),
            number(middle(each.samples[ef], lambda sample: sample.other_cores), 2),
        )
        for each in served
    ]


def _missing(each: "Absent") -> tuple[str, ...]:
    return (each.name, each.version, f"not measured: {each.why}", *[""] * 9)
