"""Values that are made for every search, cheaply."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def light(cls: type[T]) -> type[T]:
    """A frozen, slotted, keyword-only dataclass to the type checker, and one that is not frozen at run time.

    Nothing may set its fields, which mypy sees to. To make a really frozen one costs three to four times as much, and a search
    makes a dozen of them.
    """
    return dataclass(slots=True, kw_only=True)(cls)
