"""A process that measures on request: `python -m bench.worker ROLE`.

It reads one JSON line {"task", "params"} at a time from its standard input and answers with one line {"result"} or {"failure"}.
Load and references each have a process of their own, so that none of them shares an interpreter, or caches, with another.
"""

import base64
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict
from typing import Any, Final

# As the retrieval service has it, and before anything that reads it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import uvloop

from bench.answering import Tasks, answer_tasks
from bench.closed_loop import Caller, Load, drive
from bench.generate_caller import GenerateCaller
from bench.grpc_caller import GrpcCaller
from bench.http_caller import HttpCaller
from bench.meter import Meter

_CALLERS: Final[Mapping[str, Callable[..., Caller]]] = {"http": HttpCaller, "grpc": GrpcCaller, "generate": GenerateCaller}


async def run_load(
    *, caller: str, options: Mapping[str, Any], load: Mapping[str, Any], pids: Mapping[str, list[int]]
) -> dict[str, Any]:
    """Drives a caller. The load's payloads are base64."""
    return asdict(await drive(_CALLERS[caller](**options), load_from(load), Meter(pids)))


def load_from(fields: Mapping[str, Any]) -> Load:
    """A load that came as JSON."""
    return Load(**{**fields, "payloads": [base64.b64decode(each) for each in fields["payloads"]]})


def _load_role() -> AbstractAsyncContextManager[Tasks]:
    return nullcontext({"run": run_load})


def _faiss_role() -> AbstractAsyncContextManager[Tasks]:
    from bench.faiss_reference import serving  # noqa: PLC0415  # Only this role needs FAISS in memory.

    return serving()


def _embedder_role() -> AbstractAsyncContextManager[Tasks]:
    from bench.embedder_reference import serving  # noqa: PLC0415  # And only this one torch.

    return serving()


def _embedding_role() -> AbstractAsyncContextManager[Tasks]:
    from bench.embedding_reference import serving  # noqa: PLC0415

    return serving()


def _vllm_role() -> AbstractAsyncContextManager[Tasks]:
    from bench.vllm_reference import serving  # noqa: PLC0415  # In vLLM's environment.

    return serving()


def _engine_role() -> AbstractAsyncContextManager[Tasks]:
    from bench.engine_reference import serving  # noqa: PLC0415

    return serving()


_ROLES: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[Tasks]]]] = {
    "load": _load_role,
    "faiss": _faiss_role,
    "embedder": _embedder_role,
    "embedding": _embedding_role,
    "engine": _engine_role,
    "vllm": _vllm_role,
}


async def _main(role: str) -> None:
    # Libraries that print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    async with _ROLES[role]() as tasks:
        await answer_tasks(tasks, answers)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
