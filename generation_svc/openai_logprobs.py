"""Log probabilities as OpenAI's API gives them, read. Pure.

Chat has a list of tokens, each with its likeliest; raw prompts have lists side by side, with a map for the likeliest. Servers
differ in whether the chosen token stands among the likeliest when it is none of them, and in their order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from generation_svc.engine import TokenLogprob

_NOT_SAID: Final = -9999.0
"""What OpenAI and vLLM themselves say of a token whose probability is next to nothing."""

_Pair = tuple[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobReader:
    """Reads what was asked for: the `top` likeliest tokens in each place, or those in `named`, by text and number."""

    top: int = 0
    named: tuple[tuple[str, int], ...] = ()

    def read(self, choice: Any) -> tuple[TokenLogprob, ...]:
        """The tokens of one choice. Raises KeyError, TypeError or ValueError for what is not of this shape."""
        found = choice.get("logprobs")
        if not found:
            return ()
        places = list(_raw(found) if "tokens" in found else _chat(found["content"] or ()))
        numbers = choice.get("token_ids") or ()
        if len(numbers) != len(places):
            numbers = (-1,) * len(places)
        return tuple(
            TokenLogprob(token=text, logprob=logprob, token_id=number, top=self._others(number, others))
            for (text, logprob, others), number in zip(places, numbers, strict=True)
        )

    def _others(self, chosen: int, others: list[_Pair]) -> tuple[TokenLogprob, ...]:
        if self.named:
            return self._named(chosen, others)
        likeliest = sorted(others, key=lambda pair: -pair[1])[: self.top]
        return tuple(TokenLogprob(token=text, logprob=logprob) for text, logprob in likeliest)

    def _named(self, chosen: int, others: list[_Pair]) -> tuple[TokenLogprob, ...]:
        """The server gives the chosen token and then those that were asked for, in their order, each once."""
        numbers = dict.fromkeys((chosen, *(number for _, number in self.named)))
        found = dict(zip(numbers, (logprob for _, logprob in others), strict=True))
        given = (TokenLogprob(token=text, logprob=found[number], token_id=number) for text, number in self.named)
        return tuple(sorted(given, key=lambda token: -token.logprob))


def _chat(content: Any) -> Iterator[tuple[str, float, list[_Pair]]]:
    for place in content:
        yield *_pair(place), [_pair(other) for other in place.get("top_logprobs") or ()]


def _raw(found: Any) -> Iterator[tuple[str, float, list[_Pair]]]:
    tokens = found["tokens"]
    tops: Any = found.get("top_logprobs") or ({},) * len(tokens)
    for text, logprob, others in zip(tokens, found["token_logprobs"], tops, strict=True):
        yield text, _number(logprob), [(other, _number(value)) for other, value in (others or {}).items()]


def _pair(place: Any) -> _Pair:
    """A token's own bytes say more than its text, which OpenAI writes as escapes where it is part of a character."""
    known = place.get("bytes")
    text = bytes(known).decode(errors="replace") if known else place["token"]
    return text, _number(place["logprob"])


def _number(logprob: float | None) -> float:
    return _NOT_SAID if logprob is None else float(logprob)
