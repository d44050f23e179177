"""The Generator, Embedder and Reranker over all replicas."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial

from gateway.backends import Answer, Delta, Finish, GenerateRequest, Scores, Vectors
from gateway.replicas.attempts import Attempts
from gateway.replicas.pool import Connect, Replicas
from gateway.replicas.prefixes import Prefix
from gateway.replicas.replica import ReplicaLimits
from gateway.replicas.statistics import Statistics
from gateway.replicas.watching import watched
from penstock import identity
from penstock.addresses import Address
from penstock.discovery import Resolve, resolve_by_dns


@asynccontextmanager
async def replicated(
    addresses: Sequence[Address],
    connect: Connect,
    *,
    limits: ReplicaLimits,
    statistics: Statistics,
    resolve: Resolve = resolve_by_dns,
) -> AsyncIterator["ReplicatedGenerator"]:
    """A Generator over the replicas that are found at `addresses`, while the block runs."""
    replicas = Replicas(connect, limits=limits, statistics=statistics)
    async with watched(replicas, addresses, resolve):
        yield ReplicatedGenerator(replicas)


class ReplicatedGenerator:
    """Asks the replica that suits a prompt, and another one when that fails before it has said anything."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    def call_counts(self) -> dict[str, int]:
        """Calls that went to each replica that is there, by its address."""
        return {replica.address: replica.call_count for replica in self._replicas.all()}

    async def generate(self, request: GenerateRequest) -> Answer:
        attempts = Attempts(self._replicas, partial(_prefix, request))
        while True:
            async with attempts as node:
                return await node.generate(request)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finish, None]:
        attempts = Attempts(self._replicas, partial(_prefix, request))
        while True:
            async with attempts as node, aclosing(node.stream(request)) as parts:
                async for part in parts:
                    attempts.answered()
                    yield part
                return

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        attempts = Attempts(self._replicas, _nothing_shared)
        while True:
            async with attempts as node:
                return await node.embed(model, texts)

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> Scores:
        attempts = Attempts(self._replicas, _nothing_shared)
        while True:
            async with attempts as node:
                return await node.rerank(model, query, documents)


def _nothing_shared() -> Prefix:
    """A pooling model caches no beginnings: its calls go to whoever has least to do."""
    return Prefix("")


def _prefix(request: GenerateRequest) -> Prefix:
    """Tenants share no cache (the service salts their prompts), nor do models, adapters and salts."""
    known_to = f"{identity.current().tenant}\0{request.model}\0{request.adapter}\0{request.cache_salt}"
    turns = "".join(f"{turn.role}: {turn.content}\n" for turn in request.messages)
    return Prefix(f"{request.system}\n{turns}{request.prompt}", known_to=known_to, session=request.session)
