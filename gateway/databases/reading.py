"""What reading a database has in common, whichever it is: its bounds, and how its values become JSON."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

from gateway.backends import Scalar, SqlQuery, Table
from penstock.errors import FailedPrecondition, InvalidArgument

EXACT_MAX: Final = 2**53
"""Beyond it not every whole number is a double, which is what JSON's readers make of a number."""

_DIGITS_MAX: Final = 400
_BIGINT: Final = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingLimits:
    """`connections_max` of one database at a time, `timeout_s` for a query, `answer_bytes_max` of its rows as JSON."""

    connections_max: int = 4
    timeout_s: float = 10.0
    answer_bytes_max: int = 2**20


class Database(Protocol):
    """One database that is read."""

    async def query(self, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> Table:
        """As Databases.query does."""
        ...

    async def close(self) -> None:
        """Lets go of its connections."""
        ...


def numbered(names: Iterable[str]) -> dict[str, int]:
    """The number of each parameter, from 1, in the order in which they stand."""
    return {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}


def written(query: SqlQuery, placeholder: Callable[[str], str]) -> str:
    """The SQL of a query, each parameter as its `placeholder` says."""
    parts = (piece + placeholder(name) for piece, name in zip(query.pieces, query.parameters, strict=False))
    return "".join(parts) + query.pieces[-1]


def check_fits(values: Mapping[str, Scalar]) -> None:
    """Raises InvalidArgument for a number that no database has room for, and a text with a NUL in it."""
    for name, value in values.items():
        if isinstance(value, int) and not -_BIGINT <= value < _BIGINT:
            raise InvalidArgument(f"the parameter :{name} is a whole number of more than 64 bits")
        if isinstance(value, str) and "\0" in value:
            raise InvalidArgument(f"the parameter :{name} has a NUL character in it, which no text of a database has")


def whole_number(text: str) -> int | str:
    """A whole number as JSON: a number where a double is exactly it, else its digits as text."""
    if len(text) > _DIGITS_MAX:
        return text
    number = int(text)
    return number if -EXACT_MAX <= number <= EXACT_MAX else text


def decimal_number(text: str) -> float | str:
    """A number with decimals as JSON: a number where a double is written with the same digits, else its digits as text."""
    if len(text) > _DIGITS_MAX:
        return text
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else text


def too_slow(name: str, timeout_s: float) -> FailedPrecondition:
    """The error of a query that was stopped."""
    return FailedPrecondition(
        f"the query took longer than the {timeout_s:.3g} s that the database {name!r} has for one; make it find less, add an "
        "index, or raise PENSTOCK_GATEWAY_SQL_TIMEOUT_S",
        metadata={"connection": name},
    )


def size_of(value: Any) -> int:
    """About how many bytes a value of a row is as JSON."""
    return len(value) + 2 if isinstance(value, str | bytes) else 8
