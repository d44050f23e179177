"""Splits a text into pieces that fit an embedding model's window, at the ends of sentences where it can.

Pure: how a text falls into tokens is a parameter. Lengths are in the tokens of the model that will embed the pieces, because
that is what a window is measured in; pieces are slices of the text, so nothing in them is rewritten.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

Span = tuple[int, int]
"""Where a token stands in its text: [start, end) in characters. Or a run of tokens: [first, last) in tokens."""
Tokenise = Callable[[str], list[Span]]
"""The spans of a text's tokens in order, without the special tokens that a model adds."""

# The end of a sentence: a full stop, its marks of quotation, and white space; a mark that needs no space after it; a new line.
_SENTENCE_END: Final = re.compile(r"[.!?…]['\"”’)\]]*\s+|[。！？]+\s*|\n\s*")  # noqa: RUF001  # The full-width marks are meant.


def split_text(text: str, tokenise: Tokenise, *, tokens_max: int, overlap_tokens: int = 0) -> list[str]:
    """The pieces of `text`, each of at most `tokens_max` tokens, in order; together they hold all of it but white space.

    A piece repeats up to `overlap_tokens` of the one before it, in whole sentences. A sentence that is too long is cut between
    words, and a word that is too long between tokens.
    """
    tokens = tokenise(text)
    if len(tokens) <= tokens_max:
        return [text.strip()]
    sentences = [part for sentence in _sentences(text, tokens) for part in _cut(sentence, tokens, tokens_max)]
    return [_slice(text, tokens, run) for run in _pack(sentences, tokens_max, overlap_tokens)]


def split_to_windows(text: str, tokenise: Tokenise, window_tokens: int) -> list[tuple[str, int]]:
    """The text in pieces that each fit the window, with the number of tokens of each.

    A slice can have more tokens alone than it had in its text (a word cut in two), so each is counted again and, where it
    outgrew the window, cut again.
    """
    count = len(tokenise(text))
    if count <= window_tokens or len(text) <= 1:
        return [(text, count)]
    pieces = [piece for piece in split_text(text, tokenise, tokens_max=min(window_tokens, (count + 1) // 2)) if piece]
    if len(pieces) < 2:  # One character of many tokens: there is nothing left to cut.
        return [(text, count)]
    return [window for piece in pieces for window in split_to_windows(piece, tokenise, window_tokens)]


def _sentences(text: str, tokens: list[Span]) -> Iterator[Span]:
    """The sentences as runs of tokens."""
    starts = [start for start, _ in tokens]
    first = 0
    for end in _SENTENCE_END.finditer(text):
        last = bisect_left(starts, end.end())
        if last > first:
            yield first, last
            first = last
    if first < len(tokens):
        yield first, len(tokens)


def _cut(run: Span, tokens: list[Span], tokens_max: int) -> Iterator[Span]:
    """The run in parts of at most `tokens_max`, cut between words where there is a space in the second half."""
    first, last = run
    while last - first > tokens_max:
        limit = first + tokens_max
        gaps = (at for at in range(limit, first + tokens_max // 2, -1) if tokens[at][0] > tokens[at - 1][1])
        cut = next(gaps, limit)
        yield first, cut
        first = cut
    yield first, last


def _pack(sentences: Iterable[Span], tokens_max: int, overlap_tokens: int) -> Iterator[Span]:
    """Joins neighbouring sentences into runs of at most `tokens_max` tokens."""
    held: list[Span] = []
    for sentence in sentences:
        if held and sentence[1] - held[0][0] > tokens_max:
            yield held[0][0], held[-1][1]
            room = min(overlap_tokens, tokens_max - (sentence[1] - sentence[0]))
            held = [kept for kept in held if sentence[0] - kept[0] <= room]
        held.append(sentence)
    if held:
        yield held[0][0], held[-1][1]


def _slice(text: str, tokens: list[Span], run: Span) -> str:
    """The text of a run, with what stands between its tokens and is none itself."""
    first, last = run
    start = 0 if first == 0 else tokens[first][0]
    end = len(text) if last == len(tokens) else tokens[last][0]
    return text[start:end].strip()
