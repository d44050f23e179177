"""`penstock demo` and `penstock up`: the whole of Penstock on one machine."""

import asyncio
import json
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from penstock.cli.flows import show_stream
from penstock.cli.ingest import IngestOptions, ingest_corpus
from penstock.cli.local import MODULES, LocalStack, Running
from penstock.cli.otlp_receiver import OtlpReceiver, receiving
from penstock.cli.rendering import print_sources
from penstock.cli.trace_tree import trace_tree
from penstock.clients import Penstock, RetrievalClient, RunResult, Source
from penstock.errors import NotFound, PenstockError, Unavailable

COLLECTION: Final = "squad"
FLOW: Final = "rag"
QUESTION: Final = "What role does John Elway currently have in the Broncos franchise?"
HTTP_TIMEOUT_S: Final = 120.0


async def run_demo(data_dir: str, examples: str, question: str) -> None:
    """Everything once, then a stop. Raises what failed, with the part in its message."""
    console, folder = Console(highlight=False), Path(examples)
    async with receiving() as traces:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{traces.address}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRICS_EXPORTER": "none",  # The receiver takes traces alone.
        }
        local = LocalStack(Path(data_dir), fixed_ports=False, environment=environment)
        async with _started(console, local):
            await _prepare_example(console, local, folder)
            result = await _over_grpc(console, local, question or QUESTION)
            await _over_http(console, local, question or QUESTION)
            await _show_trace(console, traces, result.trace_id)
    console.print("[bold green]done[/]: every service stopped cleanly")


async def run_up(data_dir: str, examples: str, only: Collection[str] = ()) -> None:
    """Everything, or the services `only`, until Ctrl-C or until a service dies. The examples need a gateway and retrieval."""
    console = Console(highlight=False)
    local = LocalStack(Path(data_dir), fixed_ports=True, environment={}, names=only or tuple(MODULES))
    async with _started(console, local):
        has_flows = {"gateway", "retrieval"} <= local.services.keys()
        if examples and has_flows:
            await _prepare_example(console, local, Path(examples))
        _print_addresses(console, local, has_flows=has_flows)
        await _until_asked_to_stop(local)
        console.print("\n[bold]draining[/] ...")
    console.print("[bold green]stopped[/]")


@asynccontextmanager
async def _started(console: Console, local: LocalStack) -> AsyncIterator[None]:
    def tell(service: Running) -> None:
        console.print(f"  [green]✓[/] {service.name:<10} grpc {service.grpc:<16} http {service.http}")

    with _part("starting the services"):
        console.print(f"[bold]starting[/] {', '.join(local.names)} (logs in {local.folder}/logs)")
        await local.start(tell)
    try:
        yield
    finally:
        codes = await local.stop()
    failed = {name: code for name, code in codes.items() if code != 0}
    if failed:
        message = f"stopping the services failed: exit codes {failed}; see {local.folder}/logs"
        raise Unavailable(message)


async def _prepare_example(console: Console, local: LocalStack, folder: Path) -> None:
    with _part("ingesting the example corpus"):
        target, corpus = local.services["retrieval"].grpc, str(folder / "corpus/squad_xquad_en/corpus.jsonl")
        async with RetrievalClient(target) as client:
            if await _chunk_count(client) == 0:
                journal = str(local.folder / "ingest.json")
                options = IngestOptions(paths=(corpus,), collection=COLLECTION, target=target, state=journal)
                await ingest_corpus(options, console)
            console.print(f"[bold]collection[/] {COLLECTION}: {await _chunk_count(client)} chunks")
    with _part("keeping the example flow"):
        document = (folder / f"flows/{FLOW}.json").read_text(encoding="utf-8")
        async with Penstock(local.services["gateway"].grpc) as client:
            flow = await client.create_flow(FLOW, document, replace=True)
        console.print(f"[bold]flow[/] {flow.name} version {flow.content_hash[:12]}")


async def _chunk_count(client: RetrievalClient) -> int:
    try:
        return (await client.get_collection(COLLECTION)).chunk_count
    except NotFound:
        return 0


