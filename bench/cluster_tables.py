"""The cluster part's tables."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from bench.closed_loop import Sample, percentile
from bench.report import Table, cpu_ms, middle, number, times

if TYPE_CHECKING:
    from bench.cluster_part import Throughput, Visibility


def replicas_table(sides: Sequence["Throughput"]) -> Table:
    """One replica, and two at the same time."""
    one = sides[0]
    return Table(
        title="Replicas: 32 searches in flight at each, a client of its own for each",
        note="CPU in microseconds a query, of the nodes that are asked. by CPU: queries a CPU second and node to those of one "
        "replica, times the nodes: what they bring together where each has cores of its own. At least 1.8.",
        columns=("asked", "queries/s", "to one", "p50 ms", "p99 ms", "errors", "CPU nodes", "by CPU", "other"),
        rows=tuple(_replicas_row(side, one) for side in sides),
    )


def _replicas_row(side: "Throughput", one: "Throughput") -> tuple[str, ...]:
    every = [sample for samples in side.samples for sample in samples]
    by_cpu = [len(side.asked) * alone / ours for alone, ours in zip(one.cpu_us(), side.cpu_us(), strict=True)]
    return (
        side.name,
        number(median(side.rates())),
        times(median(ours / alone for ours, alone in zip(side.rates(), one.rates(), strict=True))),
        number(middle(every, lambda sample: sample.p50_ms)),
        number(middle(every, lambda sample: sample.p99_ms)),
        str(sum(sample.errors for sample in every)),
        number(median(side.cpu_us())),
        times(median(by_cpu)),
        number(middle(every, lambda sample: sample.other_cores), 2),
    )


def fan_out_table(samples: Sequence[Sample], count: int) -> Table:
    """What coordinating costs."""
    return Table(
        title=f"Fan-out: a node without a shard asks four others, 10 of {count:,} x 384, 32 in flight",
        note="CPU in microseconds a query. The coordinator's is to be at most 500.",
        columns=("shards", "queries/s", "p50 ms", "p99 ms", "errors", "CPU coordinator", "CPU shards together", "other"),
        rows=(
            (
                "4 on 4 nodes",
                number(middle(samples, lambda sample: sample.rate)),
                number(middle(samples, lambda sample: sample.p50_ms)),
                number(middle(samples, lambda sample: sample.p99_ms)),
                str(sum(sample.errors for sample in samples)),
                number(1000 * middle(samples, cpu_ms("coordinator"))),
                number(1000 * middle(samples, cpu_ms("shards"))),
                number(middle(samples, lambda sample: sample.other_cores), 2),
            ),
        ),
    )


def visibility_table(seen: Sequence["Visibility"]) -> Table:
    """When writes are seen."""
    return Table(
        title="Writes: 200 a second to one of two replicas over PostgreSQL, seen by searches on each",
        note="Milliseconds from the acknowledgement, by looking every 2 ms; at most 200 at p99. taken: from sending to that.",
        columns=("replica", "writes", "seen p50 ms", "seen p99 ms", "seen longest ms", "taken p50 ms", "taken p99 ms"),
        rows=tuple(
            (
                "that wrote" if each.wrote else "that follows",
                f"{len(each.waits_ms):,}",
                number(percentile(each.waits_ms, 50)),
                number(percentile(each.waits_ms, 99)),
                number(max(each.waits_ms)),
                number(percentile(each.took_ms, 50)),
                number(percentile(each.took_ms, 99)),
            )
            for each in seen
        ),
    )
