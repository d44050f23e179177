"""Which input an edge feeds when it does not say."""

import pytest

from gateway.validation import examine, validate
from tests.gateway.fakes import document, node

TEXT, DOCS = node("t", "input"), node("d", "retrieve", collection="squad")
OUT = node("out", "output")


def wired(template: str, *edges: str, also: tuple[dict[str, object], ...] = ()) -> dict[str, str]:
    """The variables of a prompt and the nodes that feed them."""
    text = document(TEXT, DOCS, *also, node("p", "prompt", template=template), OUT, edges=["t > d", "p > out", *edges])
    return {edge.target_port: edge.source for edge in validate(text).edges if edge.target == "p"}


def unclear(template: str, *edges: str, also: tuple[dict[str, object], ...] = ()) -> list[tuple[str, str]]:
    text = document(TEXT, DOCS, *also, node("p", "prompt", template=template), OUT, edges=["t > d", "p > out", *edges])
    return [(fault.message, fault.suggestion) for fault in examine(text)[1]]


def test_a_variable_named_like_the_source_is_the_one() -> None:
    assert wired("{d} {t}", "t > p", "d > p") == {"d": "d", "t": "t"}


def test_a_name_wins_over_a_convention() -> None:
    assert wired("{context} {d}", "d > p", "t > p.context") == {"context": "t", "d": "d"}


def test_the_only_variable_takes_whatever_comes() -> None:
    assert wired("{anything}", "d > p") == {"anything": "d"}


@pytest.mark.parametrize("passages", ["context", "documents", "passages"])
@pytest.mark.parametrize("question", ["question", "query", "input"])
@pytest.mark.parametrize("edges", [("t > p", "d > p"), ("d > p", "t > p")])
def test_passages_and_texts_find_their_conventional_variables(passages: str, question: str, edges: tuple[str, str]) -> None:
    assert wired(f"{{{question}}} {{{passages}}}", *edges) == {question: "t", passages: "d"}


def test_what_is_left_after_the_conventions_takes_the_last_edge() -> None:
    assert wired("{context} {whatever}", "t > p", "d > p") == {"context": "d", "whatever": "t"}


def test_a_port_that_is_written_is_not_inferred_for_another() -> None:
    assert wired("{context} {x}", "t > p.context", "d > p") == {"context": "t", "x": "d"}


def test_two_sources_that_want_the_same_variable_are_unclear() -> None:
    found = unclear("{context} {x}", "d > p", "d2 > p", "t > d2", also=(node("d2", "retrieve", collection="other"),))
    assert found == [
        ("it is not clear which input 'd' feeds", "write p.PORT with one of: context, x"),
        ("it is not clear which input 'd2' feeds", "write p.PORT with one of: context, x"),
    ]


def test_an_edge_too_many_is_told() -> None:
    messages = [message for message, _ in unclear("{a} {b}", "t > p.a", "t > p.b", "d > p")]
    assert messages == ["every input is connected; there is none left for 'd'"]


def test_an_edge_into_a_prompt_without_variables_says_where_to_put_one() -> None:
    assert unclear("fixed", "t > p") == [
        ("a node of type 'prompt' takes nothing from others", "write {t} into the template where the value belongs")
    ]
