"""sql: what a query finds in a database of others. The query is the flow's, and a run gives it the values of its parameters;
or it is an input, for an agent that writes queries itself.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.backends import Backends, Scalar, SqlQuery
from gateway.document import NAME_PATTERN
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, Outputs, Work
from gateway.nodes.sql_text import QUERY_CHARS_MAX, checked, parsed
from gateway.values import PortType, as_text, bounded_join
from penstock.errors import InvalidArgument

ROWS_MAX: Final = 10_000
CONNECTION: Final = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
"""The names of connections."""

QUERY: Final = "query"
"""The input port of a node whose query a run gives."""

ParameterType = Literal["text", "number", "boolean", "any"]
_SCALARS: Final = frozenset({PortType.TEXT, PortType.NUMBER, PortType.BOOLEAN})
_ACCEPTED: Final[dict[str, frozenset[PortType]]] = {
    **{kind.value: frozenset({kind}) for kind in _SCALARS},
    "any": _SCALARS | {PortType.JSON},
}


class SqlParams(NodeParams):
    """Parameters of a sql node."""

    protected = frozenset({"connection", "query", "parameters"})

    connection: str = Field(pattern=CONNECTION.pattern, description="Name of a connection of PENSTOCK_GATEWAY_SQL_CONNECTIONS.")
    query: Annotated[str, Field(min_length=1, max_length=QUERY_CHARS_MAX), AfterValidator(checked)] | None = Field(
        default=None,
        description="One query that reads. :name is a parameter: an input port of the node, whose value the database binds. "
        "PostgreSQL takes a text for a text; where it must be something else write CAST(:day AS date). Left out: the input "
        "port query gives it, without parameters; whoever writes it may read all that the connection's role may.",
    )
    parameters: dict[Annotated[str, Field(pattern=NAME_PATTERN)], ParameterType] = Field(
        default={},
        max_length=32,
        description="Types of parameters. One that is not named here takes a text, a number, true, false and null.",
    )
    rows_max: int = Field(default=100, ge=1, le=ROWS_MAX, description="Most rows; what is beyond them is left out.")

    @model_validator(mode="after")
    def _parameters_are_used(self) -> "SqlParams":
        known = set() if self.query is None else set(parsed(self.query).parameters)
        unknown = sorted(set(self.parameters) - known)
        if unknown:
            message = f"the query has no parameter :{unknown[0]}"
            raise ValueError(message)
        return self


def _ports(params: SqlParams) -> Ports:
    names = dict.fromkeys([] if params.query is None else parsed(params.query).parameters)
    inputs = tuple(InputPort(name=name, accepts=_ACCEPTED[params.parameters.get(name, "any")]) for name in names)
    return Ports(
        inputs=inputs if params.query is not None else (InputPort(name=QUERY, accepts=_ACCEPTED["text"]),),
        outputs=(
            OutputPort(name="rows", type=PortType.JSON),
            OutputPort(name="text", type=PortType.TEXT, is_main=True),
            OutputPort(name="count", type=PortType.NUMBER),
        ),
    )


def _work(params: SqlParams, node_id: str, backends: Backends) -> Work:
    own = None if params.query is None else parsed(params.query)

    async def find(inputs: Inputs, run: Run) -> Outputs:
        query = own or _given(inputs[QUERY])
        values = {name: _scalar(name, inputs[name]) for name in dict.fromkeys(query.parameters)}
        table = await backends.databases.query(params.connection, query, values, params.rows_max)
        if not table.is_whole:
            run.bounded(node_id)
        rows = [dict(row) for row in table.rows]
        return {"rows": rows, "text": _as_lines(rows), "count": len(rows)}

    return Effect(find)


def _given(text: str) -> SqlQuery:
    """A query that a run gives."""
    try:
        if len(text) > QUERY_CHARS_MAX:
            message = f"it has {len(text)} characters; at most {QUERY_CHARS_MAX} are taken"
            raise ValueError(message)
        query = parsed(text)
    except ValueError as error:
        raise InvalidArgument(f"the query cannot be run: {error}") from error
    if query.parameters:
        raise InvalidArgument(f"the query has the parameter :{query.parameters[0]}; write its value into the query")
    return query


def _scalar(name: str, value: Any) -> Scalar:
    if value is None or isinstance(value, str | int | float):
        return value
    raise InvalidArgument(f"the parameter :{name} of a query is a text, a number, true, false or null, not a list or an object")


def _as_lines(rows: list[dict[str, Any]]) -> str:
    """A line with the columns and one for each row; nothing where there are no rows."""
    if not rows:
        return ""
    lines = [" | ".join(rows[0]), *(" | ".join(map(_cell, row.values())) for row in rows)]
    return bounded_join(lines, "\n")


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(as_text(value).split())


SQL: Final = NodeSpec(summary="What a query finds in a database.", params=SqlParams, ports=_ports, work=_work)
