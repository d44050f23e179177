import math

import pytest

from generation_svc.engine import GenerationRequest, Message, Role, Sampling
from generation_svc.validation import check
from penstock.errors import EmptyText, InvalidArgument
from tests.generation_svc.fakes import ask


def test_what_is_within_bounds_passes() -> None:
    check(ask(max_tokens=1, temperature=0.0, top_p=1.0, top_k=1, seed=0, presence_penalty=-2.0, frequency_penalty=2.0))
    check(ask(stop=tuple("abcdefghijklmnop"), temperature=2.0))
    check(GenerationRequest(prompt="Once upon a time"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("seed", -1),
        ("presence_penalty", -2.5),
        ("frequency_penalty", 1e30),
    ],
)
def test_a_number_out_of_bounds_is_refused_by_name_with_its_value_and_the_bounds(field: str, value: float) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(ask(**{field: value}))
    assert refused.value.metadata == {"field": f"sampling.{field}"}
    assert f"{value:g}" in refused.value.message


def test_every_fault_of_the_sampling_is_told_at_once() -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(ask(temperature=-1.0, top_p=7.0, stop=("",)))
    assert [fault.field for fault in refused.value.violations] == ["sampling.temperature", "sampling.top_p", "sampling.stop[0]"]


@pytest.mark.parametrize("stop", [("x",) * 17, ("",), ("é" * 129,), ("x",) * 1000])
def test_too_many_or_too_long_or_empty_stop_texts_are_refused(stop: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="stop"):
        check(ask(stop=stop))


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(),
        GenerationRequest(prompt=" \n\t"),
        ask(""),
        GenerationRequest(messages=(Message(role=Role.SYSTEM, content=" "), Message(role=Role.USER, content="\n"))),
    ],
)
def test_a_request_with_nothing_to_answer_is_refused(request_: GenerationRequest) -> None:
    with pytest.raises(EmptyText):
        check(request_)


def test_messages_and_prompt_together_are_refused() -> None:
    both = GenerationRequest(messages=(Message(role=Role.USER, content="a"),), prompt="b", sampling=Sampling())
    with pytest.raises(InvalidArgument, match="exactly one"):
        check(both)
