"""What is wrong with one field of a request, and the error that the caller sees for it.

Decoders raise a Fault where they find it; each level that it passes on its way out puts its own name before the path, so that
nothing is paid for paths while all is well.
"""

import difflib
from collections.abc import Iterable

from penstock.errors import InvalidArgument, MalformedRequest, UnknownField, Violation


class Fault(ValueError):
    """A value that its field cannot hold. `problem` continues a sentence: "must be a string"."""

    error: type[InvalidArgument] = MalformedRequest

    def __init__(self, problem: str, *, suggestion: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.suggestion = suggestion
        self.path = ""

    def inside(self, name: str) -> "Fault":
        """The same fault, seen from one level further out. `name` is a field's name or an index in brackets."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{name}{joint}{self.path}"
        return self

    def to_error(self, where: str) -> InvalidArgument:
        """What the caller sees; `where` is "body", "query" or "path"."""
        advice = f"; {self.suggestion}" if self.suggestion else ""
        subject = f"field {self.path!r}" if self.path else "the value"
        return self.error(
            f"{where}: {subject} {self.problem}{advice}",
            metadata={"field": self.path, "location": where},
            # Of the whole body there is no field to name, and the message has said it all.
            violations=[Violation(field=self.path, message=self.problem, suggestion=self.suggestion)] if self.path else (),
        )


class UnknownFieldFault(Fault):
    """A field that the message does not have."""

    error = UnknownField


def unknown_field(name: str, message: str, names: Iterable[str]) -> Fault:
    """The fault of a field `name` that `message` does not have among its `names`."""
    known = sorted(set(names))
    listing = f"it has {', '.join(known)}" if known else "it has no fields"
    fault = UnknownFieldFault(f"is not a field of {message}", suggestion=nearest(name, known) or listing)
    return fault.inside(name[:100])


def nearest(name: str, names: Iterable[str]) -> str:
    """A question that offers the name nearest to a mistyped one; empty when none is near."""
    near = difflib.get_close_matches(name[:64], list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
