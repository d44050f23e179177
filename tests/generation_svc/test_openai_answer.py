"""Answers in the shapes that endpoints give them, read."""

import math
from dataclasses import replace
from typing import Any

import orjson
import pytest

from generation_svc.engine import Delta, FinishReason, GenerationRequest, LogprobOptions, TokenLogprob, Usage
from generation_svc.openai_answer import AnswerReader, streamed
from generation_svc.openai_dialect import OPENAI, SGLANG, VLLM, Dialect
from penstock.errors import BackendUnavailable, InvalidArgument, UnsupportedFeature
from tests.generation_svc.fakes import ask, collect
from tests.generation_svc.openai_endpoint import answering, engine_over, in_turn, sse

NAMED = (("Yes", 5), ("No", 6), (" maybe", 7))


def reader(logprobs: LogprobOptions | None = None, dialect: Dialect = VLLM, named=()) -> AnswerReader:
    return AnswerReader(replace(ask(), logprobs=logprobs), dialect, named)


def event(text: str | None = None, usage: int | None = None, **choice: Any) -> dict[str, Any]:
    counted = {} if usage is None else {"usage": {"prompt_tokens": 9, "completion_tokens": usage}}
    return {"choices": [{"index": 0, "delta": {"content": text}, **choice}], **counted}


def chat_logprobs(*places: tuple[str, float, list[tuple[str, float]]]) -> dict[str, Any]:
    """As vLLM and OpenAI write them."""
    return {
        "content": [
            {
                "token": token,
                "logprob": logprob,
                "bytes": list(token.encode()),
                "top_logprobs": [{"token": other, "logprob": value, "bytes": None} for other, value in others],
            }
            for token, logprob, others in places
        ]
    }


def raw_logprobs(*places: tuple[str, float | None, dict[str, float] | None]) -> dict[str, Any]:
    tokens, logprobs, tops = zip(*places, strict=True)
    return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": [0] * len(tokens)}


def test_tokens_are_counted_by_the_usage_of_each_event_where_it_has_one() -> None:
    read = reader()
    assert read.take(event("", usage=0)) is None
    assert read.take(event("A", usage=1)) == Delta(text="A", token_count=1)
    assert read.take(event(" pipe", usage=4)) == Delta(text=" pipe", token_count=3)
    # Held back for a stop text: nothing to read yet, but a token.
    assert read.take(event("", usage=5)) == Delta(text="", token_count=1)
    assert read.take(event(".", usage=5)) == Delta(text=".", token_count=0)


def test_without_usage_an_event_with_text_is_a_token() -> None:
    read = reader(dialect=OPENAI)
    assert [read.take(event(text)) for text in ("", None)] == [None, None]
    assert read.take(event("A pipe")) == Delta(text="A pipe", token_count=1)
    read.take(event(finish_reason="stop"))
    assert read.finished().usage == Usage(output_tokens=1)


def test_times_are_in_order_and_those_of_the_tokens() -> None:
    read = reader()
    for text in ("A", " pipe"):
        read.take(event(text))
    read.take(event(finish_reason="stop"))
    times = read.finished().timings
    assert times is not None
    assert 0 < times.scheduled_ns <= times.first_token_ns <= times.last_token_ns


@pytest.mark.parametrize(
    ("dialect", "choice", "expected"),
    [
        (VLLM, {"finish_reason": "stop", "stop_reason": "END"}, "END"),
        (VLLM, {"finish_reason": "stop", "stop_reason": 2}, ""),
        (VLLM, {"finish_reason": "stop", "stop_reason": None}, ""),
        (SGLANG, {"finish_reason": "stop", "matched_stop": "END"}, "END"),
        (SGLANG, {"finish_reason": "stop", "matched_stop": 151645}, ""),
        (OPENAI, {"finish_reason": "stop"}, ""),
    ],
)
def test_the_stop_text_is_named_where_the_dialect_names_it(dialect: Dialect, choice: dict[str, Any], expected: str) -> None:
    read = reader(dialect=dialect)
    read.take(event("x", **choice))
    assert read.finished().matched_stop == expected
    assert read.finished().finish_reason is FinishReason.STOP


@pytest.mark.parametrize("reason", [None, "abort", "error"])
def test_an_answer_that_the_endpoint_gave_up_is_not_taken_for_one(reason: str | None) -> None:
    read = reader()
    read.take(event("A", finish_reason=reason))
    with pytest.raises(BackendUnavailable, match="before it was finished"):
        read.finished()


def test_the_likeliest_are_in_order_and_as_many_as_were_asked_for() -> None:
    read = reader(LogprobOptions(top=2))
    # vLLM puts the chosen token first, likely or not.
    places = ("x", -9.0, [("x", -9.0), ("a", -0.5), ("b", -1.5)]), ("a", -0.1, [("a", -0.1), ("b", -3.0), ("c", -4.0)])
    delta = read.take(event("xa", logprobs=chat_logprobs(*places), token_ids=[3, 1]))
    assert delta is not None
    assert delta.token_count == 2
    assert delta.logprobs == (
        TokenLogprob(
            token="x",
            logprob=-9.0,
            token_id=3,
            top=(TokenLogprob(token="a", logprob=-0.5), TokenLogprob(token="b", logprob=-1.5)),
        ),
        TokenLogprob(
            token="a",
            logprob=-0.1,
            token_id=1,
            top=(TokenLogprob(token="a", logprob=-0.1), TokenLogprob(token="b", logprob=-3.0)),
        ),
    )


