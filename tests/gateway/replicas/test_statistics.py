from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from gateway.replicas.pool import Replicas
from gateway.replicas.prefixes import Prefix
from gateway.replicas.replica import ReplicaLimits
from gateway.replicas.statistics import Statistics
from penstock.errors import NotReady
from tests.gateway.replicas.fakes import FakeNode, join, picked, rag


def test_choices_and_failures_are_counted_by_their_reasons() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader], shutdown_on_exit=False).get_meter("test")
    replicas = Replicas(lambda _: FakeNode(), limits=ReplicaLimits(), statistics=Statistics(meter))
    join(replicas, "r0:1")
    assert replicas.only() is not None
    join(replicas, "r0:1", "r1:1")
    assert replicas.only() is None
    first = picked(replicas, rag(1))
    picked(replicas, rag(1))
    for _ in range(9):
        first.called()
    picked(replicas, rag(1))
    picked(replicas, "short")
    replicas.failed(first, NotReady("draining"), began=0.0)
    assert replicas.pick(Prefix(rag(1)), [first]) is not None
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        (metric.name.rpartition(".")[2], *point.attributes.values()): point.value
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert points == {
        ("choices", "only"): 1, ("choices", "hash"): 1, ("choices", "prefix"): 1, ("choices", "spill"): 1,
        ("choices", "load"): 1, ("choices", "retry"): 1, ("failures", "NOT_READY"): 1,
    }  # fmt: skip
