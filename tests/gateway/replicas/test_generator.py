import asyncio
from dataclasses import replace

import pytest

from gateway.backends import Delta, GenerateRequest
from gateway.execution import ChatMessage
from gateway.replicas.generator import ReplicatedGenerator
from gateway.replicas.pool import Replicas
from gateway.replicas.replica import Replica, ReplicaLimits, ReportedLoad
from penstock import identity
from penstock.deadline import within
from penstock.errors import (
    BackendUnavailable,
    Cancelled,
    DeadlineTooShort,
    EngineFailed,
    InvalidArgument,
    NotReady,
    Overloaded,
    PenstockError,
)
from penstock.identity import Identity
from tests.gateway.replicas.fakes import FINISH, FakeNode, pool, rag

ROOM = ReportedLoad(running=0, waiting=0, running_max=8, waiting_max=8)
REQUEST = GenerateRequest(model="default", prompt=rag(1))


def nodes(replicas: Replicas) -> list[FakeNode]:
    return [replica.node for replica in replicas.all()]  # type: ignore[misc]


def home_of(replicas: Replicas, request: GenerateRequest = REQUEST) -> Replica:
    """Where a request goes, known by asking for it."""
    (home,) = [replica for replica in replicas.all() if replica.node.requests]  # type: ignore[attr-defined]
    return home


async def primed(count: int, **limits: float) -> tuple[Replicas, ReplicatedGenerator, FakeNode]:
    """Replicas, one of which has REQUEST's beginning."""
    replicas = pool(count, ReplicaLimits(retry_delay_min_s=0.001, retry_delay_max_s=0.01, **limits))  # type: ignore[arg-type]
    generator = ReplicatedGenerator(replicas)
    await generator.generate(REQUEST)
    return replicas, generator, home_of(replicas).node  # type: ignore[return-value]


async def answer(generator: ReplicatedGenerator, *, streamed: bool) -> str:
    if not streamed:
        return (await generator.generate(REQUEST)).text
    parts = [part async for part in generator.stream(REQUEST)]
    assert parts[-1] is FINISH
    return "".join(part.text for part in parts if isinstance(part, Delta))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("error", [BackendUnavailable("gone"), NotReady("draining"), EngineFailed("died"), Cancelled("cut")])
async def test_an_answer_that_has_not_begun_comes_from_another_replica(error: PenstockError, streamed: bool) -> None:
    replicas, generator, home = await primed(3)
    home.error = error
    assert await answer(generator, streamed=streamed) == "one two"
    assert sum(len(node.requests) for node in nodes(replicas)) == 3
    assert all(replica.outstanding == 0 for replica in replicas.all())


async def test_a_failure_after_the_first_token_is_told() -> None:
    replicas, generator, home = await primed(3)
    home.error, home.tokens_before = BackendUnavailable("the connection broke"), 1
    seen = []
    with pytest.raises(BackendUnavailable, match="the connection broke"):
        async for part in generator.stream(REQUEST):
            seen.append(part)
    assert seen == [Delta(text="one ")]
    assert sum(len(node.requests) for node in nodes(replicas)) == 2


@pytest.mark.parametrize("error", [InvalidArgument("no"), Overloaded("full", retry_after_s=7.0), DeadlineTooShort("late")])
async def test_what_is_no_fault_of_the_replica_is_passed_on(error: PenstockError) -> None:
    replicas, generator, home = await primed(3)
    home.error = error
    with pytest.raises(type(error)) as caught:
        await generator.generate(REQUEST)
    assert caught.value.retry_after_s == error.retry_after_s
    assert sum(len(node.requests) for node in nodes(replicas)) == 2


async def test_a_refusal_for_overload_goes_once_to_a_replica_with_room() -> None:
    replicas, generator, home = await primed(3)
    for node in nodes(replicas):
        node.error = Overloaded("full", retry_after_s=7.0)
    with_room = [replica for replica in replicas.all() if replica.node is not home]
    for replica in with_room:
        replica.reported(ROOM)
    with pytest.raises(Overloaded):
        await generator.generate(REQUEST)
    assert sum(len(node.requests) for node in nodes(replicas)) == 3, "not to the third"
    for replica in with_room:
        replica.node.error = None  # type: ignore[attr-defined]
        replica.reported(ROOM)
    assert (await generator.generate(REQUEST)).text == "one two"