def test_the_chosen_alone_has_no_others() -> None:
    delta = reader(LogprobOptions()).take(event("x", logprobs=chat_logprobs(("x", -1.0, [("x", -1.0)]))))
    assert delta is not None
    assert delta.logprobs == (TokenLogprob(token="x", logprob=-1.0),)


def test_a_part_of_a_character_has_the_replacement_character() -> None:
    place = {"token": "\\xf0\\x9f", "bytes": [0xF0, 0x9F], "logprob": -1.0, "top_logprobs": []}
    delta = reader(LogprobOptions(), OPENAI).take(event("", logprobs={"content": [place]}))
    assert delta is not None
    assert delta.logprobs[0].token == "\ufffd"


@pytest.mark.parametrize(
    ("chosen", "number", "others"),
    [
        ("x", 9, [("x", -0.1), ("Yes", -2.0), ("No", -1.0), (" maybe", -3.0)]),
        ("No", 6, [("No", -1.0), ("Yes", -2.0), (" maybe", -3.0)]),
    ],
    ids=["another-was-chosen", "one-of-them-was-chosen"],
)
@pytest.mark.parametrize("raw", [False, True])
def test_named_tokens_are_told_apart_by_their_order(chosen: str, number: int, others: list[Any], raw: bool) -> None:
    read = reader(LogprobOptions(tokens=("Yes", "No", " maybe")), named=NAMED)
    logprob = others[0][1]
    logprobs = raw_logprobs((chosen, logprob, dict(others))) if raw else chat_logprobs((chosen, logprob, others))
    delta = read.take(event(chosen, logprobs=logprobs, token_ids=[number]))
    assert delta is not None
    (token,) = delta.logprobs
    assert (token.token, token.token_id, token.logprob) == (chosen, number, logprob)
    assert [(other.token, other.token_id, other.logprob) for other in token.top] == [
        ("No", 6, -1.0),
        ("Yes", 5, -2.0),
        (" maybe", 7, -3.0),
    ]


def test_a_server_that_gives_other_tokens_than_were_named_is_not_believed() -> None:
    read = reader(LogprobOptions(tokens=("Yes", "No", " maybe")), named=NAMED)
    with pytest.raises(BackendUnavailable, match="dialect"):
        read.take(event("x", logprobs=chat_logprobs(("x", -0.1, [("x", -0.1), ("a", -1.0)])), token_ids=[9]))


def test_a_raw_prompts_logprobs_may_lack_what_was_not_asked_for() -> None:
    read = reader(LogprobOptions())
    choice = {"text": "ab", "finish_reason": "stop", "logprobs": raw_logprobs(("a", None, None), ("b", -2.0, {"b": -2.0}))}
    delta = read.take({"choices": [choice]})
    assert delta is not None
    assert [token.logprob for token in delta.logprobs] == [-9999.0, -2.0]
    assert all(math.isfinite(token.logprob) and not token.top for token in delta.logprobs)


def test_an_endpoint_that_passes_over_logprobs_is_found_out() -> None:
    with pytest.raises(UnsupportedFeature, match="logprobs"):
        reader(LogprobOptions(top=1), OPENAI).take(event("A pipe"))


@pytest.mark.parametrize(
    "bad",
    [
        {"choices": "abc"},
        {"choices": [7]},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"content": ""}}], "usage": 7},
        {"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}]},
        {"choices": [{"delta": {"content": "x"}, "logprobs": {"tokens": ["x"], "token_logprobs": []}}]},
        {"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": 0, "bytes": [999]}]}}]},
    ],
)
def test_what_is_not_of_the_shape_is_an_error_that_says_so(bad: dict[str, Any]) -> None:
    with pytest.raises(BackendUnavailable, match="dialect"):
        reader(LogprobOptions()).take(bad)


async def test_events_after_done_are_not_read() -> None:
    async def chunks():
        yield b"data: " + orjson.dumps(event("A")) + b"\n\ndata: [DONE]\n\ndata: {broken\n\n"

    assert [part.text async for part in streamed(chunks(), reader()) if isinstance(part, Delta)] == ["A"]


async def test_a_named_token_is_looked_up_once_and_found_in_whole_and_streamed_answers() -> None:
    tokenize = in_turn(answering(200, {"tokens": [5]}), answering(200, {"tokens": [6]}), answering(200, {"tokens": [1, 2]}))
    logprobs = chat_logprobs(("x", -0.1, [("x", -0.1), ("Yes", -2.0), ("No", -1.0)]))
    choice = {"finish_reason": "stop", "token_ids": [9], "logprobs": logprobs}
    whole = {"choices": [{"message": {"content": "x"}, **choice}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    events = sse(b"data: " + orjson.dumps({"choices": [{"delta": {"content": "x"}, **choice}]}) + b"\n\n")
    asked: GenerationRequest = replace(ask(), logprobs=LogprobOptions(tokens=("Yes", "No", "Yes")))
    answers = in_turn(events, answering(200, whole))
    async with engine_over(answers, None, {"/tokenize": tokenize}, openai_dialect="vllm") as engine:
        for streams in (True, False):
            (delta,), _ = await collect(engine.generate(replace(asked, streamed=streams)))
            assert [(other.token, other.token_id) for other in delta.logprobs[0].top] == [("No", 6), ("Yes", 5)]
        assert len(tokenize.asked) == 2
        with pytest.raises(InvalidArgument, match="2 tokens"):
            await collect(engine.generate(replace(asked, logprobs=LogprobOptions(tokens=("two",)))))
