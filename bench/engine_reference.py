"""The tokens part's reference: the engine that the generation service uses, called by a loop in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any

import orjson

from bench.closed_loop import Reply, drive, nothing_to_open
from bench.meter import Meter
from bench.worker import load_from
from generation_svc.__main__ import ENGINES
from generation_svc.engine import Delta, Engine, GenerationRequest, Message, Role, Sampling
from generation_svc.settings import GenerationSettings
from penstock.errors import PenstockError


class EngineCaller:
    """Asks an engine. A payload is JSON: {"prompt", "max_tokens"}."""

    opened = staticmethod(nothing_to_open)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # An engine has no connections.
        try:
            return await self._read(_request(orjson.loads(payload)))
        except PenstockError as error:
            return Reply(fault=error.reason)

    async def _read(self, request: GenerationRequest) -> Reply:
        first_at, events, output_tokens = 0.0, 0, 0
        async with aclosing(self._engine.generate(request)) as parts:
            async for part in parts:
                if not isinstance(part, Delta):
                    output_tokens = part.usage.output_tokens
                elif part.text:
                    first_at = first_at or time.perf_counter()
                    events += 1
        return Reply(first_at=first_at, events=events, output_tokens=output_tokens)


def _request(asked: Mapping[str, Any]) -> GenerationRequest:
    return GenerationRequest(
        messages=(Message(role=Role.USER, content=asked["prompt"]),),
        sampling=Sampling(max_tokens=asked["max_tokens"], temperature=0.0),
    )


@asynccontextmanager
async def serving() -> AsyncIterator[Mapping[str, Any]]:
    """The task of this role, once the model is loaded. Its settings come from the environment, as the service's do."""
    died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = GenerationSettings()
    engine = await ENGINES[settings.engine](settings, died.set_result)

    async def run(*, load: Mapping[str, Any], pids: Mapping[str, list[int]]) -> dict[str, Any]:
        return asdict(await drive(EngineCaller(engine), load_from(load), Meter(pids)))

    try:
        yield {"run": run}
    finally:
        await engine.close()
