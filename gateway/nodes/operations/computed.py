"""The operation that computes an expression."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, Field

from gateway.expressions import EXPRESSION_CHARS_MAX, Expression, checked
from gateway.faults import quoted
from gateway.flow_model import InputPort
from gateway.nodes.operations.base import Operation
from gateway.nodes.typed import ValueType, from_json, of_type
from gateway.values import ANYTHING, Document, PortType
from penstock.errors import FailedPrecondition


class Computed(Operation):
    """What an expression says of the node's inputs."""

    operation: Literal["expression"]
    expression: Annotated[str, AfterValidator(checked)] = Field(
        min_length=1,
        max_length=EXPRESSION_CHARS_MAX,
        description="A CEL expression, such as docs.filter(d, d.score > least). What it names are input ports of the node; "
        "passages read as objects with text, score, chunk_id, document_id and metadata.",
    )
    type: ValueType = Field(
        default="json",
        description="The type of what it gives; anything else that it gives fails the run. Passages are objects.",
    )

    def input_ports(self) -> tuple[InputPort, ...]:
        return tuple(InputPort(name=name, accepts=ANYTHING, variable=True) for name in Expression(self.expression).variables)

    def output_type(self) -> PortType:
        return PortType(self.type)

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        expression, kind = Expression(self.expression), PortType(self.type)
        return lambda inputs: _typed(expression.evaluate(inputs), kind, expression.text)


def _typed(result: Any, kind: PortType, text: str) -> Any:
    """JSON as edges of the type carry it. Raises FailedPrecondition."""
    try:
        return _carried(result, kind)
    except ValueError:
        shown = quoted(result)
        raise FailedPrecondition(f"the expression {text[:80]!r} gives {shown}, which is not of the type {kind.value}") from None


def _carried(result: Any, kind: PortType) -> Any:
    if kind is PortType.DOCUMENTS:
        return tuple(_passage(each) for each in _list(result))
    if kind is PortType.DOCUMENT_LISTS:
        return tuple(_carried(each, PortType.DOCUMENTS) for each in _list(result))
    return from_json(result, kind)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else _refuse()


def _passage(value: Any) -> Document:
    """A passage, of an object that has what one reads as."""
    fields = ("chunk_id", "document_id", "text")
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in fields):
        _refuse()
    score: Any = value.get("score")
    metadata = value.get("metadata", {})
    if not of_type(score, PortType.NUMBER) or not isinstance(metadata, dict):
        _refuse()
    return Document(**{name: value[name] for name in fields}, score=score, metadata=metadata)


def _refuse() -> NoReturn:
    """As from_json does, for the types that it does not read."""
    raise ValueError
