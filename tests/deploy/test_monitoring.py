"""The dashboard, the alerts and the scrape configuration name metrics and labels that the service really has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from opentelemetry.sdk.resources import Resource

from penstock.histograms import Histograms
from penstock.metering import Metering
from penstock.metrics import meter_provider
from retrieval_svc.cluster.statistics import Event
from retrieval_svc.embedding.embedder import Purpose
from retrieval_svc.metrics import RetrievalMetrics
from retrieval_svc.shards.follower import ShardKey
from retrieval_svc.values import IndexKind, ShardStatus

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "retrieval.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())
SCRAPED = {"up"}
"""What Prometheus adds by itself."""


class OneShard:
    """Implements what the metrics watch: a node with one shard."""

    compactions = 1
    key = ShardKey(uid=1, shard=0)

    def by_collection(self):
        return {"squad": [self]}

    def status(self) -> ShardStatus:
        return ShardStatus(
            shard=0, row_count=10, head_row_count=1, deleted_row_count=2, segment_count=3, size_bytes=4, position=5,
            record_position=6, index_kind=IndexKind.FLAT,
        )  # fmt: skip


@pytest.fixture(scope="session")
def page() -> str:
    """What GET /metrics says after everything has happened once."""
    histograms = Histograms()
    provider, exposition = meter_provider(Resource.create({}), page=True, traces=False, histograms=histograms)
    meter = provider.get_meter("test")
    metering = Metering(meter, histograms)
    with metering.around("/penstock.retrieval.v1.RetrievalService/Search", streams=False)(None):
        pass
    metrics = RetrievalMetrics(meter, histograms)
    metrics.watch(OneShard(), OneShard())
    for event in Event:
        metrics.happened(event)
    metrics.batch_sent(1)
    metrics.fanned_out(0.1)
    metrics.searched(1)
    metrics.embedded(1)
    metrics.hits(1, Purpose.QUERY)
    metrics.misses(1, Purpose.QUERY)
    body, _ = exposition("")
    return body.decode()


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    for group in RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    yield from (variable["definition"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query")


def test_every_metric_that_is_asked_for_is_on_the_services_page(page):
    there = set(re.findall(r"^([a-z_]+)(?:\{| )", page, flags=re.MULTILINE)) | SCRAPED
    for expression in expressions():
        # A label stands within by (...) and before its value; a metric before its labels or its range.
        bare = re.sub(r"\bby \([^)]*\)", "", expression)
        named = re.findall(r"\b((?:penstock|rpc|process)_[a-z_]+|up)(?=[{\[), ])", bare)
        assert named, expression
        assert set(named) <= there, expression


def test_every_value_that_is_chosen_by_is_one_that_the_service_gives(page):
    for expression in expressions():
        for label, pattern in re.findall(r'(event|of|result|rpc_method)=~?"([^"$]+)"', expression):
            if "ShardService" not in pattern:
                values = re.findall(rf'{label}="([^"]*)"', page)
                assert any(re.fullmatch(pattern, value) for value in values), expression


def test_everything_that_the_service_measures_of_itself_is_shown(page):
    there = set(re.findall(r"^# TYPE (penstock_\w+) ", page, flags=re.MULTILINE))
    shown = " ".join(expressions())
    assert {name for name in there if name not in shown} == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (place["x"] + across, place["y"] + down)
        for place in (panel["gridPos"] for panel in panels)
        for across in range(place["w"])
        for down in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_brackets_of_every_expression_match():
    for expression in expressions():
        bare = re.sub(r'"[^"]*"', "", expression)
        for left, right in ("()", "[]", "{}"):
            assert bare.count(left) == bare.count(right), expression


def test_an_alert_says_how_urgent_it_is_and_what_has_happened():
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["for"]


def test_prometheus_keeps_what_the_pods_announce_and_reads_the_rules_that_there_are():
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    assert all((DEPLOY / name).exists() for name in config["rule_files"])
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "penstock", "the dashboard and the rules know it by this name"
    rules = job["relabel_configs"]
    kept = [rule["source_labels"][0] for rule in rules if rule.get("action") == "keep"]
    assert "__meta_kubernetes_pod_annotation_prometheus_io_scrape" in kept
    assert {rule["target_label"] for rule in rules if "target_label" in rule} == {"__metrics_path__", "instance", "slot"}
