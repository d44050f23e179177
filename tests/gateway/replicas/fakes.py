"""Replicas that do what each test needs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from opentelemetry.metrics import NoOpMeterProvider

from gateway.backends import Answer, Delta, Finish, GenerateRequest, Scores, Vectors
from gateway.replicas.pool import Replicas
from gateway.replicas.prefixes import Prefix
from gateway.replicas.replica import Replica, ReplicaLimits, ReportedLoad
from gateway.replicas.statistics import Statistics
from penstock.errors import PenstockError

FINISH = Finish(reason="stop", input_tokens=3, output_tokens=2, model="m")
QUICK = ReplicaLimits(retry_delay_min_s=0.001, retry_delay_max_s=0.01, report_interval_s=0.01)
INSTRUCTIONS = "Answer from the passages. " * 20
PASSAGES = [f"Passage {number} tells of it. " * 40 for number in range(100)]


class FakeNode:
    """Answers "one ", "two", or fails with `error` after `tokens_before` of them. `before` is awaited first."""

    def __init__(self) -> None:
        self.requests: list[GenerateRequest] = []
        self.pooled: list[tuple[str, ...]] = []
        self.error: PenstockError | None = None
        self.tokens_before = 0
        self.before: Callable[[], Awaitable[object]] | None = None
        self.report: ReportedLoad | PenstockError = ReportedLoad(running=0, waiting=0, running_max=8, waiting_max=8)
        self.ready = asyncio.Queue[bool]()
        self.load_count = 0
        self.closed_with: list[float | None] = []

    async def generate(self, request: GenerateRequest) -> Answer:
        self.requests.append(request)
        if self.before is not None:
            await self.before()
        if self.error is not None:
            raise self.error
        return Answer(text="one two", finish=FINISH)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finish, None]:
        self.requests.append(request)
        if self.before is not None:
            await self.before()
        for index, text in enumerate(("one ", "two")):
            if self.error is not None and index == self.tokens_before:
                raise self.error
            yield Delta(text=text)
        yield FINISH

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        await self._pool(texts)
        return Vectors(vectors=tuple((float(len(text)),) for text in texts), input_tokens=1)

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> Scores:
        await self._pool(documents)
        return Scores(scores=tuple(float(len(text)) for text in documents), input_tokens=1)

    async def _pool(self, texts: Sequence[str]) -> None:
        self.pooled.append(tuple(texts))
        if self.before is not None:
            await self.before()
        if self.error is not None:
            raise self.error

    async def load(self) -> ReportedLoad:
        self.load_count += 1
        if isinstance(self.report, PenstockError):
            raise self.report
        return self.report

    async def readiness(self) -> AsyncGenerator[bool, None]:
        while True:
            yield await self.ready.get()

    async def close(self, grace_s: float | None = None) -> None:
        self.closed_with.append(grace_s)


def statistics() -> Statistics:
    return Statistics(NoOpMeterProvider().get_meter("test"))


def pool(count: int, limits: ReplicaLimits = QUICK) -> Replicas:
    """That many replicas, all ready: "r0:1", "r1:1" ..."""
    made = Replicas(lambda _: FakeNode(), limits=limits, statistics=statistics())
    join(made, *(f"r{number}:1" for number in range(count)))
    return made


def join(replicas: Replicas, *addresses: str) -> None:
    """These and no others are there, and ready."""
    new, _ = replicas.update(addresses)
    for replica in new:
        replica.ready = True


def picked(replicas: Replicas, prompt: str, **how: str) -> Replica:
    found = replicas.pick(Prefix(prompt, **how))
    assert found is not None
    return found


def rag(passage: int, question: str = "Why?") -> str:
    return f"{INSTRUCTIONS}\n[1] {PASSAGES[passage]}\n\nQuestion: {question}"
