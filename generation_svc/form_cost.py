"""What a regular expression, or a part of one, costs whoever holds an answer to it. Pure arithmetic on what it consists of.

Two things are dear, measured with xgrammar 0.1.31 and 0.2.8 over a vocabulary of 49 000 tokens:
- states that stand for many characters, once counted repetitions are unfolded: compiling takes 1.5 to 2 ms for each, because
  nearly every token must be tried in it; a state for one character takes some microseconds;
- ambiguity. In ([a-z]+ ?)+ a text can be cut into repetitions in many ways, and the matcher keeps them all: 30 ms for a token
  at the beginning of an answer and more with each. ([a-z]+ )+ takes 0.1 ms.

A set of characters is the bits of an integer: one for each ASCII character, and one for all others together.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

STATES_MAX: Final = 10_000
CLASS_STATES_MAX: Final = 1000
AMBIGUITY_MAX: Final = 8
_ENDLESS: Final = AMBIGUITY_MAX + 1
_OTHERS: Final = 1 << 128
ANY: Final = (_OTHERS << 1) - 1
_NEEDS_ESCAPE: Final = sum(1 << ord(character) for character in map(chr, (*range(32), 34, 92)))


class UnfitForm(Exception):
    """A form that no engine should get: what is wrong with it, and what to do about it."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of an expression or a part of one.

    `states` are those of the unfolded expression, `class_states` those among them that stand for several characters.
    `ambiguity` counts the places where a text can be read in more than one way, unfolded too.
    `first` are the characters that it may begin with, `further` those by which a whole match may go on and still be one,
    `inner` all but those of the beginning.
    """

    states: int = 0
    class_states: int = 0
    ambiguity: int = 0
    nullable: bool = True
    first: int = 0
    further: int = 0
    inner: int = 0

    @property
    def breaks_json(self) -> bool:
        """Whether it may match what can't stand in a JSON string as it is: a quote, a backslash, a control character."""
        return bool((self.first | self.inner) & _NEEDS_ESCAPE)


def one_of(characters: int) -> Cost:
    """One character of a set."""
    several = characters & (characters - 1) != 0 or characters == _OTHERS
    return Cost(states=1, class_states=int(several), nullable=False, first=characters)


def literal(text: str) -> Cost:
    """A text as it is."""
    if not text:
        return Cost()
    inner = characters_of(text[1:])
    return Cost(states=len(text.encode(errors="replace")), nullable=False, first=characters_of(text[0]), inner=inner)


def in_order(one: Cost, other: Cost) -> Cost:
    """One behind the other."""
    return Cost(
        states=one.states + other.states,
        class_states=one.class_states + other.class_states,
        ambiguity=one.ambiguity + other.ambiguity + bool(one.further & other.first),
        nullable=one.nullable and other.nullable,
        first=one.first | other.first if one.nullable else one.first,
        further=other.further | (one.further | other.first if other.nullable else 0),
        inner=one.inner | other.inner | other.first,
    )


def either(one: Cost, other: Cost) -> Cost:
    """One or the other."""
    further = one.further | other.further | (other.first if one.nullable else 0) | (one.first if other.nullable else 0)
    if one.first & other.first:  # One may begin as the other goes on, as in a|ab.
        further |= one.inner | other.inner
    return Cost(
        states=one.states + other.states,
        class_states=one.class_states + other.class_states,
        ambiguity=one.ambiguity + other.ambiguity,
        nullable=one.nullable or other.nullable,
        first=one.first | other.first,
        further=further,
        inner=one.inner | other.inner,
    )


def repeated(part: Cost, at_least: int, at_most: int | None) -> Cost:
    """Several times the same; `at_most` None is without an end."""
    if at_most == 0:
        return Cost()
    times = at_most or max(at_least, 1)
    again = at_most != 1 and (part.nullable or bool(part.further & part.first))
    return Cost(
        states=part.states * times,
        class_states=part.class_states * times,
        ambiguity=part.ambiguity * times + (0 if not again else _ENDLESS if at_most is None else times),
        nullable=part.nullable or at_least == 0,
        first=part.first,
        further=part.further | (part.first if at_most != at_least or part.nullable else 0),
        inner=part.inner | (part.first if at_most != 1 else 0),
    )


def characters_of(text: Iterable[str]) -> int:
    """The set of a text's characters."""
    found = 0
    for character in text:
        found |= 1 << min(ord(character), 128)
    return found


def range_of(first: str, last: str) -> int:
    """The set of the characters from first to last."""
    low, high = min(ord(first), 128), min(ord(last), 128)
    return (1 << (high + 1)) - (1 << low)


def all_but(characters: int) -> int:
    """The characters that are not in a set. Those that are not ASCII always are among them."""
    return (ANY & ~characters) | _OTHERS


def check(cost: Cost) -> Cost:
    """The same. Raises UnfitForm when it is too much."""
    if cost.states > STATES_MAX:
        message = f"unfolds into {cost.states} states, at most {STATES_MAX} are taken"
        raise UnfitForm(message, "counted repetitions multiply: lower their bounds, or use * and +")
    if cost.class_states > CLASS_STATES_MAX:
        message = f"unfolds into {cost.class_states} states of several characters, at most {CLASS_STATES_MAX} are taken"
        raise UnfitForm(message, "counted repetitions multiply: lower their bounds, or use * and +")
    if cost.ambiguity > AMBIGUITY_MAX:
        message = "can read one text in too many ways, such as by a repetition of which the next may begin where one goes on"
        raise UnfitForm(message, "end what is repeated with what it can't begin with: (\\w+ )*\\w+ instead of (\\w+ ?)+")
    return cost
