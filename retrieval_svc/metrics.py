"""What the service measures of itself, besides what the runtime measures of every call."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from penstock.histograms import Histograms
from penstock.metrics import CALL_SECONDS
from retrieval_svc.cluster.statistics import Event
from retrieval_svc.embedding.embedder import Purpose
from retrieval_svc.shards.replica import Replica
from retrieval_svc.values import ShardStatus


class Held(Protocol):
    """The shards that this node holds."""

    def by_collection(self) -> Mapping[str, list[Replica]]:
        """Their replicas, by the collection's id."""
        ...


class Maintained(Protocol):
    """What looks after them."""

    @property
    def compactions(self) -> int:
        """How many merges have been done."""
        ...


class RetrievalMetrics:
    """Counts and sizes. Implements the statistics ports of the parts."""

    def __init__(self, meter: Meter, histograms: Histograms) -> None:
        self._meter = meter
        self._events = meter.create_counter(
            "penstock.retrieval.fan_out.events",
            description="Hedges, retries, ejections and partial answers of this coordinator.",
        )
        self._sent = histograms.create(
            "penstock.retrieval.fan_out.batch_size",
            unit="{query}",
            description="Queries of one call to another node.",
            bounds=_BATCH_SIZES,
        ).series_of()
        self._fan_out = histograms.create(
            "penstock.retrieval.fan_out.duration",
            unit="s",
            description="Time until all shards of a search have answered.",
            bounds=CALL_SECONDS,
        ).series_of()
        batches = histograms.create(
            "penstock.retrieval.batch_size",
            unit="{item}",
            description="Searches, or texts, that were done in one turn.",
            bounds=_BATCH_SIZES,
        )
        self._searches, self._texts = batches.series_of({"of": "searches"}), batches.series_of({"of": "texts"})
        self._cached = meter.create_counter(
            "penstock.retrieval.embedding_cache.lookups", description="Texts that were looked for among the embedded ones."
        )

    def watch(self, held: Held, maintained: Maintained) -> None:
        """Begins to tell the state of the shards."""
        for name, unit, description, value in _GAUGES:
            self._meter.create_observable_gauge(
                f"penstock.retrieval.shard.{name}", [_observed(held, value)], unit=unit, description=description
            )
        self._meter.create_observable_counter(
            "penstock.retrieval.compactions",
            [lambda _: [Observation(maintained.compactions)]],
            description="Merges of segments that have been done.",
        )

    def happened(self, event: Event, count: int = 1) -> None:
        """Counts an event of the fan-out."""
        self._events.add(count, {"event": event.value})

    def batch_sent(self, size: int) -> None:
        """Notes a call to another node."""
        self._sent.record(size)

    def fanned_out(self, seconds: float) -> None:
        """Notes how long all shards took."""
        self._fan_out.record(seconds)

    def searched(self, size: int) -> None:
        """Notes how many searches one turn of the index had."""
        self._searches.record(size)

    def embedded(self, size: int) -> None:
        """Notes how many texts one turn of a model had."""
        self._texts.record(size)

    def hits(self, count: int, purpose: Purpose) -> None:
        """Counts texts whose vectors were known."""
        self._cached.add(count, {"result": "hit", "purpose": purpose.value})

    def misses(self, count: int, purpose: Purpose) -> None:
        """Counts texts that had to be embedded."""
        self._cached.add(count, {"result": "miss", "purpose": purpose.value})


_BATCH_SIZES = tuple(float(2**power) for power in range(11))


def _tombstone_share(status: ShardStatus) -> float:
    return status.deleted_row_count / max(1, status.row_count + status.deleted_row_count)


_GAUGES: tuple[tuple[str, str, str, Callable[[ShardStatus], float]], ...] = (
    ("rows", "{row}", "Rows that searches can find.", lambda status: status.row_count),
    ("head_rows", "{row}", "Rows that are searched one by one.", lambda status: status.head_row_count),
    ("tombstone_share", "", "Share of rows that are deleted and not yet dropped.", _tombstone_share),
    ("segments", "{segment}", "Immutable segments.", lambda status: status.segment_count),
    ("size", "By", "Bytes on disk.", lambda status: status.size_bytes),
    ("position", "{change}", "The last change that searches see.", lambda status: status.position),
    ("lag", "{change}", "Changes that are known of and not yet seen.", lambda status: status.record_position - status.position),
)


def _observed(held: Held, value: Callable[[ShardStatus], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for collection, replicas in held.by_collection().items():
            for replica in replicas:
                status = replica.status()
                yield Observation(value(status), {"collection": collection, "shard": status.shard})

    return observe
