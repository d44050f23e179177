"""What is counted of real calls, and the page on which it stands."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from penstock.dispatcher import Dispatcher
from penstock.errors import CollectionNotFound, FailedPrecondition
from penstock.histograms import Histograms
from penstock.http_front import HttpFront, listen
from penstock.metering import Metering
from penstock.metrics import Exposition, meter_provider
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.settings import ServiceSettings
from tests.penstock.served import SERVICE, Served, until

GET = {"rpc_system_name": "grpc", "rpc_method": f"{SERVICE}/GetCollection"}


class Counted(Served):
    """The server of `served` with our metrics, and what their page says."""

    def __init__(self) -> None:
        histograms = Histograms()
        provider, page = meter_provider(Resource({"service.name": "test"}), page=True, traces=False, histograms=histograms)
        self.meter = provider.get_meter("penstock.test")
        self.page: Exposition = page
        super().__init__(ServiceSettings(), more=[Metering(self.meter, histograms)])

    def samples(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """The samples of one name by their labels."""
        return {labels: value for each, labels, value in read(self.page("")[0].decode()) if each == name}

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples(name).get(frozenset(labels.items()))


def read(page: str) -> list[tuple[str, frozenset[tuple[str, str]], float]]:
    found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    # To Prometheus an empty label is none.
    return [(each.name, frozenset(label for label in each.labels.items() if label[1]), each.value) for each in found]


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    async with Counted() as started:
        yield started


async def test_calls_are_counted_by_method_and_outcome_and_timed(counted: Counted) -> None:
    async def refuse(_: Any) -> Any:
        raise CollectionNotFound("none")

    for _ in range(3):
        await counted.stub.GetCollection(pb.GetCollectionRequest(), timeout=5)
    counted.servicer.answering = refuse
    with pytest.raises(grpc.aio.AioRpcError):
        await counted.stub.GetCollection(pb.GetCollectionRequest(), timeout=5)
    count, total = "rpc_server_call_duration_seconds_count", "rpc_server_call_duration_seconds_sum"
    refused = {"rpc_response_status_code": "NOT_FOUND", "error_type": "COLLECTION_NOT_FOUND"}
    assert counted.value(count, **GET, rpc_response_status_code="OK") == 3
    assert counted.value(count, **GET, **refused) == 1
    assert 0 < counted.value(total, **GET, rpc_response_status_code="OK") < 5
    buckets = counted.samples("rpc_server_call_duration_seconds_bucket")
    assert {"0.0005", "0.01", "300.0", "+Inf"} <= {dict(labels)["le"] for labels in buckets}


async def test_a_caller_that_left_is_counted_as_cancelled(counted: Counted) -> None:
    async def hold(_: Any) -> Any:
        await asyncio.Event().wait()

    counted.servicer.answering = hold
    call = counted.stub.GetCollection(pb.GetCollectionRequest(), timeout=5)
    await until(lambda: counted.admission.in_flight == 1)
    call.cancel()
    cancelled = {"rpc_response_status_code": "CANCELLED", "error_type": "CANCELLED"}
    await until(lambda: counted.value("rpc_server_call_duration_seconds_count", **GET, **cancelled) == 1)


async def test_calls_in_flight_are_told_while_they_last(counted: Counted) -> None:
    go_on = asyncio.Event()

    async def hold(_: Any) -> Any:
        await go_on.wait()
        return pb.GetCollectionResponse()

    counted.servicer.answering = hold
    calls = [asyncio.ensure_future(counted.stub.GetCollection(pb.GetCollectionRequest(), timeout=5)) for _ in range(2)]
    await until(lambda: counted.value("penstock_rpc_server_active_calls", **GET) == 2)
    go_on.set()
    await asyncio.gather(*calls)
    assert counted.value("penstock_rpc_server_active_calls", **GET) == 0


async def test_a_services_own_instruments_and_the_process_stand_on_the_page(counted: Counted) -> None:
    counted.meter.create_counter("penstock.test.things", unit="{thing}").add(7, {"kind": "small"})
    assert counted.value("penstock_test_things_total", kind="small") == 7
    assert counted.value("process_resident_memory_bytes") > 0
    (resource,) = counted.samples("target_info")
    assert ("service_name", "test") in resource


@dataclass(frozen=True)
class Listed:
    name: str = "test"
    rpc_services: tuple[str, ...] = ()


@pytest.mark.parametrize("given", [True, False])
async def test_http_answers_the_page_where_it_is_not_off(counted: Counted, given: bool) -> None:
    async def page(accept: str) -> tuple[bytes, str]:
        return counted.page(accept)

    listening = listen("127.0.0.1:0")
    front = HttpFront(listening, Listed(), ServiceSettings(), Dispatcher((), ()), page if given else None)
    async with front.serving(), aiohttp.ClientSession() as session:
        async with session.get(f"http://{front.address}/metrics") as answer:
            assert answer.status == (200 if given else 404)
            if given:
                assert answer.content_type == "text/plain"
                assert "process_resident_memory_bytes" in await answer.text()
        async with session.get(f"http://{front.address}/metrics", headers={"accept": "application/openmetrics-text"}) as answer:
            assert not given or answer.content_type == "application/openmetrics-text"


def test_an_exporter_that_is_not_built_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
    with pytest.raises(FailedPrecondition, match="is not built in; use grpc"):
        meter_provider(Resource({}), page=False, traces=False, histograms=Histograms())
