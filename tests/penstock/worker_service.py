"""A service for tests of worker processes, whose one method tells which worker answered: run it with `python -m`."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceServicer, add_RetrievalServiceServicer_to_server
from penstock.server import Assembly, Service, run
from penstock.settings import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TESTED_", frozen=True, extra="ignore")

    slow_worker: int = Field(default=-1, description="This worker takes a second to load.")
    broken_worker: int = Field(default=-1, description="This worker can't load.")


class Servicer(RetrievalServiceServicer):
    def __init__(self, assembly: Assembly) -> None:
        self._seat = assembly.worker

    async def GetCollection(self, request: Any, context: Any) -> pb.GetCollectionResponse:
        if request.name == "slow":
            await asyncio.sleep(0.5)
        told = pb.Collection(name=str(os.getpid()), dimension=self._seat.index, shard_count=self._seat.count)
        return pb.GetCollectionResponse(collection=told)


@asynccontextmanager
async def assemble(assembly: Assembly) -> AsyncIterator[None]:
    if assembly.worker.index == assembly.settings.slow_worker:
        await asyncio.sleep(1.0)
    if assembly.worker.index == assembly.settings.broken_worker:
        raise RuntimeError("this worker is broken")
    add_RetrievalServiceServicer_to_server(Servicer(assembly), assembly.dispatcher)
    yield


SERVICE = Service(
    name="tested",
    rpc_services=("penstock.retrieval.v1.RetrievalService",),
    settings=Settings,
    assemble=assemble,
    scopes={"GetCollection": "read"},
)

if __name__ == "__main__":
    run(SERVICE)
