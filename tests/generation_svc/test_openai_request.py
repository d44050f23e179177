"""Bodies in each dialect, as the endpoint gets them."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from generation_svc.engine import Feature, GenerationRequest, LogprobOptions, ModelInfo, Sampling, StructuredOutput
from generation_svc.openai_dialect import DIALECTS, OPENAI, SGLANG, VLLM, Dialect
from generation_svc.openai_request import Asking
from penstock.errors import InvalidArgument, PromptTooLong, UnsupportedFeature
from tests.generation_svc.fakes import ask

MODEL = ModelInfo(name="small", engine="openai", context_window=100)
RAW = GenerationRequest(prompt="Once", streamed=False)
CHAT = ask(streamed=False)


def asking(dialect: Dialect = VLLM, **settings: Any) -> Asking:
    return Asking(dialect=dialect, upstream_model="upstream", max_tokens_default=512, **settings)


def added(request: GenerationRequest, dialect: Dialect = VLLM, named: tuple[int, ...] = (), **settings: Any) -> dict[str, Any]:
    """What the body has beyond the bare request's."""
    maker = asking(dialect, **settings)
    bare = maker.body(CHAT if request.messages else RAW)
    return {name: value for name, value in maker.body(request, named).items() if bare.get(name) != value}


def form(kind: Feature, value: str = "", choices: tuple[str, ...] = ()) -> StructuredOutput:
    return StructuredOutput(kind=kind, value=value, choices=choices)


def test_a_bare_request_says_no_more_than_it_must() -> None:
    for dialect in DIALECTS.values():
        messages = [{"role": "user", "content": "What is a penstock?"}]
        assert asking(dialect).body(CHAT) == {"model": "upstream", "messages": messages, "max_tokens": 512}
        assert asking(dialect).body(RAW) == {"model": "upstream", "prompt": "Once", "max_tokens": 512}


def test_sampling_goes_as_it_is_zeros_included() -> None:
    sampling = Sampling(
        temperature=0.0, top_p=0.5, top_k=3, min_p=0.0, seed=0, presence_penalty=0.0, frequency_penalty=1.0,
        repetition_penalty=1.5, min_tokens=0, max_tokens=7, stop=("x",),
    )  # fmt: skip
    expected = {
        "temperature": 0.0, "top_p": 0.5, "top_k": 3, "min_p": 0.0, "seed": 0, "presence_penalty": 0.0,
        "frequency_penalty": 1.0, "repetition_penalty": 1.5, "min_tokens": 0, "max_tokens": 7, "stop": ("x",),
    }  # fmt: skip
    assert added(replace(CHAT, sampling=sampling)) == expected
    assert added(replace(RAW, sampling=sampling)) == expected


@pytest.mark.parametrize(("dialect", "field"), [(VLLM, "include_stop_str_in_output"), (SGLANG, "no_stop_trim")])
def test_the_stop_text_is_kept_by_the_dialects_name(dialect: Dialect, field: str) -> None:
    assert added(replace(CHAT, sampling=Sampling(stop=("x",), include_stop=True)), dialect) == {"stop": ("x",), field: True}


def test_streams_ask_for_usage_and_where_it_is_had_for_every_event() -> None:
    streamed = replace(CHAT, streamed=True)
    assert added(streamed, OPENAI)["stream_options"] == {"include_usage": True}
    assert added(streamed, VLLM)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize(
    ("dialect", "request_", "top", "expected"),
    [
        (OPENAI, CHAT, 0, {"logprobs": True}),
        (OPENAI, CHAT, 3, {"logprobs": True, "top_logprobs": 3}),
        (VLLM, CHAT, 0, {"logprobs": True}),
        (VLLM, CHAT, 3, {"logprobs": True, "top_logprobs": 4}),
        (VLLM, CHAT, 20, {"logprobs": True, "top_logprobs": 20}),
        (OPENAI, RAW, 0, {"logprobs": 0}),
        (VLLM, RAW, 3, {"logprobs": 3}),
    ],
)
def test_logprobs_are_asked_for(dialect: Dialect, request_: GenerationRequest, top: int, expected: dict[str, Any]) -> None:
    assert added(replace(request_, logprobs=LogprobOptions(top=top)), dialect) == expected


def test_named_tokens_go_by_their_numbers() -> None:
    named = LogprobOptions(tokens=("Yes", "No"))
    more = {"logprob_token_ids": (5, 6), "return_token_ids": True}
    assert added(replace(CHAT, logprobs=named), named=(5, 6)) == {"logprobs": True, **more}
    assert added(replace(RAW, logprobs=named), named=(5, 6)) == {"logprobs": 0, **more}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_json_goes_by_response_format_everywhere_and_strictly(dialect: Dialect) -> None:
    asked = replace(CHAT, structured_output=form(Feature.JSON_SCHEMA, '{"type": "object"}'))
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert added(asked, dialect) == {"response_format": {"type": "json_schema", "json_schema": schema}}
    anything = replace(CHAT, structured_output=form(Feature.JSON_OBJECT))
    assert added(anything, dialect) == {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("dialect", "asked", "expected"),
    [
        (VLLM, form(Feature.REGEX, "a+"), {"structured_outputs": {"regex": "a+"}}),
        (VLLM, form(Feature.GRAMMAR, "root ::= x"), {"structured_outputs": {"grammar": "root ::= x"}}),
        (VLLM, form(Feature.CHOICE, choices=("a", "b")), {"structured_outputs": {"choice": ("a", "b")}}),
        (SGLANG, form(Feature.REGEX, "a+"), {"regex": "a+"}),
        (SGLANG, form(Feature.GRAMMAR, "root ::= x"), {"ebnf": "root ::= x"}),
    ],
)
def test_other_forms_go_by_the_dialects_names(dialect: Dialect, asked: StructuredOutput, expected: dict[str, Any]) -> None:
    assert added(replace(CHAT, structured_output=asked), dialect) == expected


