import re

from hypothesis import given
from hypothesis import strategies as st

from retrieval_svc.ingest.chunking import Span, split_text, split_to_windows

TEXTS = st.text(alphabet="ab .!\n\tß。", max_size=400)


def words(text: str) -> list[Span]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def letters(text: str) -> list[Span]:
    """A tokeniser that cuts words in two, as subword vocabularies do."""
    return [(at, at + 1) for at, letter in enumerate(text) if not letter.isspace()]


def test_a_text_that_fits_is_one_piece() -> None:
    assert split_text("  A short one. Really.\n", words, tokens_max=10) == ["A short one. Really."]


def test_pieces_end_where_sentences_end() -> None:
    text = "One two three. Four five six! Seven eight nine? Ten."
    assert split_text(text, words, tokens_max=8) == ["One two three. Four five six!", "Seven eight nine? Ten."]


def test_a_piece_begins_with_the_last_sentence_of_the_one_before() -> None:
    text = "One two three. Four. Five six seven. Eight nine ten."
    pieces = split_text(text, words, tokens_max=8, overlap_tokens=3)
    assert pieces == ["One two three. Four.", "Four. Five six seven.", "Eight nine ten."]


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    text = "alpha beta gamma delta epsilon"
    assert split_text(text, letters, tokens_max=10) == ["alpha beta", "gamma delta", "epsilon"]


def test_a_word_that_is_too_long_is_cut_between_tokens() -> None:
    assert split_text("abcdefgh", letters, tokens_max=3) == ["abc", "def", "gh"]


@given(
    joints=st.lists(st.sampled_from(["", " ", "  ", ". ", "!\n", "\n\n", "。"]), max_size=200),
    tokens_max=st.integers(1, 30),
    overlap_tokens=st.integers(0, 15),
)
def test_every_piece_fits_and_nothing_is_lost(joints: list[str], tokens_max: int, overlap_tokens: int) -> None:
    # No letter comes twice, so that a piece has one place after the one before it.
    text = "".join(chr(0x4E00 + number) + joint for number, joint in enumerate(joints))
    pieces = split_text(text, letters, tokens_max=tokens_max, overlap_tokens=overlap_tokens)
    assert all(len(letters(piece)) <= tokens_max for piece in pieces)
    start, covered = -1, 0
    for piece in pieces if text else []:
        start = text.index(piece, start + 1)
        assert not text[covered:start].strip()
        assert len(letters(text[start:covered])) <= overlap_tokens
        covered = start + len(piece)
    assert not text[covered:].strip()


@given(text=TEXTS, tokens_max=st.integers(1, 30))
def test_without_overlap_the_pieces_are_the_text_but_for_white_space(text: str, tokens_max: int) -> None:
    pieces = split_text(text, letters, tokens_max=tokens_max)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def growing(text: str) -> list[Span]:
    """A tokeniser with which a slice can have more tokens than it had in its text: a word is one token only after a space."""
    spans: list[Span] = []
    for match in re.finditer(r"(\s?)(\w+)", text):
        start, end = match.span(2)
        spans += [(start, end)] if match[1] else [(at, at + 1) for at in range(start, end)]
    return spans


@given(text=st.text(alphabet="ab ", min_size=1, max_size=300), window=st.integers(1, 12))
def test_windows_are_counted_again_after_the_cut(text: str, window: int) -> None:
    windows = split_to_windows(text, growing, window)
    assert all(count <= window and count == len(growing(piece)) for piece, count in windows)
    assert "".join("".join(piece for piece, _ in windows).split()) == "".join(text.split())
