"""What callers say by words: one value of a few, an option by its name. A wrong one is told with what there is.

A service refuses what it does not know; what cannot be put into a message at all has to be refused here.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from penstock.errors import InvalidArgument, Violation

K = TypeVar("K", bound=str)
T = TypeVar("T")


def chosen(choices: Mapping[K, T], word: K, field: str) -> T:
    """What a word stands for. Raises InvalidArgument, which lists the words that there are."""
    try:
        return choices[word]
    except (KeyError, TypeError):  # A list, say, is no key at all.
        message = f"{field} is {_listed(choices)}; not {word!r}"
        violation = Violation(message=message, field=field)
        raise InvalidArgument(message, metadata={"field": field}, violations=[violation]) from None


def check_names(given: Iterable[str], known: Collection[str], what: str) -> None:
    """Raises TypeError, as a call does in Python for a name that it does not have."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise TypeError(f"{what} has no option {name!r}; " + (f"did you mean {near[0]!r}?" if near else _all(known)))


def _all(names: Iterable[str]) -> str:
    return f"it has {', '.join(sorted(names))}"


def _listed(words: Iterable[str]) -> str:
    *others, last = map(repr, words)
    return f"{', '.join(others)} or {last}" if others else last
