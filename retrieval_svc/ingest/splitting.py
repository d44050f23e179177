"""Splits a document's text into the pieces that become its chunks.

Pure, like the cutting itself (chunking.py): how a text falls into tokens is a parameter.

What Markdown's splitter does, and why: a section ends where the next heading begins, and each of its pieces begins with the
headings that the section stands under, as lines of their own, because a passage deep in a manual often leaves out what it is
about. "Set it to 30 s" is found by "timeout of the gateway" only when those words are in what is embedded and in what is
searched by words, so they are part of the chunk's text. They take at most a quarter of a piece; of those that are too many the
innermost stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from retrieval_svc.ingest.chunking import Tokenise, split_text
from retrieval_svc.ingest.markdown import Heading, sections

_CONTEXT_SHARE = 4


class Splitter(Enum):
    """What a splitter cuts at."""

    BY_TYPE = "by_type"
    """Markdown at its headings, anything else at its sentences."""
    SENTENCES = "sentences"
    TOKENS = "tokens"
    MARKDOWN = "markdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """How documents are to be split. None: as the service is set."""

    splitter: Splitter = Splitter.BY_TYPE
    chunk_tokens_max: int | None = None
    overlap_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a text. `headings` are the titles it stands under, where the splitter looks at headings."""

    text: str
    headings: tuple[str, ...] = ()


def split(text: str, tokenise: Tokenise, splitter: Splitter, *, tokens_max: int, overlap_tokens: int) -> list[Piece]:
    """The pieces of a text in order, none of them empty, each of at most `tokens_max` tokens.

    A piece repeats up to `overlap_tokens` of the one before it: whole sentences, or exactly so many with the splitter TOKENS.
    """
    match splitter:
        case Splitter.TOKENS:
            return [Piece(text=part) for part in split_tokens(text, tokenise, tokens_max, overlap_tokens)]
        case Splitter.MARKDOWN:
            return list(_split_markdown(text, tokenise, tokens_max, overlap_tokens))
        case _:
            parts = split_text(text, tokenise, tokens_max=tokens_max, overlap_tokens=overlap_tokens)
            return [Piece(text=part) for part in parts if part]


def split_tokens(text: str, tokenise: Tokenise, tokens_max: int, overlap_tokens: int) -> list[str]:
    """Windows of `tokens_max` tokens, each beginning `overlap_tokens` before the end of the one before it."""
    tokens = tokenise(text)
    if len(tokens) <= tokens_max:
        return [text.strip()] if text.strip() else []
    step = max(1, tokens_max - overlap_tokens)
    windows = []
    for first in range(0, len(tokens), step):
        last = min(first + tokens_max, len(tokens))
        start = tokens[first][0] if first else 0
        end = tokens[last][0] if last < len(tokens) else len(text)
        windows.append(text[start:end].strip())
        if last == len(tokens):
            break
    return [window for window in windows if window]


def _split_markdown(text: str, tokenise: Tokenise, tokens_max: int, overlap_tokens: int) -> Iterator[Piece]:
    for section in sections(text):
        titles = tuple(heading.title for heading in section.headings if heading.title)
        context, used = _context(section.headings, tokenise, tokens_max // _CONTEXT_SHARE)
        body = section.body or "\n".join(titles)
        head = f"{context}\n\n" if context and section.body else ""
        room = tokens_max - (used if head else 0)
        for part in split_text(body, tokenise, tokens_max=room, overlap_tokens=min(overlap_tokens, room // 2)):
            if part:
                yield Piece(text=head + part, headings=titles)


def _context(headings: tuple[Heading, ...], tokenise: Tokenise, tokens_max: int) -> tuple[str, int]:
    """The headings as lines, and their tokens; without the outer ones where all are too many."""
    for first in range(len(headings)):
        lines = "\n".join(heading.line for heading in headings[first:])
        used = len(tokenise(lines))
        if used <= tokens_max:
            return lines, used
    return "", 0
