"""An estimate of how many tokens a text is, without a model: the gateway has none, and the services count by each model's own.

A word counts a token for every LETTERS_A_TOKEN letters begun, and a capital inside begins a new word; a digit, a sign and a
line break count one each; a space one half, or none where it stands alone between words; a letter beyond ASCII as many as its
bytes in UTF-8 less one, a Hangul syllable all three. Of English prose and of code that is a third to a half more than a
vocabulary of 30,000 tokens and more makes; of other languages as many as an English vocabulary makes, which knows few of their
words; of random letters, such as base64, a quarter fewer.
"""

import re
from collections.abc import Iterator
from typing import Final

LETTERS_A_TOKEN: Final = 3

_PIECE: Final = re.compile(r"(?P<word>[A-Z]?[a-z]+|[A-Z]+)|(?P<between>(?<=\S) (?=\S))|(?P<space> )|.", re.DOTALL)


def count(text: str) -> float:
    """The estimate for the text."""
    return sum(weight for _, weight in _pieces(text))


def beginning(text: str, most: int) -> str:
    """As much of the text's beginning as counts at most `most` tokens, to the end of a word."""
    spent = 0.0
    for start, weight in _pieces(text):
        spent += weight
        if spent > most:
            return text[:start]
    return text


def end(text: str, most: int) -> str:
    """As much of the text's end as counts at most `most` tokens, from the beginning of a word."""
    beyond = count(text) - most
    for start, weight in _pieces(text):
        if beyond <= 0:
            return text[start:]
        beyond -= weight
    return ""


def _pieces(text: str) -> Iterator[tuple[int, float]]:
    """Where each piece begins, and what it counts."""
    for piece in _PIECE.finditer(text):
        if piece.lastgroup == "word":
            yield piece.start(), -(-(piece.end() - piece.start()) // LETTERS_A_TOKEN)
        elif piece.lastgroup is not None:
            yield piece.start(), 0.5 if piece.lastgroup == "space" else 0.0
        else:
            yield piece.start(), _of_letter(piece[0])


def _of_letter(letter: str) -> int:
    if letter <= "\x7f":
        return 1
    return 3 if "\uac00" <= letter <= "\ud7a3" else len(letter.encode()) - 1
