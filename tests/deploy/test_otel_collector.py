"""The collector's configuration is whole: what its pipelines name is defined, in an order that makes sense."""

from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def config():
    return yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text())


def test_everything_that_is_used_is_defined_and_everything_defined_is_used(config):
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(config[kind])
    assert set(config["service"]["extensions"]) == set(config["extensions"])


def test_memory_is_guarded_first_and_batches_are_made_last(config):
    for pipeline in config["service"]["pipelines"].values():
        first, *_, last = pipeline["processors"]
        assert (first, last) == ("memory_limiter", "batch")


def test_traces_are_sampled_and_metrics_are_not(config):
    pipelines = config["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics"}
    assert "tail_sampling" in pipelines["traces"]["processors"]
    assert "tail_sampling" not in pipelines["metrics"]["processors"]
    assert pipelines["metrics"]["exporters"] == ["prometheus"]


def test_spans_come_in_over_both_protocols_where_everyone_sends_them(config):
    protocols = config["receivers"]["otlp"]["protocols"]
    assert protocols["grpc"]["endpoint"] == "0.0.0.0:4317"
    assert protocols["http"]["endpoint"] == "0.0.0.0:4318"
    tracing = (DEPLOY / "kubernetes" / "components" / "tracing" / "kustomization.yaml").read_text()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://otel-collector.observability:4317" in tracing


def test_errors_and_slow_traces_are_always_kept_and_a_share_of_the_rest(config):
    sampling = config["processors"]["tail_sampling"]
    policies = {policy["type"]: policy[policy["type"]] for policy in sampling["policies"]}
    assert policies["status_code"] == {"status_codes": ["ERROR"]}
    assert policies["latency"]["threshold_ms"] > 0
    assert 0 < policies["probabilistic"]["sampling_percentage"] < 100
    assert min(sampling["decision_cache"].values()) > sampling["num_traces"]
