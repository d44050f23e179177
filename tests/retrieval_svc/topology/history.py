"""What concurrent writers were told, and whether the nodes agree with it.

Writes of one id go through one shard, whose log orders them; the position that a write's token names tells where. Writes that
shared a transaction have the same position, and any order among them is right.
"""

import asyncio
import base64
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np
import orjson

from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from retrieval_svc.consistency import consistency_token
from retrieval_svc.values import shard_of
from tests.retrieval_svc.topology.load import DIMENSION

SHARDS = 2
IDS = 40


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write of one id: its version, or None for a deletion; where it stands, None where it was not acknowledged."""

    version: int | None
    position: int | None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A search that carried the token of a position, and the version that it found."""

    chunk_id: str
    at_least: int
    seen: int | None


@dataclass(kw_only=True)
class History:
    """Everything that was written and seen in one collection."""

    name: str
    seed: int = 7
    writes: dict[str, list[Write]] = field(default_factory=dict)
    seen: list[Observation] = field(default_factory=list)
    failures: list[grpc.aio.AioRpcError] = field(default_factory=list)
    _uid: int = 0
    _positions: dict[int, int] = field(default_factory=dict)
    _versions: "itertools.count[int]" = field(default_factory=itertools.count)

    async def create(self, client: RetrievalServiceStub) -> None:
        collection = pb.Collection(dimension=DIMENSION, shard_count=SHARDS)
        collection_id = self.name.removeprefix("collections/")
        await client.CreateCollection(pb.CreateCollectionRequest(collection_id=collection_id, collection=collection))

    async def write(self, clients: Sequence[RetrievalServiceStub], number: int, stop: asyncio.Event) -> None:
        """One writer, until it is told to stop: upserts and deletions through any node, each looked at through another."""
        choices = random.Random(self.seed * 1000 + number)
        while not stop.is_set():
            ids = choices.sample([f"id{at}" for at in range(IDS)], choices.randint(1, 4))
            deletes = choices.random() < 0.3
            versions = None if deletes else {chunk_id: next(self._versions) for chunk_id in ids}
            try:
                token = await self._send(choices.choice(clients), ids, versions)
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
                self._note(ids, versions, dict.fromkeys(range(SHARDS)))
                await asyncio.sleep(0.05)
                continue
            self._acknowledge(ids, versions, token)
            await self._look(choices.choice(clients), choices.choice(ids), token)

    async def check(self, client: RetrievalServiceStub) -> None:
        """What a node finds, once it has come to where the writers were told to be, is what was written last."""
        token = consistency_token(self._uid, self._positions)
        for chunk_id, writes in self.writes.items():
            found = await self._find(client, chunk_id, token)
            allowed = last_versions(writes)
            assert found in allowed, f"{chunk_id} is at version {found}, but was written last as {sorted(map(str, allowed))}"

    def check_observations(self) -> None:
        """Nobody who carried a token saw anything older than what the token stands for."""
        for each in self.seen:
            matching = [write for write in self.writes[each.chunk_id] if write.version == each.seen]
            assert matching or each.seen is None, f"nobody ever wrote {each}"
            late_enough = [write for write in matching if write.position is None or write.position >= each.at_least]
            assert late_enough, f"{each} is older than its token: {self.writes[each.chunk_id]}"

    def _acknowledge(self, ids: Sequence[str], versions: dict[str, int] | None, token: str) -> None:
        positions = _positions(token)
        if token:
            self._uid, _ = _decoded(token)
        for shard, position in positions.items():
            self._positions[shard] = max(position, self._positions.get(shard, 0))
        self._note(ids, versions, positions)

    def _note(self, ids: Sequence[str], versions: dict[str, int] | None, positions: Mapping[int, int | None]) -> None:
        for chunk_id in ids:
            shard = shard_of(chunk_id, SHARDS)
            if shard in positions:  # Else it deleted what was not there.
                version = None if versions is None else versions[chunk_id]
                self.writes.setdefault(chunk_id, []).append(Write(version=version, position=positions[shard]))

    async def _send(self, client: RetrievalServiceStub, ids: Sequence[str], versions: dict[str, int] | None) -> str:
        if versions is None:
            deletion = pb.DeleteChunksRequest(collection=self.name, chunk_ids=ids)
            return (await client.DeleteChunks(deletion, timeout=20)).consistency_token
        chunks = [
            pb.Chunk(id=chunk_id, text=str(version), vector=vector_of(chunk_id)) for chunk_id, version in versions.items()
        ]
        return (
            await client.UpsertChunks(pb.UpsertChunksRequest(collection=self.name, chunks=chunks), timeout=20)
        ).consistency_token

    async def _look(self, client: RetrievalServiceStub, chunk_id: str, token: str) -> None:
        position = _positions(token).get(shard_of(chunk_id, SHARDS))
        if position is None:
            return
        try:
            seen = await self._find(client, chunk_id, token)
        except grpc.aio.AioRpcError as error:
            self.failures.append(error)
        else:
            self.seen.append(Observation(chunk_id=chunk_id, at_least=position, seen=seen))

    async def _find(self, client: RetrievalServiceStub, chunk_id: str, token: str) -> int | None:
        """The version that a search for an id's own vector finds."""
        request = pb.SearchRequest(collection=self.name, vector=vector_of(chunk_id), top_k=1, consistency_token=token)
        hits = (await client.Search(request, timeout=20)).hits
        return int(hits[0].chunk.text) if hits and hits[0].chunk.id == chunk_id else None


def vector_of(chunk_id: str) -> bytes:
    """The vector that belongs to an id, the same in every run."""
    return np.random.default_rng(list(chunk_id.encode())).standard_normal(DIMENSION).astype("<f4").tobytes()


def last_versions(writes: Sequence[Write]) -> set[int | None]:
    """The versions that may be there after all: the last of the acknowledged, and any that nobody knows the fate of."""
    known = [write.position for write in writes if write.position is not None]
    in_doubt = {write.version for write in writes if write.position is None}
    if not known:
        return {None} | in_doubt
    return in_doubt | {write.version for write in writes if write.position == max(known)}


def _positions(token: str) -> dict[int, int]:
    return dict(_decoded(token)[1]) if token else {}


def _decoded(token: str) -> tuple[int, list[tuple[int, int]]]:
    uid, pairs = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return uid, pairs
