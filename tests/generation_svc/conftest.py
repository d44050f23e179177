"""The service with each of its engines, started once for all tests that talk to it."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from penstock.clients import GenerationClient
from tests.generation_svc import processes

BOUNDS = {"running_max": 1, "waiting_max": 1, "context_window": 1024}
VLLM = {"engine": "vllm", "vllm_enforce_eager": True, "vllm_cache_gb": 0.25, "vllm_warm_up": False}
slow_vllm = (pytest.mark.vllm, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1500))

# vLLM with the quantised checkpoint, the more demanding one and the faster: bf16 is in test_vllm_engine.py, and both are
# compared in test_quantised.py.
ENGINES = [
    pytest.param("openvino", marks=(pytest.mark.model, pytest.mark.e2e)),
    pytest.param("vllm-w8a8", marks=slow_vllm),
    pytest.param("openai", marks=slow_vllm),
]


@pytest.fixture(scope="session", params=ENGINES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Running]:
    """A service that works on one request, lets one wait, and has a window of 1024 tokens."""
    folder, engine = tmp_path_factory.mktemp(request.param), request.param
    if engine == "openvino":
        with processes.service(folder, engine=engine, **BOUNDS) as service:
            yield service
    elif engine == "openai":
        with (
            processes.vllm_server(folder, processes.checkpoint("w8a8"), "upstream") as base_url,
            processes.service(folder, engine=engine, model="upstream", openai_base_url=base_url, **BOUNDS) as service,
        ):
            yield service
    else:
        model = processes.checkpoint(engine.removeprefix("vllm-"))
        with processes.service(folder, processes.vllm_python(), model=model, **VLLM, **BOUNDS) as service:
            yield service


@pytest_asyncio.fixture
async def client(running: processes.Running) -> AsyncIterator[GenerationClient]:
    async with GenerationClient(running.grpc) as connected:
        yield connected