def test_an_adapter_is_the_model_that_is_asked() -> None:
    assert added(replace(CHAT, adapter="legal")) == {"model": "legal"}


def test_a_cache_salt_of_any_characters_and_length_is_told_apart_and_taken() -> None:
    salts = [added(replace(CHAT, cache_salt=salt))["cache_salt"] for salt in ("a@/\\\0" * 60, "a", "b", "a")]
    assert len(set(salts)) == 3
    assert salts[1] == salts[3]
    assert all(salt.isalnum() and len(salt) <= 128 for salt in salts)


def test_priorities_are_sent_only_where_the_endpoint_goes_by_them_smallest_first() -> None:
    urgent = replace(CHAT, priority=7)
    assert added(urgent) == {}
    assert added(urgent, priorities=True) == {"priority": -7}


def test_chat_may_call_the_bound_by_its_newer_name() -> None:
    maker = asking(OPENAI, max_tokens_field="max_completion_tokens")
    assert maker.body(CHAT)["max_completion_tokens"] == 512
    assert "max_tokens" not in maker.body(CHAT)
    assert maker.body(RAW)["max_tokens"] == 512


def test_every_feature_changes_the_body_by_fields_that_it_needs() -> None:
    asked = {
        Feature.TOP_K: replace(CHAT, sampling=Sampling(top_k=1)),
        Feature.MIN_P: replace(CHAT, sampling=Sampling(min_p=0.1)),
        Feature.REPETITION_PENALTY: replace(CHAT, sampling=Sampling(repetition_penalty=1.1)),
        Feature.MIN_TOKENS: replace(CHAT, sampling=Sampling(min_tokens=1)),
        Feature.INCLUDE_STOP: replace(CHAT, sampling=Sampling(include_stop=True)),
        Feature.LOGPROBS: replace(CHAT, logprobs=LogprobOptions()),
        Feature.TOP_LOGPROBS: replace(CHAT, logprobs=LogprobOptions(top=1)),
        Feature.NAMED_LOGPROBS: replace(CHAT, logprobs=LogprobOptions(tokens=("x",))),
        Feature.JSON_SCHEMA: replace(CHAT, structured_output=form(Feature.JSON_SCHEMA, "{}")),
        Feature.JSON_OBJECT: replace(CHAT, structured_output=form(Feature.JSON_OBJECT)),
        Feature.REGEX: replace(CHAT, structured_output=form(Feature.REGEX, "a")),
        Feature.CHOICE: replace(CHAT, structured_output=form(Feature.CHOICE, choices=("a",))),
        Feature.GRAMMAR: replace(CHAT, structured_output=form(Feature.GRAMMAR, "root ::= x")),
        Feature.CACHE_SALT: replace(CHAT, cache_salt="x"),
    }
    for dialect in DIALECTS.values():
        for feature, needed in dialect.needs.items():
            named = (1,) if feature is Feature.NAMED_LOGPROBS else ()
            fields = {name for name in needed if not name.startswith("/")}
            assert set(added(asked[feature], dialect, named)) == fields, (dialect.name, feature)
    assert set(asked) == set(VLLM.needs)


def test_a_raw_prompt_is_refused_what_the_endpoint_has_for_conversations_alone() -> None:
    schema = replace(RAW, structured_output=form(Feature.JSON_SCHEMA, "{}"))
    with pytest.raises(UnsupportedFeature, match="json_schema"):
        asking(OPENAI).check(schema, MODEL)
    asking(VLLM).check(schema, MODEL)
    with pytest.raises(InvalidArgument, match="at most 5"):
        asking(OPENAI).check(replace(RAW, logprobs=LogprobOptions(top=6)), MODEL)
    asking(OPENAI).check(replace(CHAT, logprobs=LogprobOptions(top=6)), MODEL)


def test_an_answer_as_long_as_the_window_is_refused_with_both_numbers() -> None:
    with pytest.raises(PromptTooLong) as refused:
        asking().check(ask(max_tokens=100), MODEL)
    assert refused.value.metadata == {"max_tokens": "100", "context_window": "100"}


def test_a_schema_that_is_not_json_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not JSON"):
        asking().body(replace(CHAT, structured_output=form(Feature.JSON_SCHEMA, "{")))


def test_every_body_is_json() -> None:
    assert orjson.dumps(asking().body(replace(ask(stop=("a",)), logprobs=LogprobOptions(tokens=("x",))), (1,)))