async def test_a_call_that_may_have_killed_two_engines_kills_no_third() -> None:
    replicas, generator, _ = await primed(5, tries_max=5)
    for node in nodes(replicas):
        node.error = EngineFailed("died")
    with pytest.raises(EngineFailed):
        await generator.generate(REQUEST)
    assert sum(len(node.requests) for node in nodes(replicas)) == 1 + 2


@pytest.mark.parametrize(("count", "tries"), [(1, 3), (2, 3), (5, 3)])
async def test_tries_are_bounded_and_a_single_replica_has_them_too(count: int, tries: int) -> None:
    replicas = pool(count)
    for node in nodes(replicas):
        node.error = BackendUnavailable("gone")
    with pytest.raises(BackendUnavailable, match="gone"):
        await ReplicatedGenerator(replicas).generate(REQUEST)
    assert sum(len(node.requests) for node in nodes(replicas)) == tries


async def test_a_single_replica_that_comes_back_meanwhile_answers() -> None:
    replicas = pool(1)
    (node,) = nodes(replicas)

    async def comes_back() -> None:
        node.error = BackendUnavailable("gone") if len(node.requests) < 3 else None

    node.before = comes_back
    assert await answer(ReplicatedGenerator(replicas), streamed=True) == "one two"


async def test_nobody_waits_for_another_try_beyond_the_deadline() -> None:
    replicas = pool(1, ReplicaLimits(retry_delay_min_s=30, retry_delay_max_s=30))
    (node,) = nodes(replicas)
    node.error = BackendUnavailable("gone")
    with within(1.0), pytest.raises(BackendUnavailable, match="gone"):
        await ReplicatedGenerator(replicas).generate(REQUEST)
    assert len(node.requests) == 1


async def test_without_any_replica_the_service_cannot_be_reached() -> None:
    with pytest.raises(BackendUnavailable, match="no replica of it is known") as caught:
        await ReplicatedGenerator(pool(0)).generate(REQUEST)
    assert caught.value.retry_after_s


async def test_a_caller_that_leaves_leaves_nothing_behind() -> None:
    replicas = pool(2)
    for node in nodes(replicas):
        node.before = asyncio.Event().wait
    task = asyncio.create_task(ReplicatedGenerator(replicas).generate(REQUEST))
    while not any(node.requests for node in nodes(replicas)):
        await asyncio.sleep(0)
    assert [replica.outstanding for replica in replicas.all()].count(1) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    stream = ReplicatedGenerator(pool(2)).stream(REQUEST)
    assert await anext(stream) == Delta(text="one ")
    await stream.aclose()
    assert all(replica.outstanding == 0 for replica in replicas.all())


async def test_tenants_do_not_follow_each_others_prompts() -> None:
    replicas = pool(8)
    generator = ReplicatedGenerator(replicas)
    before = identity.current()
    try:
        for number in range(24):
            identity.assume(Identity(tenant=f"tenant {number}"))
            await generator.generate(REQUEST)
    finally:
        identity.assume(before)
    assert sum(len(replica.prefixes) > 0 for replica in replicas.all()) == 1, "the place is the text's"
    assert len({link for replica in replicas.all() for link in replica.prefixes._links}) > 23, "what is cached is not"


async def test_vectors_and_scores_come_from_whoever_is_there() -> None:
    replicas = pool(2)
    generator = ReplicatedGenerator(replicas)
    first, second = nodes(replicas)
    first.error = NotReady("draining")
    assert (await generator.embed("m", ("a", "bb"))).vectors == ((1.0,), (2.0,))
    assert (await generator.rerank("m", "q", ("a", "bb"))).scores == (1.0, 2.0)
    assert second.pooled == [("a", "bb"), ("a", "bb")]
    second.error = InvalidArgument("too long")
    with pytest.raises(InvalidArgument):
        await generator.rerank("m", "q", ("a",))


async def test_adapters_and_salts_do_not_follow_each_others_prompts_and_turns_count_as_the_prompts_beginning() -> None:
    replicas, generator, _ = await primed(16)
    turns = (ChatMessage(role="user", content=rag(2)),)
    for change in ({"adapter": "poet"}, {"cache_salt": "team"}, {"messages": turns}):
        known = {id(replica): len(replica.prefixes) for replica in replicas.all()}
        for _ in range(3):
            await generator.generate(replace(REQUEST, **change))
        grown = [replica for replica in replicas.all() if len(replica.prefixes) > known[id(replica)]]
        assert len(grown) == 1, "the beginning was new once, and known after that"
