"""From the text of an expression to its parts. https://github.com/google/cel-spec/blob/master/doc/langdef.md has the grammar.

Names that a macro binds are known as such where they stand, so that what is left is what an expression reads from outside:
of `docs.filter(d, d.score > least)` docs and least, of `d.map(d, d)` d.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gateway.expressions.arithmetic import INT_MAX, OPERATORS
from gateway.expressions.functions import FUNCTIONS
from gateway.expressions.nodes import (
    Binary,
    Call,
    Conditional,
    Either,
    ExistsOne,
    Filter,
    Has,
    Index,
    ListOf,
    Literal,
    MapOf,
    Mapped,
    Negative,
    Node,
    Not,
    Quantified,
    Select,
    Variable,
)
from gateway.faults import suggestion
from gateway.patterns import Pattern

NESTING_MAX: Final = 24
"""Most brackets inside one another."""

TREE_DEPTH_MAX: Final = 64
"""Most parts inside one another: a chain of operators makes a deep tree as well."""

LOOPS_MAX: Final = 2
"""Most macros over lists inside one another."""

VARIABLES_MAX: Final = 64
NAME_CHARS_MAX: Final = 64

T = TypeVar("T")

_TRIPLE: Final = frozenset({'"' * 3, "'" * 3})
_NO_JSON: Final = frozenset({"uint", "bytes", "timestamp", "duration", "type"})
_MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
_RESERVED: Final = frozenset({
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "in", "let", "loop", "namespace", "package",
    "return", "var", "void", "while",
})  # fmt: skip
_CONSTANTS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
_LEVELS: Final = ({"||"}, {"&&"}, {"<", "<=", ">", ">=", "==", "!=", "in"}, {"+", "-"}, {"*", "/", "%"})
_LEVEL: Final = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}

_TOKEN: Final = re.compile(
    r"""
    (?P<space> [ \t\r\n\f]+ | //[^\n]* )
  | (?P<raw> [rR] (?: ""\" .*? ""\" | ''' .*? ''' | "[^"\r\n]*" | '[^'\r\n]*' ) )
  | (?P<string> ""\" (?:[^\\]|\\.)*? ""\" | ''' (?:[^\\]|\\.)*? ''' | "(?:[^"\\\r\n]|\\.)*" | '(?:[^'\\\r\n]|\\.)*' )
  | (?P<double> (?:[0-9]+\.[0-9]+|\.[0-9]+)(?:[eE][+-]?[0-9]+)? | [0-9]+[eE][+-]?[0-9]+ )
  | (?P<int> 0[xX][0-9a-fA-F]+ | [0-9]+ )
  | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
  | (?P<sign> && | \|\| | [=!<>]= | [-+*/%<>=!?:.,()\[\]{}] )
    """,
    re.VERBOSE | re.DOTALL,
)  # fmt: skip
_ESCAPE: Final = re.compile(r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_ESCAPED: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "?": "?", '"': '"', "'": "'", "`": "`",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


def parse(text: str) -> tuple[Node, tuple[str, ...]]:
    """The expression, and the names that it reads from outside. Raises ValueError."""
    parser = _Parser(text)
    root = parser.expression()
    if parser.token.kind != "end":
        raise parser.unexpected("an operator or the end")
    if len(parser.free) > VARIABLES_MAX:
        message = f"the expression reads {len(parser.free)} names; at most {VARIABLES_MAX}"
        raise ValueError(message)
    return root, tuple(sorted(parser.free))


class _Parser:
    """Goes through the tokens from left to right. `free` are the names that are read and not bound."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._nesting = 0
        self._bound: list[str] = []
        self.free: set[str] = set()

    @property
    def token(self) -> _Token:
        return self._tokens[self._next]

    def unexpected(self, wanted: str) -> ValueError:
        """The error of a token that cannot stand where it stands."""
        found = "the end" if self.token.kind == "end" else repr(self.token.text[:40])
        if self.token.text == "=":
            found = "'='; write =="
        return self._error(f"{wanted} should stand here, not {found}")

    def expression(self) -> Node:
        """expression: either ["?" either ":" expression]."""
        self._nesting += 1
        if self._nesting > NESTING_MAX:
            raise self._error(f"more than {NESTING_MAX} brackets inside one another")
        made = self._operators(0)
        if self._takes("?"):
            yes = self._operators(0)
            self._expect(":")
            no = self.expression()
            made = self._made(Conditional, made, yes, no, condition=made, yes=yes, no=no)
        self._nesting -= 1
        return made

    def _operators(self, level: int) -> Node:
        """A chain of operators of this level or of those that bind more tightly, from left to right."""
        left = self._unary()
        while (found := _LEVEL.get(self.token.text, -1)) >= level and self.token.kind in {"sign", "name"}:
            operator = self._take().text
            right = self._operators(found + 1)
            if operator in {"||", "&&"}:
                left = self._made(Either, left, right, left=left, right=right, decides=operator == "||")
            else:
                left = self._made(Binary, left, right, left=left, right=right, apply=OPERATORS[operator])
        return left

    def _unary(self) -> Node:
        signs = []
        while self.token.text in {"!", "-"} and self.token.kind == "sign":
            signs.append(self._take().text)
        if signs and signs[-1] == "-" and self.token.kind in {"int", "double"}:
            signs.pop()
            made = self._members(self._number("-"))
        else:
            made = self._members(self._primary())
        for sign in reversed(signs):
            made = self._made(Not if sign == "!" else Negative, made, operand=made)
        return made

    def _members(self, operand: Node) -> Node:
        while True:
            if self._takes("["):
                key = self.expression()
                self._expect("]")
                operand = self._made(Index, operand, key, operand=operand, key=key)
            elif self._takes("."):
                name = self._name()
                if self.token.text != "(" or self.token.kind != "sign":
                    operand = self._made(Select, operand, operand=operand, field=name.text)
                elif name.text in _MACROS:
                    operand = self._macro(name, operand)
                else:
                    operand = self._call(name, [operand])
            else:
                return operand

    def _primary(self) -> Node:
        token = self.token
        if token.kind in {"int", "double"}:
            return self._number("")
        if token.kind in {"string", "raw"}:
            return self._made(Literal, value=_string(self._take()))
        if token.kind == "name":
            return self._named()
        if self._takes("("):
            made = self.expression()
            self._expect(")")
            return made
        if self._takes("["):
            items = self._listing("]", self.expression)
            return self._made(ListOf, *items, items=items)
        if self._takes("{"):
            entries = self._listing("}", self._entry)
            return self._made(MapOf, *(node for entry in entries for node in entry), entries=entries)
        raise self.unexpected("a value")

    def _named(self) -> Node:
        token = self._take()
        if token.text in _CONSTANTS:
            return self._made(Literal, value=_CONSTANTS[token.text])
        if token.text in _RESERVED:
            raise _error(f"{token.text!r} is a reserved word", token)
        if self.token.text == "(" and self.token.kind == "sign":
            return self._has(token) if token.text == "has" else self._call(token, [])
        if token.text not in self._bound:
            self.free.add(token.text)
        return self._made(Variable, name=token.text)

    def _has(self, token: _Token) -> Node:
        self._expect("(")
        selected = self.expression()
        self._expect(")")
        if not isinstance(selected, Select):
            raise _error("has takes a field of a value, such as has(order.status)", token)
        return self._made(Has, selected, selected=selected)

    def _call(self, name: _Token, before: list[Node]) -> Node:
        known = FUNCTIONS.get(name.text)
        if known is None:
            why = (
                "JSON has no such values" if name.text in _NO_JSON else suggestion(name.text, _MACROS.union(FUNCTIONS), "known")
            )
            raise _error(f"there is no function {name.text[:40]!r}; {why}", name)
        self._expect("(")
        arguments = [*before, *self._listing(")", self.expression)]
        if not known.least <= len(arguments) <= known.most:
            wanted = str(known.least) if known.least == known.most else f"{known.least} to {known.most}"
            raise _error(f"{name.text} takes {wanted} arguments, not {len(arguments)}", name)
        if name.text == "matches" and isinstance(arguments[1], Literal) and isinstance(arguments[1].value, str):
            Pattern(arguments[1].value)  # One that is no pattern is told now.
        return self._made(Call, *arguments, function=known.apply, arguments=arguments)

    def _macro(self, macro: _Token, operand: Node) -> Node:
        self._expect("(")
        name = self._name()
        if name.text in _CONSTANTS or name.text in _RESERVED:
            raise _error(f"{name.text!r} cannot be the name of an item", name)
        self._expect(",")
        if len(self._bound) == LOOPS_MAX:
            raise _error(f"more than {LOOPS_MAX} macros over lists inside one another", macro)
        self._bound.append(name.text)
        bodies = self._listing(")", self.expression)
        self._bound.pop()
        if len(bodies) != 1 and not (macro.text == "map" and len(bodies) == 2):
            raise _error(f"{macro.text} takes the name of an item and an expression of it", macro)
        only, body = bodies[0] if len(bodies) == 2 else None, bodies[-1]
        fields: dict[str, Any] = {"operand": operand, "name": name.text, "body": body}
        match macro.text:
            case "map":
                return self._made(Mapped, operand, *bodies, **fields, only=only)
            case "filter":
                return self._made(Filter, operand, body, **fields)
            case "exists_one":
                return self._made(ExistsOne, operand, body, **fields)
        return self._made(Quantified, operand, body, **fields, decides=macro.text == "exists")

    def _entry(self) -> tuple[Node, Node]:
        key = self.expression()
        self._expect(":")
        return key, self.expression()

    def _listing(self, end: str, each: Callable[[], T]) -> list[T]:
        """What stands between here and `end`, with commas between and perhaps one after the last."""
        found: list[T] = []
        while not self._takes(end):
            if found:
                self._expect(",")
                if end != ")" and self._takes(end):
                    break
            found.append(each())
        return found

    def _number(self, sign: str) -> Node:
        token = self._take()
        follows = self.token
        if follows.kind == "name" and follows.place == token.place + len(token.text):
            raise _error(
                "JSON has no uint" if follows.text in {"u", "U"} else f"no number ends in {follows.text[:40]!r}", token
            )
        text = sign + token.text
        if token.kind == "int":
            number = int(text, 16 if "x" in text.lower() else 10)
            if not -INT_MAX - 1 <= number <= INT_MAX:
                raise _error("a whole number beyond 64 bits", token)
            return self._made(Literal, value=number)
        if not math.isfinite(float(text)):
            raise _error("a number beyond those of a double", token)
        return self._made(Literal, value=float(text))

    def _made(self, model: type[Node], *parts: Node, **fields: Any) -> Node:
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > TREE_DEPTH_MAX:
            raise self._error(f"more than {TREE_DEPTH_MAX} operators and brackets inside one another")
        return model(size=1 + sum(part.size for part in parts), depth=depth, **fields)

    def _name(self) -> _Token:
        if self.token.kind != "name":
            raise self.unexpected("a name")
        return self._take()

    def _take(self) -> _Token:
        token = self.token
        self._next += 1
        return token

    def _takes(self, sign: str) -> bool:
        if self.token.kind == "sign" and self.token.text == sign:
            self._next += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise self.unexpected(repr(sign))

    def _error(self, message: str) -> ValueError:
        return _error(message, self.token)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _error(f"{text[place]!r} has no meaning here", _Token("sign", text[place], place))
        kind = match.lastgroup or ""
        if kind == "name" and len(match[0]) > NAME_CHARS_MAX:
            raise _error(f"a name has at most {NAME_CHARS_MAX} characters", _Token(kind, match[0], place))
        if kind != "space":
            found.append(_Token(kind, match[0], place))
        place = match.end()
    return [*found, _Token("end", "", len(text))]


def _string(token: _Token) -> str:
    if token.kind == "raw":
        text = token.text[1:]
        return text[3:-3] if text[:3] in _TRIPLE and len(text) >= 6 else text[1:-1]
    text = token.text[3:-3] if token.text[:3] in _TRIPLE and len(token.text) >= 6 else token.text[1:-1]

    def meant(match: re.Match[str]) -> str:
        code = next((int(digits, 8 if at == 4 else 16) for at, digits in enumerate(match.groups()[:4], 1) if digits), -1)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise _error(f"{match[0]} is no character", token)
        if code < 0 and match[5] not in _ESCAPED:
            raise _error(f"no string has the escape {match[0]}", token)
        return _ESCAPED[match[5]] if code < 0 else chr(code)

    return _ESCAPE.sub(meant, text)


def _error(message: str, token: _Token) -> ValueError:
    return ValueError(f"Syntax error at character {token.place + 1}: {message}")
