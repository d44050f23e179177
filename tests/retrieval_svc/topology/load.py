"""A load of searches whose every answer is compared with what NumPy says."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np

from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from tests.retrieval_svc.topology.nodes import PATIENCE_S

DIMENSION = 16
TOP_K = 5


class Corpus:
    """A collection that is filled once and never changes."""

    def __init__(self, collection_id: str, *, count: int = 600, seed: int = 1) -> None:
        self.name = f"collections/{collection_id}"
        self._random = np.random.default_rng(seed)
        self.vectors = self._directions(count)
        self.queries = self._directions(64)
        ranked = np.argsort(-(self.queries @ self.vectors.T), axis=1)[:, :TOP_K]
        self.expected = [[f"c{row}" for row in rows] for rows in ranked.tolist()]

    async def fill(self, client: RetrievalServiceStub) -> None:
        collection = pb.Collection(dimension=DIMENSION, shard_count=2)
        await client.CreateCollection(
            pb.CreateCollectionRequest(collection_id=self.name.removeprefix("collections/"), collection=collection)
        )
        chunks = [pb.Chunk(id=f"c{row}", text=f"text {row}", vector=each.tobytes()) for row, each in enumerate(self.vectors)]
        await client.UpsertChunks(pb.UpsertChunksRequest(collection=self.name, chunks=chunks))

    def search(self, at: int, **fields: bool) -> pb.SearchRequest:
        return pb.SearchRequest(collection=self.name, vector=self.queries[at].tobytes(), top_k=TOP_K, **fields)

    def _directions(self, count: int) -> np.ndarray:
        drawn = self._random.standard_normal((count, DIMENSION)).astype("<f4")
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@dataclass(kw_only=True)
class SearchLoad:
    """Searches without a pause, of clients in turn. `faults` are searches that failed or found something else."""

    corpus: Corpus
    clients: Sequence[RetrievalServiceStub]
    parallel: int = 4
    timeout_s: float = 20.0
    count: int = 0
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["SearchLoad"]:
        """Searches while the block runs; at least some come before it and after it."""
        tasks = [asyncio.create_task(self._search(random.Random(number))) for number in range(self.parallel)]
        try:
            await self.goes_on(20)
            yield self
            await self.goes_on(20)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def goes_on(self, count: int) -> None:
        """Returns when so many more searches have been answered, well or not."""
        target, end = self.count + count, time.monotonic() + PATIENCE_S
        while self.count < target:
            assert time.monotonic() < end, f"only {self.count} of {target} searches in {PATIENCE_S} s: {self.faults[:3]}"
            await asyncio.sleep(0.02)

    async def _search(self, choices: random.Random) -> None:
        for client in itertools.cycle(self.clients):
            at, began = choices.randrange(len(self.corpus.queries)), time.monotonic()
            try:
                answer = await client.Search(self.corpus.search(at), timeout=self.timeout_s)
            except grpc.aio.AioRpcError as error:
                self.faults.append(f"{error.code().name}: {error.details()}")
                await asyncio.sleep(0.05)
            else:
                found = [hit.chunk.id for hit in answer.hits]
                if found != self.corpus.expected[at] or answer.partial:
                    self.faults.append(f"query {at} found {found}, not {self.corpus.expected[at]}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.count += 1
