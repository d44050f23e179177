"""Reading JSON bodies as OpenAI's API takes them. What is wrong is told with the name of the parameter."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from gateway.faults import quoted, suggestion
from gateway.values import DEPTH_MAX, is_deeper
from penstock.errors import InvalidArgument, Violation

TEXTS_MAX: Final = 16
NAME_CHARS_MAX: Final = 256


def refused(param: str, problem: str, *, advice: str = "") -> InvalidArgument:
    """The error of a parameter that cannot be taken."""
    violation = Violation(field=param, message=problem, suggestion=advice)
    return InvalidArgument(f"{param}: {violation.advice}", metadata={"param": param}, violations=[violation])


def an_object(value: Any, param: str) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise refused(param, f"must be an object; found {quoted(value)}")
    return value


def shallow(value: Any, param: str) -> Any:
    """The value, which must not be nested deeper than what a flow can be given."""
    if is_deeper(value, DEPTH_MAX):
        raise refused(param, f"is nested more than {DEPTH_MAX} deep")
    return value


class Fields:
    """The parameters of one body by their names; null is the same as left out."""

    def __init__(self, values: Mapping[str, Any], place: str = "") -> None:
        self.values = values
        self._place = place

    def param(self, name: str) -> str:
        """The name with which a fault of the parameter is told."""
        return f"{self._place}{name}"

    def text(self, name: str, *, required: bool = False) -> str:
        """A text; empty where it is left out and not required."""
        value = self.values.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value):
            raise refused(self.param(name), f"must be a text; found {quoted(value)}" if value is not None else "is missing")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise refused(self.param(name), f"must be true or false; found {quoted(value)}")
        return value

    def number(self, name: str) -> float | None:
        """A number."""
        value = self.values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise refused(self.param(name), f"must be a number; found {quoted(value)}")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number."""
        value = self.number(name)
        if value is None or isinstance(value, int):
            return value
        if not value.is_integer():
            raise refused(self.param(name), f"must be a whole number; found {quoted(value)}")
        return int(value)

    def texts(self, name: str) -> list[str]:
        """A text, or a few of them."""
        value = self.values.get(name)
        if value is None:
            return []
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or len(value) > TEXTS_MAX or not all(isinstance(each, str) for each in value):
            raise refused(self.param(name), f"must be a text, or a list of at most {TEXTS_MAX} texts")
        return value

    def items(self, name: str, count_max: int) -> list[Any]:
        """A list; empty where it is left out."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > count_max:
            raise refused(self.param(name), f"must be a list of at most {count_max}")
        return value

    def part(self, name: str) -> "Fields":
        """An object's fields; none where it is left out."""
        value = self.values.get(name)
        if value is None and not self._place:
            return _NONE  # Nearly all that a body may have is left out.
        return Fields({} if value is None else an_object(value, self.param(name)), f"{self.param(name)}.")

    def check_names(self, known: Collection[str], changing_nothing: Mapping[str, Collection[Any]]) -> None:
        """Refuses what is not known, and what is known and cannot be done unless its value is one that changes nothing."""
        for name, value in self.values.items():
            if name in known or value is None:
                continue
            if name not in changing_nothing:
                near = suggestion(name, known, "known")
                raise refused(self.param(name[:64]), "is not a parameter of this API", advice=near)
            if value not in changing_nothing[name]:
                raise refused(self.param(name), "would change the answer, and no flow can do it; leave it out")


_NONE: Final = Fields({})
