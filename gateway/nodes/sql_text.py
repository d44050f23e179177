"""The parameters of a query and the SQL around them. It is read just far enough to tell both apart.

What is a text, a quoted name or a comment has no parameters in it. That the query does nothing but read is for the database to
see to; what is said of it here comes early and in words for whoever writes a flow.
"""

import re
from typing import Final

from gateway.backends import SqlQuery

QUERY_CHARS_MAX: Final = 20_000
PARAMETERS_MAX: Final = 32
_READING: Final = ("select", "with", "values", "table")

# A quotation or a comment that does not end goes on to the end of the query, so that no part of it is read twice.
_TOKENS: Final = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<space> \s+ )
  | (?P<quoted> '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | `[^`]*(?:`|\Z) | \$(?P<tag>[A-Za-z_]*)\$.*?(?:\$(?P=tag)\$|\Z) )
  | (?P<cast> :: )
  | (?P<numbered> \$[0-9] )
  | : (?P<parameter> [A-Za-z_][A-Za-z0-9_]* )
  | (?P<end> ; )
  | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


def parsed(text: str) -> SqlQuery:
    """The query that a text is. Raises ValueError where it is not one query that reads."""
    pieces, parameters, piece = [], [], ""
    first, ended = "", False
    for token in _TOKENS.finditer(text):
        kind = token.lastgroup
        ended = ended or kind == "end"
        if kind in {"comment", "space", "end"}:
            piece += " " if kind == "comment" else "" if kind == "end" else token[0]
            continue
        if ended:
            message = "there is a semicolon in it; it must be one statement"
            raise ValueError(message)
        first = first or token[0].lower().replace("(", "")
        if kind == "numbered":
            message = f"{token[0]} is no parameter here; write :name"
            raise ValueError(message)
        if kind == "parameter":
            pieces.append(piece)
            parameters.append(token["parameter"])
            piece = ""
        else:
            piece += token[0]
    _check(first, parameters)
    return SqlQuery(pieces=(*pieces, piece), parameters=tuple(parameters))


def _check(first: str, parameters: list[str]) -> None:
    if first not in _READING:
        message = f"must begin with {', '.join(_READING[:-1]).upper()} or {_READING[-1].upper()}: it may read and nothing else"
        raise ValueError(message)
    if len(set(parameters)) > PARAMETERS_MAX:
        message = f"has {len(set(parameters))} parameters; at most {PARAMETERS_MAX}"
        raise ValueError(message)
    long = next((name for name in parameters if len(name) > 64), None)
    if long is not None:
        message = f"the parameter :{long[:16]}... has a name of more than 64 characters"
        raise ValueError(message)


def checked(text: str) -> str:
    """The text, if it is one query that reads. Raises ValueError."""
    parsed(text)
    return text
