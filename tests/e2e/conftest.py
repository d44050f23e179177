"""The three services as real processes, with the real default models, the example corpus and a real OTLP receiver."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from penstock.cli.documents import read_documents
from penstock.cli.local import LocalStack
from penstock.cli.otlp_receiver import OtlpReceiver, receiving
from penstock.clients import Penstock, RetrievalClient

EXAMPLES = Path(__file__).parents[2] / "examples"
COLLECTION = "squad"
DOCUMENTS = 48
"""How many of the corpus's documents are ingested: enough to search among, few enough to embed in seconds."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What a test talks to."""

    local: LocalStack
    traces: OtlpReceiver
    http: aiohttp.ClientSession

    @property
    def gateway(self) -> str:
        return self.local.services["gateway"].grpc

    @property
    def retrieval(self) -> str:
        return self.local.services["retrieval"].grpc

    @property
    def generation(self) -> str:
        return self.local.services["generation"].grpc

    def url(self, path: str, service: str = "gateway") -> str:
        return f"http://{self.local.services[service].http}{path}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack that tests share and must not break."""
    async with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def own_stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack that the test may break."""
    async with running_stack(tmp_path) as running:
        yield running


class running_stack:  # noqa: N801  # Used as a context manager.
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __aenter__(self) -> Stack:
        self._receiving = receiving()
        traces = await self._receiving.__aenter__()
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{traces.address}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "PENSTOCK_GATEWAY_MESSAGE_BYTES_MAX": str(2 * 2**20),
            "PENSTOCK_RETRIEVAL_MESSAGE_BYTES_MAX": str(2 * 2**20),
            "PENSTOCK_GENERATION_MESSAGE_BYTES_MAX": str(2 * 2**20),
        }
        self._local = LocalStack(self._folder, fixed_ports=False, environment=environment)
        await self._local.start(lambda _: None)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120))
        running = Stack(self._local, traces, self._http)
        await _prepare(running)
        return running

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        await self._local.stop()
        await self._receiving.__aexit__(None, None, None)


async def _prepare(stack: Stack) -> None:
    documents = list(read_documents([str(EXAMPLES / "corpus/squad_xquad_en/corpus.jsonl")]))[:DOCUMENTS]
    async with RetrievalClient(stack.retrieval) as client:
        await client.create_collection(COLLECTION)
        await client.ingest(COLLECTION, documents, timeout_s=120)
    async with Penstock(stack.gateway) as client:
        await client.create_flow("rag", (EXAMPLES / "flows/rag.json").read_text())
