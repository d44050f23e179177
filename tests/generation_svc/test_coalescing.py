import asyncio
import time
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation_svc.coalescing import Coalescing, coalesce
from generation_svc.engine import Answer, Delta, Finished, FinishReason
from penstock.errors import DeadlineExceeded
from tests.generation_svc.fakes import FakeEngine, ask, collect

END = Finished(finish_reason=FinishReason.STOP)
SLOW = Coalescing(tokens_max=1000, delay_max_s=1000.0)


async def said(*words: str, pause_s: float = 0.0, error: Exception | None = None) -> Answer:
    for word in words:
        if pause_s:
            await asyncio.sleep(pause_s)
        yield Delta(text=word, token_count=1)
    if error is not None:
        raise error
    yield END


async def test_the_first_delta_goes_out_at_once_and_the_rest_at_the_end() -> None:
    answer = coalesce(said("a", "b", "c", "d", pause_s=0.005), SLOW)
    assert await anext(answer) == Delta(text="a", token_count=1)
    assert [part async for part in answer] == [Delta(text="bcd", token_count=3), END]


async def test_a_delta_goes_out_when_it_has_enough_tokens() -> None:
    rule = Coalescing(tokens_max=2, delay_max_s=1000.0)
    deltas, _ = await collect(coalesce(said("a", "b", "c", "d", "e", "f", pause_s=0.005), rule))
    assert [delta.text for delta in deltas] == ["a", "bc", "de", "f"]


async def test_a_delta_goes_out_when_it_has_waited_long_enough() -> None:
    async def stalls() -> Answer:
        yield Delta(text="a", token_count=1)
        yield Delta(text="b", token_count=1)
        await asyncio.sleep(1000)
        yield END

    answer = coalesce(stalls(), Coalescing(tokens_max=1000, delay_max_s=0.02))
    began = time.monotonic()
    texts = ""
    while texts != "ab":
        texts += (await anext(answer)).text
    assert time.monotonic() - began < 5
    await answer.aclose()


async def test_without_a_delay_every_delta_goes_on_as_it_comes() -> None:
    deltas, _ = await collect(coalesce(said("a", "b", "c", pause_s=0.002), Coalescing(tokens_max=1000, delay_max_s=0)))
    assert [delta.text for delta in deltas] == ["a", "b", "c"]


async def test_an_error_comes_after_the_text_that_came_before_it() -> None:
    answer = coalesce(said("a", "b", error=RuntimeError("broke")), SLOW)
    texts = ""
    with pytest.raises(RuntimeError, match="broke"):
        async for part in answer:
            texts += part.text
    assert texts == "ab"


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_whoever_leaves_has_the_engine_stopped_before_the_leaving_is_done(how: str) -> None:
    engine = FakeEngine(endless=True)
    answer = coalesce(engine.generate(ask()), SLOW)
    await anext(answer)
    assert engine.running == 1
    if how == "close":
        await answer.aclose()
    else:
        waiting = asyncio.create_task(anext(answer))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert engine.running == 0


async def test_leaving_before_the_first_token_stops_the_engine_too() -> None:
    engine = FakeEngine(words=("a",), pause_s=1000.0)
    waiting = asyncio.create_task(anext(coalesce(engine.generate(ask()), SLOW)))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert engine.running == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert engine.running == 0


@given(
    words=st.lists(st.text(max_size=3), max_size=30), tokens_max=st.integers(1, 10), delay_s=st.sampled_from([0.0, 0.001, 10.0])
)
def test_no_text_and_no_token_is_lost_however_it_is_gathered(words: list[str], tokens_max: int, delay_s: float) -> None:
    async def gathered() -> tuple[list[Delta], Finished]:
        return await collect(coalesce(said(*words), Coalescing(tokens_max=tokens_max, delay_max_s=delay_s)))

    deltas, finished = asyncio.run(gathered())
    assert "".join(delta.text for delta in deltas) == "".join(words)
    assert sum(delta.token_count for delta in deltas) == len(words)
    assert finished is END


async def test_a_reader_that_stops_reading_holds_the_engine_back_and_memory_is_bounded() -> None:
    engine = FakeEngine(endless=True)
    rule = Coalescing(tokens_max=8, delay_max_s=0.001, unread_tokens_max=50, unread_max_s=30.0)
    given = 0

    async def counted() -> Answer:
        nonlocal given
        async with aclosing(engine.generate(ask())) as parts:
            async for part in parts:
                given += 1
                yield part

    async with aclosing(coalesce(counted(), rule)) as answer:
        await anext(answer)
        await asyncio.sleep(0.3)  # Some 250 tokens of the engine's, if it were not held back.
        assert given <= 60
        assert sum([(await anext(answer)).token_count for _ in range(20)]) > 50  # It goes on where it was.
    assert engine.running == 0


async def test_an_answer_that_nobody_reads_is_ended_and_its_slot_is_free_while_the_reader_still_stalls() -> None:
    engine = FakeEngine(endless=True)
    rule = Coalescing(tokens_max=8, delay_max_s=0.001, unread_tokens_max=20, unread_max_s=0.05)
    async with aclosing(coalesce(engine.generate(ask()), rule)) as answer:
        await anext(answer)
        async with asyncio.timeout(5):
            while engine.running:
                await asyncio.sleep(0.01)
        with pytest.raises(DeadlineExceeded, match=r"not read for 0\.05 s"):
            while True:
                await anext(answer)


async def test_each_of_several_answers_begins_at_once_and_keeps_its_own_text() -> None:
    async def two() -> Answer:
        for word in ("a", "b", "c"):
            for index in (0, 1):
                yield Delta(text=word + str(index), token_count=1, index=index)
        yield END

    deltas, _ = await collect(coalesce(two(), SLOW))
    texts = {index: "".join(delta.text for delta in deltas if delta.index == index) for index in (0, 1)}
    assert texts == {0: "a0b0c0", 1: "a1b1c1"}


async def test_what_comes_with_the_end_while_a_delta_is_read_is_not_lost() -> None:
    async def halting() -> Answer:
        yield Delta(text="one", token_count=1)
        await asyncio.sleep(0.01)
        yield Delta(text=" two", token_count=1)
        yield END

    texts, ended = [], 0
    async for part in coalesce(halting(), Coalescing(tokens_max=8, delay_max_s=0.02)):
        if isinstance(part, Delta):
            texts.append(part.text)
        else:
            ended += 1
        await asyncio.sleep(0.05)  # A reader that is slower than the engine.
    assert ("".join(texts), ended) == ("one two", 1)
