"""Dashboards, alerts, autoscalers and the scrape configuration name metrics and labels that the services really have."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.metrics import Meter
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NoOpTracer

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.engine import FinishReason, Load
from generation_svc.generation import Generation
from generation_svc.metrics import GenerationMetrics
from penstock.errors import Overloaded, by_reason
from penstock.histograms import Histograms
from penstock.metering import Metering
from penstock.metrics import meter_provider
from retrieval_svc.cluster.statistics import Event
from retrieval_svc.embedding.embedder import Purpose
from retrieval_svc.metrics import RetrievalMetrics
from retrieval_svc.shards.follower import ShardKey
from retrieval_svc.values import IndexKind, ShardStatus
from tests.generation_svc.fakes import MODEL, FakeEngine, ask, collect

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = ("retrieval", "generation")
DASHBOARDS = {service: json.loads((DEPLOY / "grafana" / f"{service}.json").read_text()) for service in SERVICES}
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


class EngineThatTellsAll(FakeEngine):
    """Of its caches too."""

    def load(self) -> Load:
        return Load(running=1, waiting=1, cache_used=0.5, prefix_queried_tokens=2, prefix_hit_tokens=1, preemptions=1)


def search(meter: Meter, histograms: Histograms) -> None:
    """Everything that retrieval measures happens once."""
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


def generate(meter: Meter, histograms: Histograms) -> None:
    """So does everything of generation: an answer that ends, and one that is refused while another runs."""
    metrics, admission, engine = (
        GenerationMetrics(meter, histograms),
        Admission(running_max=1, waiting_max=0),
        EngineThatTellsAll(),
    )
    metrics.watch(admission, engine)
    core = Generation(
        engine=engine,
        admission=admission,
        coalescing=Coalescing(tokens_max=1, delay_max_s=0),
        tracer=NoOpTracer(),
        metrics=metrics,
    )

    async def answer() -> None:
        await collect(core.stream(MODEL, ask()))
        async with aclosing(core.stream(MODEL, ask())) as running:
            await anext(running)
            with pytest.raises(Overloaded):
                await core.whole(MODEL, ask())

    asyncio.run(answer())


HAPPENINGS: dict[str, tuple[Callable[[Meter, Histograms], None], tuple[str, ...]]] = {
    "retrieval": (search, ("penstock.retrieval.v1.RetrievalService/Search",)),
    "generation": (generate, ("penstock.generation.v1.GenerationService/Generate",)),
}


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """What GET /metrics of each service says after everything has happened once."""
    return {service: page_after(*HAPPENINGS[service]) for service in SERVICES}


def page_after(happen: Callable[[Meter, Histograms], None], methods: tuple[str, ...]) -> str:
    histograms = Histograms()
    provider, exposition = meter_provider(Resource.create({}), page=True, traces=False, histograms=histograms)
    meter = provider.get_meter("test")
    metering = Metering(meter, histograms)
    for method in methods:
        with metering.around(f"/{method}", streams=False)(None):
            pass
    happen(meter, histograms)
    body, _ = exposition("")
    return body.decode()


def expressions() -> Iterator[tuple[str, str]]:
    """Whatever asks Prometheus for something, with the service that it asks about."""
    for service, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            yield from ((service, target["expr"]) for target in panel.get("targets", []))
        yield from ((service, each["definition"]) for each in dashboard["templating"]["list"] if each["type"] == "query")
    for group in RULES["groups"]:
        yield from ((group["name"].removeprefix("penstock-"), rule["expr"]) for rule in group["rules"])
    yield from (("generation", query) for query in scalers())


def scalers() -> Iterator[str]:
    keda = yaml.safe_load((DEPLOY / "kubernetes/components/autoscaling-keda/scaled-object.yaml").read_text())
    yield from (each["metadata"]["query"] for each in keda["spec"]["triggers"])
    for rule in yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text())["rules"]:
        yield rule["seriesQuery"]
        yield re.sub(r"<<.Series>>", rule["seriesQuery"].partition("{")[0], rule["metricsQuery"]).replace("<<.GroupBy>>", "pod")


def names(expression: str) -> set[str]:
    """The metrics of an expression: a label stands in by (...) and before its value, a metric before its labels or range."""
    bare = re.sub(r"\b(by|on) \([^)]*\)", "", expression)
    return set(re.findall(r"\b((?:penstock|gen_ai_server|rpc|process)_[a-z_0-9]+|up)(?=[{\[), ])", bare))


def test_every_metric_that_is_asked_for_is_on_the_services_page(pages):
    for service, expression in expressions():
        there = set(re.findall(r"^([a-z_0-9]+)(?:\{| )", pages[service], flags=re.MULTILINE)) | SCRAPED
        assert names(expression), expression
        assert names(expression) <= there, expression


def test_every_value_that_is_chosen_by_is_one_that_the_service_gives(pages):
    for service, expression in expressions():
        for label, pattern in re.findall(r'\b(event|of|result|rpc_method|state|type)=~?"([^"$]+)"', expression):
            if "ShardService" not in pattern:
                values = re.findall(rf'\b{label}="([^"]*)"', pages[service])
                assert any(re.fullmatch(pattern, value) for value in values), expression


def test_every_reason_that_is_chosen_by_is_an_errors_own():
    chosen = [pattern for _, each in expressions() for pattern in re.findall(r'\berror_type=~?"([^"$]+)"', each)]
    assert chosen
    for reasons in chosen:
        assert set(reasons.split("|")) <= set(by_reason())


def test_an_answer_that_ended_well_is_known_by_every_finish_reason_that_there_is():
    chosen = [pattern for _, each in expressions() for pattern in re.findall(r'\bend=~?"([^"$]+)"', each)]
    assert chosen
    for ends in chosen:
        assert set(ends.split("|")) == {reason.value for reason in FinishReason}


@pytest.mark.parametrize("service", SERVICES)
def test_everything_that_the_service_measures_of_itself_is_shown(pages, service):
    there = set(re.findall(r"^# TYPE ((?:penstock|gen_ai)_\w+) ", pages[service], flags=re.MULTILINE))
    assert len(there) > 10
    shown = " ".join(expression for of, expression in expressions() if of == service)
    assert {name for name in there if name not in shown} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_metrics_that_the_operators_page_names_are_on_the_services(pages, service):
    for name in re.findall(r"`((?:penstock|gen_ai_server|rpc)_[a-z_]+)", (DEPLOY / f"{service}.md").read_text()):
        assert f"# TYPE {name} " in pages[service], name


@pytest.mark.parametrize("service", SERVICES)
def test_panels_have_ids_of_their_own_and_do_not_overlap(service):
    panels = DASHBOARDS[service]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (place["x"] + across, place["y"] + down)
        for place in (panel["gridPos"] for panel in panels)
        for across in range(place["w"])
        for down in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_dashboards_are_told_apart():
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


def test_brackets_of_every_expression_match():
    for _, expression in expressions():
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
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    assert all((DEPLOY / name).exists() for name in config["rule_files"])
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "penstock", "the dashboard and the rules know it by this name"
    rules = job["relabel_configs"]
    kept = [rule["source_labels"][0] for rule in rules if rule.get("action") == "keep"]
    assert "__meta_kubernetes_pod_annotation_prometheus_io_scrape" in kept
    given = {rule["target_label"] for rule in rules if "target_label" in rule} - {"__metrics_path__"}
    assert given == {"instance", "slot", "component", "namespace"}
    used = {label for _, each in expressions() for label in re.findall(r"\b(slot|component|namespace)(?=!?=)", each)}
    assert used <= given
