"""Rounds: every side once, in an order that turns, so that what drifts meets them all alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Tell = Callable[[str], None]
"""Hears what is being measured."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way of asking: which caller with which options, what it sends, and which processes serve it, by group."""

    name: str
    caller: str
    options: Mapping[str, Any]
    payloads: Sequence[bytes]
    pids: Mapping[str, list[int]] = field(default_factory=dict)


def turned(sides: Sequence[T], round_number: int) -> Iterator[T]:
    """All of them, beginning one further each round."""
    start = round_number % len(sides)
    yield from sides[start:]
    yield from sides[:start]