async def _over_grpc(console: Console, local: LocalStack, question: str) -> RunResult:
    with _part("running the flow over gRPC"):
        console.print(f"\n[bold]gRPC, streamed[/]  {question}")
        async with Penstock(local.services["gateway"].grpc) as client:
            return await show_stream(client, FLOW, {"question": question}, console)


async def _over_http(console: Console, local: LocalStack, question: str) -> None:
    with _part("running the flow over HTTP"):
        url = f"http://{local.services['gateway'].http}/v1/flows/{FLOW}:run"
        console.print(f"\n[bold]HTTP[/]  POST {url}")
        answer = await asyncio.to_thread(_post, url, {"inputs": {"question": question}})
        console.print(json.dumps(answer["outputs"], ensure_ascii=False), markup=False)
        print_sources(console, [_source(each) for each in answer["sources"]])


async def _show_trace(console: Console, traces: OtlpReceiver, trace_id: str) -> None:
    with _part("collecting the trace"):
        services = ("gateway", "retrieval", "generation")
        spans = await traces.whole_trace(trace_id, services=services, timeout_s=10)
        missing = set(services) - {span.service for span in spans}
        if missing:
            message = f"no spans of {', '.join(sorted(missing))} arrived for trace {trace_id}"
            raise Unavailable(message)
        console.print()
        console.print(trace_tree(spans))


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})  # noqa: S310  # Ours.
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as response:  # noqa: S310  # http:// on loopback.
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        message = f"{url} answered {error.code}: {error.read().decode(errors='replace')}"
        raise Unavailable(message) from error


def _source(fields: dict[str, Any]) -> Source:
    return Source(
        chunk_id=fields["chunk_id"],
        document_id=fields["document_id"],
        text=fields["text"],
        score=fields["score"],
        metadata=fields["metadata"] or {},
        node_id=fields["node_id"],
    )


def _print_addresses(console: Console, local: LocalStack, *, has_flows: bool) -> None:
    console.print("\n[bold]try[/]")
    for line in (*(_flow_commands(local.services["gateway"]) if has_flows else ()), *_own_commands(local.services)):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print("\nCtrl-C drains and stops.")


def _flow_commands(gateway: Running) -> Iterator[str]:
    inputs = json.dumps({"inputs": {"question": QUESTION}})
    call = json.dumps({"name": f"flows/{FLOW}", "inputs": {"question": QUESTION}})
    yield f"curl -s http://{gateway.http}/v1/flows/{FLOW}:run -d '{inputs}'"
    yield f"curl -N http://{gateway.http}/v1/flows/{FLOW}:stream -d '{inputs}'"
    yield f"grpcurl -plaintext -d '{call}' {gateway.grpc} penstock.flow.v1.RunService/StreamFlow"
    yield f'penstock ask "{QUESTION}"'


def _own_commands(services: Mapping[str, Running]) -> Iterator[str]:
    for service in services.values():
        yield f"curl -s http://{service.http}/openapi.json"
    if "retrieval" in services:
        yield f"penstock ingest --collection notes --retrieval {services['retrieval'].grpc} FOLDER"
        yield f'penstock search --retrieval {services["retrieval"].grpc} notes "what was it?"'


async def _until_asked_to_stop(local: LocalStack) -> None:
    asked, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    death, request = asyncio.create_task(local.died()), asyncio.create_task(asked.wait())
    await asyncio.wait({death, request}, return_when=asyncio.FIRST_COMPLETED)
    request.cancel()
    if death.done():
        dead = death.result()
        message = f"{dead.name} ended with {dead.process.returncode}; the end of its log is in {dead.log}"
        raise Unavailable(message)
    death.cancel()


@contextmanager
def _part(name: str) -> Iterator[None]:
    """Says which part failed, whatever it failed with."""
    try:
        yield
    except PenstockError as error:
        error.message = f"{name} failed: {error.message}"
        raise
    except (OSError, TimeoutError) as error:
        message = f"{name} failed: {error or type(error).__name__}"
        raise Unavailable(message) from error
