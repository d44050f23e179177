"""The parts of a parsed expression, and how each is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.expressions.arithmetic import Exhausted, Frame, Problem, as_int, is_number, kind, shown, truth

Function = Callable[..., Any]
"""Takes the frame and the arguments. Raises Problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A part of an expression. `size` is how many parts it has, itself counted; `depth` how many stand inside one another."""

    size: int
    depth: int

    def evaluate(self, frame: Frame) -> Any:
        """Its value. Raises Problem."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal(Node):
    """A value that stands in the expression."""

    value: Any

    def evaluate(self, frame: Frame) -> Any:  # noqa: ARG002  # It is the same in all.
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable(Node):
    """A name."""

    name: str

    def evaluate(self, frame: Frame) -> Any:
        return frame.values[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Node):
    """`operand.field`."""

    operand: Node
    field: str

    def evaluate(self, frame: Frame) -> Any:
        return _part(self._whole(frame), self.field)

    def has(self, frame: Frame) -> bool:
        """Whether the field is there."""
        return self.field in self._whole(frame)

    def _whole(self, frame: Frame) -> dict[str, Any]:
        whole = self.operand.evaluate(frame)
        if not isinstance(whole, dict):
            message = f"a {kind(whole)} has no field {self.field!r}"
            raise Problem(message)
        return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Has(Node):
    """`has(operand.field)`."""

    selected: Select

    def evaluate(self, frame: Frame) -> bool:
        return self.selected.has(frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Node):
    """`operand[key]`."""

    operand: Node
    key: Node

    def evaluate(self, frame: Frame) -> Any:
        whole, key = self.operand.evaluate(frame), self.key.evaluate(frame)
        if isinstance(whole, dict) and isinstance(key, str):
            return _part(whole, key)
        if not isinstance(whole, list) or not is_number(key) or key % 1 != 0:
            message = f"a {kind(whole)} has no [{shown(key)}]"
            raise Problem(message)
        if not 0 <= key < len(whole):
            message = f"the list has {len(whole)} items, none at {key}"
            raise Problem(message)
        return whole[int(key)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Node):
    """`name(arguments)`; what stands before the dot of `value.name(arguments)` is the first of them."""

    function: Function
    arguments: Sequence[Node]

    def evaluate(self, frame: Frame) -> Any:
        return self.function(frame, *[argument.evaluate(frame) for argument in self.arguments])


@dataclass(frozen=True, slots=True, kw_only=True)
class Not(Node):
    """`!operand`."""

    operand: Node

    def evaluate(self, frame: Frame) -> bool:
        return not truth(self.operand.evaluate(frame), "!")


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative(Node):
    """`-operand`."""

    operand: Node

    def evaluate(self, frame: Frame) -> Any:
        value = self.operand.evaluate(frame)
        if not is_number(value):
            message = f"- does not take {kind(value)}"
            raise Problem(message)
        return -value if isinstance(value, float) else as_int(-value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Node):
    """`left operator right` of numbers, strings and lists."""

    apply: Function
    left: Node
    right: Node

    def evaluate(self, frame: Frame) -> Any:
        return self.apply(frame, self.left.evaluate(frame), self.right.evaluate(frame))


@dataclass(frozen=True, slots=True, kw_only=True)
class Either(Node):
    """`left || right` where `decides` is true, `left && right` where it is false: one that decides is enough."""

    decides: bool
    left: Node
    right: Node

    def evaluate(self, frame: Frame) -> bool:
        try:
            if self._truth(self.left, frame) is self.decides:
                return self.decides
        except Exhausted:
            raise
        except Problem:
            if self._truth(self.right, frame) is self.decides:
                return self.decides
            raise
        return self._truth(self.right, frame)

    def _truth(self, side: Node, frame: Frame) -> bool:
        return truth(side.evaluate(frame), "||" if self.decides else "&&")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional(Node):
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node

    def evaluate(self, frame: Frame) -> Any:
        holds = truth(self.condition.evaluate(frame), "?:")
        return self.yes.evaluate(frame) if holds else self.no.evaluate(frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf(Node):
    """`[item, ...]`."""

    items: Sequence[Node]

    def evaluate(self, frame: Frame) -> list[Any]:
        frame.make_items(len(self.items))
        return [item.evaluate(frame) for item in self.items]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf(Node):
    """`{key: value, ...}`."""

    entries: Sequence[tuple[Node, Node]]

    def evaluate(self, frame: Frame) -> dict[str, Any]:
        frame.make_items(len(self.entries))
        made: dict[str, Any] = {}
        for key, value in self.entries:
            name = key.evaluate(frame)
            if not isinstance(name, str):
                message = f"a key of a map is a string, not {kind(name)}"
                raise Problem(message)
            if name in made:
                message = f"the key {name!r:.80} stands twice in a map"
                raise Problem(message)
            made[name] = value.evaluate(frame)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Comprehension(Node):
    """A macro over the items of a list, or the keys of a map, which `name` stands for one after the other in its body."""

    operand: Node
    name: str
    body: Node

    macro: ClassVar[str]

    def evaluate(self, frame: Frame) -> Any:
        whole = self.operand.evaluate(frame)
        if not isinstance(whole, list | dict):
            message = f"{self.macro} takes a list or a map, not a {kind(whole)}"
            raise Problem(message)
        items = list(whole)
        frame.spend(len(items) * self.body.size)  # All of them before the first, so that no long loop begins in vain.
        hidden = frame.values.get(self.name)
        try:
            return self.over(items, frame)
        finally:
            frame.values[self.name] = hidden

    def over(self, items: list[Any], frame: Frame) -> Any:
        """What the macro makes of the items."""
        raise NotImplementedError

    def holds(self, item: Any, frame: Frame) -> bool:
        """What the body says of an item."""
        frame.values[self.name] = item
        return truth(self.body.evaluate(frame), self.macro)


class Filter(Comprehension):
    """The items of which the body holds."""

    __slots__ = ()
    macro = "filter"

    def over(self, items: list[Any], frame: Frame) -> list[Any]:
        frame.make_items(len(items))
        return [item for item in items if self.holds(item, frame)]


class ExistsOne(Comprehension):
    """Whether the body holds of exactly one item."""

    __slots__ = ()
    macro = "exists_one"

    def over(self, items: list[Any], frame: Frame) -> bool:
        return sum(self.holds(item, frame) for item in items) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantified(Comprehension):
    """Whether the body holds of any item where `decides` is true, of all where it is false. As Either, it gets over errors."""

    macro = "all or exists"
    decides: bool

    def over(self, items: list[Any], frame: Frame) -> bool:
        problem: Problem | None = None
        for item in items:
            try:
                if self.holds(item, frame) is self.decides:
                    return self.decides
            except Exhausted:
                raise
            except Problem as found:
                problem = problem or found
        if problem is not None:
            raise problem
        return not self.decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped(Comprehension):
    """The body's value for each item: of those of which `only` holds, where it is given."""

    macro = "map"
    only: Node | None

    def over(self, items: list[Any], frame: Frame) -> list[Any]:
        frame.make_items(len(items))
        return [self._value(item, frame) for item in items if self._is_wanted(item, frame)]

    def _is_wanted(self, item: Any, frame: Frame) -> bool:
        frame.values[self.name] = item
        return self.only is None or truth(self.only.evaluate(frame), self.macro)

    def _value(self, item: Any, frame: Frame) -> Any:
        frame.values[self.name] = item
        return self.body.evaluate(frame)


def _part(whole: dict[str, Any], key: str) -> Any:
    try:
        return whole[key]
    except KeyError:
        message = f"the map has no key {shown(key)}"
        raise Problem(message) from None
