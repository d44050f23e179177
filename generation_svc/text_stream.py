"""From tokens, as they come, to text that may be shown: no broken characters, nothing of a stop string.

Pure: the tokenizer is a function from token ids to text, which may leave out the bytes of an incomplete character, or give
U+FFFD for them.
"""

from collections.abc import Callable, Sequence
from typing import Final

REPLACEMENT: Final = "\ufffd"
_WINDOW_TOKENS_MAX: Final = 32
_WINDOW_TOKENS_KEPT: Final = 4
"""A character has at most four bytes, so an incomplete one began within the last four tokens."""


class Detokenizer:
    """Decodes a growing window of tokens, because a token's text depends on those before it, and gives what is new.

    In two halves, so that the windows of many answers can be decoded in one call: `window`, then `fresh` with its text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._given = ""

    def window(self, token_ids: Sequence[int]) -> Sequence[int]:
        """The tokens to decode, now that these have come."""
        self._window += token_ids
        return self._window

    def fresh(self, text: str) -> str:
        """What is new in the window's text. Empty when its tokens end inside a character."""
        if text.endswith(REPLACEMENT):
            return ""
        fresh, self._given = text[len(self._given) :], text
        if len(self._window) > _WINDOW_TOKENS_MAX:
            self._window = self._window[-_WINDOW_TOKENS_KEPT:]
            self._given = self._decode(self._window)
        return fresh


class StopMatcher:
    """Holds back text that may be the beginning of a stop string, until it is one or is not.

    `included` leaves the stop string that was met at the end of the text.
    """

    def __init__(self, stops: Sequence[str], *, included: bool = False) -> None:
        self._stops = tuple(stops)
        self._included = included
        self._held = ""

    def push(self, text: str, *, counts: bool = True) -> tuple[str, str]:
        """(text that may be shown, the stop string that was met or ""). After a match nothing more is to come.

        Text that does not count, as before the fewest tokens, may hold a whole stop string or begin one, but ends none.
        """
        if not self._stops:
            return text, ""
        fresh, text = len(self._held), self._held + text
        met = self._met(text, fresh) if counts else None
        if met is not None:
            self._held = ""
            return text[: met[0] + (len(met[2]) if self._included else 0)], met[2]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], ""

    def _met(self, text: str, fresh: int) -> tuple[int, int, str] | None:
        """(where, -length, stop string): the first that ends in the fresh text, the longest of those that begin there."""
        found = ((text.find(stop, max(0, fresh - len(stop) + 1)), -len(stop), stop) for stop in self._stops)
        return min((each for each in found if each[0] >= 0), default=None)

    def flush(self) -> str:
        """What was held back, when the answer ends without a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, short of all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
