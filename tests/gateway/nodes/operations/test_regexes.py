import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.nodes.operations import Operation
from gateway.patterns import Pattern
from gateway.values import PortType
from penstock.errors import FailedPrecondition, MessageTooLarge
from tests.gateway.nodes.operations.operated import operation, result

SEARCHED = "<think>x</think><search> first </search> <search>second\nline</search>"
CANDIDATES = "(a) Paris\n(b) London, maybe\nnone"


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        (operation("regex_test", pattern="(?i)PARIS"), CANDIDATES, True),
        (operation("regex_test", pattern="^Paris"), CANDIDATES, False),
        (operation("regex_test", pattern="é+$"), "caféé", True),
        (operation("regex_extract", pattern="<search>(.*?)</search>"), SEARCHED, " first "),
        (operation("regex_extract", pattern="(?s)<search>(.*?)</search>", matches="last"), SEARCHED, "second\nline"),
        (operation("regex_extract", pattern="(?s)<search>.*?</search>", group=0), SEARCHED, "<search> first </search>"),
        (operation("regex_extract", pattern=r"(?m)^\((\w)\) (?P<name>.*)$", group="name", matches="all"), CANDIDATES,
         ("Paris", "London, maybe")),
        (operation("regex_extract", pattern=r"(?m)^\((\w)\) (.*)$", group=1, matches="all", max_items=1), CANDIDATES, ("a",)),
        (operation("regex_extract", pattern="[0-9]+", matches="all"), "none", ()),
        (operation("regex_extract", pattern="[0-9]+", default=""), "none", ""),
        (operation("regex_extract", pattern="a(x)?"), "a", ""),
        (operation("regex_extract", pattern=r"(?s)^(.*?[.!?])(?:\s|$)"), "He came. He saw.", "He came."),
        (operation("regex_extract", pattern="[日本]+"), "das ist 日本!", "日本"),
        (operation("regex_replace", pattern="[aeiou]", new="*"), "education", "*d*c*t**n"),
        (operation("regex_replace", pattern=r"(\w+) (?P<last>\w+)", new=r"\g<last>, \1 [\0] \\"), "Ada Lovelace",
         "Lovelace, Ada [Ada Lovelace] \\"),
        (operation("regex_replace", pattern="a", new="b", max_items=2), "aaa", "bba"),
        (operation("regex_replace", pattern="x*", new="-"), "ab", "-a-b-"),
        (operation("regex_replace", pattern="a(x)?", new=r"<\1>"), "a ax", "<> <x>"),
        (operation("regex_split", pattern=r"\s*[;,]\s*"), "a; b ,c", ("a", "b", "c")),
        (operation("regex_split", pattern=","), ",a,,b,", ("a", "b")),
        (operation("regex_split", pattern=",", keep_empty=True), ",a,,b,", ("", "a", "", "b", "")),
        (operation("regex_split", pattern=",", max_items=2), "a,b,c", ("a", "b,c")),
        (operation("regex_split", pattern=","), "", ()),
    ],
)  # fmt: skip
def test_an_operation_with_a_pattern_does_what_its_name_says(made: Operation, given: str, expected: object) -> None:
    assert result(made, given) == expected


def test_what_does_not_match_is_an_error_unless_there_is_a_default() -> None:
    with pytest.raises(FailedPrecondition, match=r"nothing in the text matches '\[0-9\]\+', and the node has no default"):
        result(operation("regex_extract", pattern="[0-9]+"), "none")


def test_all_matches_are_a_list_and_one_is_a_text() -> None:
    kinds = {name: operation("regex_extract", pattern="a", matches=name).output_type() for name in ("first", "last", "all")}
    assert kinds == {"first": PortType.TEXT, "last": PortType.TEXT, "all": PortType.LIST}


