"""Penstock itself, asked as its users ask: over gRPC by the published stub, and over HTTP, answers parsed in both."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import orjson

from bench.closed_loop import Reply
from bench.http_caller import HttpCaller
from bench.peers.adapter import TOP_K, Matrix
from bench.retrieval_part import collection_of, stored
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub


class _Service:
    """What both ways share: a running service, and the bench's collection in it."""

    def __init__(self, grpc_target: str, pid: int) -> None:
        self._grpc_target = grpc_target
        self._pid = pid
        self._ef = 64
        self._name = ""

    async def fill(self, vectors: Matrix, texts: Sequence[str]) -> None:  # noqa: ARG002  # The same texts.
        await stored(self._grpc_target, len(vectors))
        self._name = f"collections/{collection_of(len(vectors))}"

    async def set_ef(self, ef: int) -> None:
        self._ef = ef

    def server_pid(self) -> int:
        return self._pid


class OverGrpc(_Service):
    """The generated stub on one channel."""

    def __init__(self, grpc_target: str, pid: int) -> None:
        super().__init__(grpc_target, pid)
        self._stub: Any = None

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:  # noqa: ARG002  # One connection carries them all.
        async with grpc.aio.insecure_channel(self._grpc_target) as channel:
            self._stub = RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]  # Generated.
            yield

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        found = await self._search(query.tobytes())
        return [(int(hit.chunk.id.removeprefix("c")), hit.chunk.text) for hit in found.hits]

    async def call(self, slot: int, payload: bytes) -> Reply:  # noqa: ARG002  # One connection carries them all.
        try:
            await self._search(payload)
        except grpc.aio.AioRpcError as error:
            return Reply(fault=error.code().name)
        return Reply()

    async def _search(self, vector: bytes) -> Any:
        return await self._stub.Search(
            pb.SearchRequest(collection=self._name, vector=vector, top_k=TOP_K, ef_search=self._ef), timeout=30
        )


class OverHttp(_Service):
    """JSON over the bench's own client, as FastAPI is asked."""

    def __init__(self, grpc_target: str, http_target: str, pid: int) -> None:
        super().__init__(grpc_target, pid)
        self._http_target = http_target
        self._caller: Any = None

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:
        self._caller = HttpCaller(target=self._http_target, path=f"/v1/{self._name}:search", dialect="penstock")
        async with self._caller.opened(slots):
            yield

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        found = orjson.loads(await self._caller.body(0, self._request(query.tobytes())))
        return [(int(hit["chunk"]["id"].removeprefix("c")), hit["chunk"]["text"]) for hit in found["hits"]]

    async def call(self, slot: int, payload: bytes) -> Reply:
        try:
            orjson.loads(await self._caller.body(slot, self._request(payload)))
        except OSError as error:
            return Reply(fault=type(error).__name__)
        return Reply()

    def _request(self, vector: bytes) -> bytes:
        return orjson.dumps({"vector": base64.b64encode(vector).decode(), "top_k": TOP_K, "ef_search": self._ef})


def adapter(*, grpc: str, http: str, pid: int, over: str) -> OverGrpc | OverHttp:
    return OverGrpc(grpc, pid) if over == "gRPC" else OverHttp(grpc, http, pid)
