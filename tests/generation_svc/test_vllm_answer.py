from types import SimpleNamespace

import pytest

from generation_svc.engine import Feature, FinishReason, GenerationRequest, LogprobOptions, StructuredOutput
from generation_svc.vllm_answer import AnswerParts, timings
from penstock.errors import EngineFailed, InvalidArgument


def completion(text: str = "", ids=(), *, reason: str | None = None, stop: object = None, logprobs=None) -> SimpleNamespace:
    return SimpleNamespace(text=text, token_ids=list(ids), finish_reason=reason, stop_reason=stop, logprobs=logprobs)


def output(last: SimpleNamespace, metrics: object = None) -> SimpleNamespace:
    return SimpleNamespace(outputs=[last], num_cached_tokens=None, metrics=metrics)


def parts(**request: object) -> AnswerParts:
    return AnswerParts(GenerationRequest(prompt="p", **request), prompt_tokens=7)


def found(logprob: float, rank: int, token: str) -> SimpleNamespace:
    return SimpleNamespace(logprob=logprob, rank=rank, decoded_token=token)


POSITION = {5: found(-2.0, 3, "c"), 1: found(-0.1, 1, "a"), 2: found(-1.0, 2, "b")}


def test_tokens_are_counted_even_when_they_show_no_text_yet() -> None:
    answer = parts()
    assert answer.delta(completion("", [1])).token_count == 1
    assert answer.delta(completion()) is None
    finished = answer.finished(output(completion("x", [2], reason="stop")))
    assert (finished.usage.input_tokens, finished.usage.output_tokens, finished.usage.cached_tokens) == (7, 1, 0)


def test_only_a_stop_text_is_a_matched_stop() -> None:
    assert parts().finished(output(completion(reason="stop", stop="END"))).matched_stop == "END"
    assert parts().finished(output(completion(reason="stop", stop=128009))).matched_stop == ""
    assert parts().finished(output(completion(reason="length"))).finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("reason", ["error", "abort", "something new"])
def test_an_answer_that_vllm_ended_for_a_fault_is_an_error_and_no_answer(reason: str) -> None:
    with pytest.raises(EngineFailed, match=reason):
        parts().finished(output(completion(reason=reason)))


def test_a_form_that_vllm_could_not_compile_is_the_callers_fault() -> None:
    form = StructuredOutput(kind=Feature.REGEX, value="a")
    with pytest.raises(InvalidArgument, match=r"structured_output\.regex"):
        parts(structured_output=form).finished(output(completion(reason="error")))


def test_without_options_no_logprobs_are_made() -> None:
    assert parts().delta(completion("c", [5], logprobs=[POSITION])).logprobs == ()


def test_the_chosen_token_alone_has_none_beside_it() -> None:
    (token,) = parts(logprobs=LogprobOptions()).delta(completion("c", [5], logprobs=[{5: POSITION[5]}])).logprobs
    assert (token.token, token.logprob, token.token_id, token.top) == ("c", -2.0, 5, ())


def test_the_likeliest_come_in_order_and_the_chosen_is_among_them_only_if_it_is() -> None:
    (token,) = parts(logprobs=LogprobOptions(top=2)).delta(completion("c", [5], logprobs=[POSITION])).logprobs
    assert [other.token for other in token.top] == ["a", "b"]
    (token,) = parts(logprobs=LogprobOptions(top=3)).delta(completion("c", [5], logprobs=[POSITION])).logprobs
    assert [other.token for other in token.top] == ["a", "b", "c"]


def test_times_are_those_of_the_wall_clock() -> None:
    made = timings(SimpleNamespace(scheduled_ts=10.0, first_token_ts=10.5, last_token_ts=12.0))
    assert made.first_token_ns - made.scheduled_ns == 500_000_000
    assert made.last_token_ns - made.scheduled_ns == 2_000_000_000
    assert timings(None) is None


def test_named_tokens_come_alone_whichever_was_chosen() -> None:
    request = GenerationRequest(prompt="p", logprobs=LogprobOptions(tokens=("a", "b")))
    named = AnswerParts(request, prompt_tokens=7, named=[number for number in POSITION if number != 5])
    (token,) = named.delta(completion("c", [5], logprobs=[POSITION])).logprobs
    assert (token.token, [other.token_id for other in token.top]) == ("c", [number for number in POSITION if number != 5])