@pytest.mark.parametrize(
    ("name", "params", "field", "says"),
    [
        ("regex_test", {"pattern": "("}, "pattern", "not a regular expression of RE2: missing )"),
        ("regex_test", {"pattern": "(?=a)"}, "pattern", "invalid perl operator"),
        ("regex_test", {"pattern": r"(a)\1"}, "pattern", "invalid escape sequence"),
        ("regex_test", {"pattern": ""}, "pattern", "at least 1 character"),
        ("regex_test", {"pattern": "a" * 1001}, "pattern", "at most 1000 characters"),
        ("regex_test", {"pattern": "((a{100}){10}){10}"}, "pattern", "invalid repetition size"),
        ("regex_test", {"pattern": r"(\pL{90}\s){9}"}, "pattern", "too large"),
        ("regex_test", {"pattern": "(?:[ab]{900}){1}(?:[cd]{900})(?:[ef]{900})(?:[gh]{900})"}, "pattern", "too large"),
        ("regex_extract", {"pattern": "(a)", "group": 2}, "group", "no group 2; it has 1"),
        ("regex_extract", {"pattern": "(?P<x>a)", "group": "y"}, "group", "no group 'y'; it has 1, named x"),
        ("regex_extract", {"pattern": "a", "group": -1}, "group", "no group -1"),
        ("regex_extract", {"pattern": "a", "matches": "all", "default": "x"}, "", "leave the default out"),
        ("regex_replace", {"pattern": "a", "new": r"\1"}, "new", "no group 1; it has 0"),
        ("regex_replace", {"pattern": "a", "new": r"\n"}, "new", "a lone backslash"),
        ("regex_replace", {"pattern": "a", "new": "\\"}, "new", "a lone backslash"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_told_with_its_field(name: str, params: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        operation(name, **params)
    errors = caught.value.errors()
    assert [".".join(map(str, error["loc"])) for error in errors if error["loc"][:1] != ("default",)] == [field]
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("regex_test", {"pattern": "(x+x+)+y"}, "x" * 1_000_000),
        ("regex_test", {"pattern": "(a|a)*b"}, "a" * 1_000_000),
        ("regex_test", {"pattern": "(?:a?){900}b"}, "a" * 1_000_000),
        ("regex_extract", {"pattern": "(.*)(.*)(.*)(.*)x"}, "a" * 300_000),
        ("regex_extract", {"pattern": "a.*b|a", "matches": "all", "max_items": 10_000}, "a" * 1_000_000),
        ("regex_replace", {"pattern": "a.*b|a", "new": "b"}, "a" * 1_000_000),
        ("regex_split", {"pattern": "a.*b|a", "max_items": 10_000}, "a" * 1_000_000),
    ],
)
def test_hostile_patterns_end_soon(name: str, params: dict[str, Any], text: str) -> None:
    begun = time.thread_time()
    with suppress(FailedPrecondition, MessageTooLarge):
        result(operation(name, **params), text)
    assert time.thread_time() - begun < 2


def test_a_replacement_that_multiplies_is_stopped_before_it_is_made() -> None:
    with pytest.raises(MessageTooLarge, match="more than the"):
        result(operation("regex_replace", pattern="a", new="b" * 65_536), "a" * 10_000)


@given(st.text(alphabet="ab(|)*+?[]^$.\\{}1,dwsPé", max_size=12), st.text(alphabet="ab1 é\n", max_size=30))
@settings(deadline=None, max_examples=300)
def test_any_text_is_a_pattern_that_splits_and_replaces_or_is_told(pattern: str, text: str) -> None:
    try:
        Pattern(pattern)
    except ValueError:
        return
    assert result(operation("regex_replace", pattern=pattern, new=r"\0"), text) == text
    parts = result(operation("regex_split", pattern=pattern, keep_empty=True), text)
    matches = result(operation("regex_extract", pattern=pattern, group=0, matches="all"), text)
    assert len(parts) == len(matches) + 1
    assert sum(map(len, parts)) + sum(map(len, matches)) == len(text)
    assert result(operation("regex_test", pattern=pattern), text) == bool(matches)
