"""How long prompts and answers are: the same always, or drawn from a distribution.

    512                 512 tokens each
    uniform:128:1024    any number from 128 to 1024, all alike
    lognormal:600:0.5   a median of 600, and two thirds of all between 600 / e^0.5 and 600 * e^0.5

Lengths of real prompts and answers are skewed to the right, as a lognormal's are: a median of 600 and a sigma of 0.5 have one
in twenty above 1370.
"""

import math
import random
from dataclasses import dataclass
from typing import Final, Literal

from penstock.errors import InvalidArgument

TOKENS_MAX: Final = 2**20
SIGMA_MAX: Final = 3.0
FORMS: Final = "512, uniform:128:1024 or lognormal:600:0.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A distribution of lengths in tokens, by two numbers: the same twice, the ends, or the median and sigma."""

    kind: Literal["fixed", "uniform", "lognormal"]
    first: float
    second: float

    def draw(self, drawn: random.Random) -> int:
        """One length, at least 1."""
        if self.kind == "lognormal":
            return min(TOKENS_MAX, max(1, round(drawn.lognormvariate(math.log(self.first), self.second))))
        return drawn.randint(int(self.first), int(self.second))

    def __str__(self) -> str:
        return f"{self.first:g}" if self.kind == "fixed" else f"{self.kind}:{self.first:g}:{self.second:g}"


def parse_lengths(text: str, option: str) -> Lengths:
    """What an option says. Raises InvalidArgument with the forms that it may have."""
    kind, *numbers = text.strip().split(":")
    try:
        if not numbers:
            return _within(Lengths(kind="fixed", first=int(kind), second=int(kind)), option)
        first, second = numbers
        if kind == "uniform":
            return _within(Lengths(kind="uniform", first=int(first), second=int(second)), option)
        if kind == "lognormal":
            return _within(Lengths(kind="lognormal", first=float(first), second=float(second)), option)
    except ValueError as error:
        raise InvalidArgument(f"{option} {text}: not a length in tokens; write {FORMS}") from error
    raise InvalidArgument(f"{option} {text}: there is no distribution {kind!r}; write {FORMS}")


def _within(lengths: Lengths, option: str) -> Lengths:
    if not 1 <= lengths.first <= TOKENS_MAX:
        raise InvalidArgument(f"{option} {lengths}: {lengths.first:g} tokens; from 1 to {TOKENS_MAX} are taken")
    if lengths.kind == "lognormal" and not 0 <= lengths.second <= SIGMA_MAX:
        raise InvalidArgument(f"{option} {lengths}: sigma is {lengths.second:g}; from 0 to {SIGMA_MAX:g} is taken")
    if lengths.kind == "uniform" and not lengths.first <= lengths.second <= TOKENS_MAX:
        raise InvalidArgument(f"{option} {lengths}: write the smaller number first, and none above {TOKENS_MAX}")
    return lengths
