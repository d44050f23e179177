"""How documents are cut into chunks."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_svc.ingest.chunking import Span
from retrieval_svc.ingest.markdown import sections
from retrieval_svc.ingest.splitting import Piece, Splitter, split, split_tokens

MANUAL = """\
Preface.

# Guide
All of it.

## Install
Run this:

```sh
# not a heading
pip install penstock
```

Then start it.

## Run ##
Start it.

# C#
Sharp.
"""


def words(text: str) -> list[Span]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def markdown(text: str, tokens_max: int = 100, overlap_tokens: int = 0) -> list[Piece]:
    return split(text, words, Splitter.MARKDOWN, tokens_max=tokens_max, overlap_tokens=overlap_tokens)


def test_sections_begin_at_headings_and_code_with_number_signs_stays_whole() -> None:
    pieces = markdown(MANUAL)
    assert [piece.headings for piece in pieces] == [(), ("Guide",), ("Guide", "Install"), ("Guide", "Run"), ("C#",)]
    assert pieces[0].text == "Preface."
    assert pieces[2].text.startswith("# Guide\n## Install\n\nRun this:\n\n```sh\n# not a heading\npip")


def test_every_piece_of_a_long_section_begins_with_its_headings() -> None:
    body = " ".join(f"Sentence {number} is here." for number in range(20))
    pieces = markdown(f"# Guide\n## Limits\n{body}", tokens_max=24)
    assert len(pieces) > 3
    assert all(piece.text.startswith("# Guide\n## Limits\n\nSentence") for piece in pieces)
    assert all(len(words(piece.text)) <= 24 for piece in pieces)


def test_of_too_many_headings_the_innermost_stay_and_the_metadata_has_all() -> None:
    [piece] = markdown("# One two three four five\n## Six\nBody.", tokens_max=16)
    assert piece.text == "## Six\n\nBody."
    assert piece.headings == ("One two three four five", "Six")


def test_a_heading_with_nothing_below_it_is_kept_and_told_once() -> None:
    assert [piece.text for piece in markdown("# A\n## B\n## C\ntext\n# D")] == ["A\nB", "# A\n## C\n\ntext", "D"]


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("Title\n=====\ntext", [("Title",)]),
        ("Title\n---\ntext", [("Title",)]),
        ("a\nb\n---\ntext", [()]),
        ("---\ntitle: x\n---\n# H\ntext", [(), ("H",)]),
        ("#no heading", [()]),
        ("    # code", [()]),
        ("####### seven", [()]),
        ("~~~\n# a\n```\n# b\n~~~\n# H\ntext", [(), ("H",)]),
        ("```\n# never closed", [()]),
        ("```inline``` text\n# H\ntext", [(), ("H",)]),
        ("# H\r\ntext\r\n# I\r\nmore", [("H",), ("I",)]),
        ("", []),
    ],
)
def test_what_is_a_heading_and_what_is_none(text: str, headings: list[tuple[str, ...]]) -> None:
    assert [tuple(heading.title for heading in section.headings) for section in sections(text)] == headings


@given(
    lines=st.lists(
        st.sampled_from(["# a b", "## c", "###", "", "one two. three!", "```", "x\n===", "---", "- li", "\t# t"]), max_size=40
    ),
    tokens_max=st.integers(16, 60),
    overlap_tokens=st.integers(0, 8),
)
def test_markdown_loses_no_word_and_keeps_within_bounds(lines: list[str], tokens_max: int, overlap_tokens: int) -> None:
    numbered = "\n".join(re.sub(r"\w+", lambda match, at=at: f"{match[0]}{at}", line) for at, line in enumerate(lines))
    pieces = markdown(numbered, tokens_max, overlap_tokens)
    told = {word for piece in pieces for part in (piece.text, *piece.headings) for word in re.findall(r"\w+", part)}
    assert told == set(re.findall(r"\w+", numbered))
    assert all(0 < len(words(piece.text)) <= tokens_max for piece in pieces)


def test_windows_of_tokens_overlap_by_exactly_so_many() -> None:
    assert split_tokens("a b c d e f g", words, 4, 2) == ["a b c d", "c d e f", "e f g"]
    assert split_tokens("a b. c", words, 4, 0) == ["a b. c"]
    assert split_tokens(" \n", words, 4, 0) == []


@given(count=st.integers(0, 200), tokens_max=st.integers(1, 30), share=st.floats(0, 0.5))
def test_windows_cover_every_token_in_order(count: int, tokens_max: int, share: float) -> None:
    overlap = int(tokens_max * share)
    windows = [window.split() for window in split_tokens(" ".join(map(str, range(count))), words, tokens_max, overlap)]
    assert all(0 < len(window) <= tokens_max for window in windows)
    assert all(window[:overlap] == before[len(before) - overlap :] for before, window in pairwise(windows))
    fresh = [word for at, window in enumerate(windows) for word in (window[overlap:] if at else window)]
    assert fresh == [str(number) for number in range(count)]
