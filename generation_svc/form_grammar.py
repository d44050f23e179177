r"""Grammars that an answer may be held to: whether a text is one, and what it costs.

The notation is GBNF, as xgrammar reads it:

    root ::= "yes" | "no" reason?     # rules begin a line; the answer is a root
    reason ::= ", " [a-z ]{1,20}

Strings and classes may have \n \r \t \" \\ \] \- \uHHHH, and \xHH where no further digit follows. Macros, lookahead and classes
such as \d are not taken.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from generation_svc import form_cost
from generation_svc.form_cost import Cost, UnfitForm, characters_of

BYTES_MAX: Final = 64 * 2**10
RULES_MAX: Final = 500
DEPTH_MAX: Final = 20
_TOKEN: Final = re.compile(
    r"""(?P<space>(?:[ \t\r\n]|\#[^\r\n]*)+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_-]*)
    |(?P<assign>::=)
    |(?P<text>"(?:[^"\\\r\n]|\\[nrt"\\]|\\x[0-9a-fA-F]{2}(?![0-9a-fA-F])|\\u[0-9a-fA-F]{4})*")
    |(?P<class>\[\^?(?:[^]\\\r\n[]|\\[][nrt"\\^-]|\\x[0-9a-fA-F]{2}(?![0-9a-fA-F])|\\u[0-9a-fA-F]{4})+\])
    |(?P<count>\{[ ]?[0-9]{1,6}[ ]?(?:,[ ]?[0-9]{0,6}[ ]?)?\})
    |(?P<sign>[()|*+?])""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"""\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))""")
_MEMBER: Final = re.compile(r"\\x..|\\u....|\\.|[^\\]", re.DOTALL)
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t"}
_REPETITIONS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
Token = tuple[str, str, int]
"""(kind, text, line). A rule's beginning is one token of the kind "rule"."""


def check(text: str) -> None:
    """Raises UnfitForm for what is no grammar, or costs too much."""
    if not 1 <= (size := len(text.encode(errors="replace"))) <= BYTES_MAX:
        raise UnfitForm(f"has {size} bytes, must have 1 to {BYTES_MAX}")
    rules = _rules(_tokens(text))
    if "root" not in rules:
        raise UnfitForm("has no rule with the name root", "the answer is what root stands for: root ::= ...")
    ends = _Ends(rules)
    costs = [_Rule(name, tokens, ends).cost() for name, tokens in rules.items()]
    form_cost.check(
        Cost(
            states=sum(cost.states for cost in costs),
            class_states=sum(cost.class_states for cost in costs),
            ambiguity=max(cost.ambiguity for cost in costs),
        )
    )
    if "root" not in ends.found():
        raise UnfitForm("has no text that it allows: root needs itself, or rules that need themselves", "give it an end")
    _check_pairs(ends)


def _check_pairs(ends: "_Ends") -> None:
    """Two rules side by side that may both be empty, or s ::= s s, can divide a text between them in any way: the work for a
    token grows with the length of the answer.
    """
    empty = ends.found(texts_end=False)
    for rule, one, other in ends.pairs:
        if (one in empty and other in empty) or rule == one == other:
            message = (
                f"has {one[:64]} beside {other[:64]}, which can divide a text between them in any way, in the rule {rule[:64]}"
            )
            raise UnfitForm(message, "let only one of them be empty, and repeat with * or + instead of s ::= s s")


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    at, line, fresh = 0, 1, True
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            piece = text[at : at + 20].splitlines()[0]
            raise UnfitForm(f"has {piece!r} at line {line}, which is no part of a grammar", 'texts stand in "", classes in []')
        kind, part = str(found.lastgroup), found.group()
        if kind == "assign":
            if not tokens or tokens[-1][0] != "first":
                raise UnfitForm(f"has a ::= at line {line} that is not behind a name at the beginning of a line")
            tokens[-1] = ("rule", tokens[-1][1], line)
        elif kind == "space":
            fresh = fresh or "\n" in part or "\r" in part
        else:
            tokens.append(("first" if kind == "name" and fresh else kind, part, line))
        fresh = kind == "space" and fresh
        line += part.count("\n")
        at = found.end()
    return tokens


def _rules(tokens: list[Token]) -> dict[str, list[Token]]:
    rules: dict[str, list[Token]] = {}
    body: list[Token] = []
    for kind, part, line in tokens:
        if kind != "rule":
            if not rules:
                raise UnfitForm(f"begins with {part[:20]!r} instead of a rule", "root ::= ...")
            body.append(("name" if kind == "first" else kind, part, line))
        elif part in rules:
            raise UnfitForm(f"has the rule {part} twice, the second time at line {line}", "join them with |")
        elif len(rules) == RULES_MAX:
            raise UnfitForm(f"has more than {RULES_MAX} rules")
        else:
            body = rules[part] = []
    return rules


class _Ends:
    """Finds the rules that allow any text at all, in a time that is linear in the grammar (as Dowling and Gallier's for Horn
    clauses): each part waits for the parts that it needs, of which one, or all, or none must come to an end.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        self.rules = {name: number for number, name in enumerate(rules)}
        self.pairs: list[tuple[str, str, str]] = []
        """(rule, one, other): in the rule's body one stands before the other."""
        self._missing = [1] * len(self.rules)
        self._texts: list[int] = []
        self._awaited_by: list[list[int]] = [[] for _ in self.rules]

    def part(self, needs: Sequence[int], *, least: int) -> int:
        """The number of a new part that ends when `least` of those that it needs do."""
        number = len(self._missing)
        self._missing.append(least)
        self._awaited_by.append([])
        for each in needs:
            self._awaited_by[each].append(number)
        return number

    def text(self, *, is_empty: bool) -> int:
        """The number of a text or a class, which needs nothing."""
        number = self.part((), least=0)
        if not is_empty:
            self._texts.append(number)
        return number

    def is_rule(self, name: str, body: int) -> None:
        self._awaited_by[body].append(self.rules[name])

    def found(self, *, texts_end: bool = True) -> set[str]:
        """The rules that come to an end; without `texts_end` those that may be empty."""
        missing_of = list(self._missing)
        for number in () if texts_end else self._texts:
            missing_of[number] = 1
        ended = [number for number, missing in enumerate(missing_of) if missing <= 0]
        seen = set(ended)
        while ended:
            for waiting in self._awaited_by[ended.pop()]:
                missing_of[waiting] -= 1
                if missing_of[waiting] <= 0 and waiting not in seen:
                    seen.add(waiting)
                    ended.append(waiting)
        return {name for name, number in self.rules.items() if number in seen}


class _Rule:
    """Reads one rule's body. Groups are read by recursion, which DEPTH_MAX bounds."""

    def __init__(self, name: str, tokens: list[Token], ends: _Ends) -> None:
        self._name = name
        self._tokens = tokens
        self._ends = ends
        self._at = 0
        self._depth = 0

    def cost(self) -> Cost:
        found, part = self._alternatives()
        if self._at < len(self._tokens):
            raise self._unfit("has a ) without a (")
        self._ends.is_rule(self._name, part)
        return found

    def _alternatives(self) -> tuple[Cost, int]:
        found, part = self._sequence()
        parts = [part]
        while self._take("|"):
            further, part = self._sequence()
            found = form_cost.either(found, further)
            parts.append(part)
        return found, self._ends.part(parts, least=1)

    def _sequence(self) -> tuple[Cost, int]:
        found, parts = Cost(), []
        while self._at < len(self._tokens) and self._tokens[self._at][1] not in {"|", ")"}:
            cost, part = self._element()
            bounds = self._bounds()
            found = form_cost.in_order(found, form_cost.repeated(cost, *bounds) if bounds else cost)
            parts.append(part if bounds is None or bounds[0] else self._ends.part((), least=0))
        if not parts:
            raise self._unfit("has nothing where a text, a class or a rule must stand", 'write "" for nothing')
        return found, self._ends.part(parts, least=len(parts))

    def _element(self) -> tuple[Cost, int]:
        kind, part, _ = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            return form_cost.literal(self._plain(part[1:-1])), self._ends.text(is_empty=len(part) == 2)
        if kind == "class":
            return form_cost.one_of(self._class(part[1:-1])), self._ends.text(is_empty=False)
        if kind == "name":
            self._note_pair(part)
            if part not in self._ends.rules:
                raise self._unfit(f"stands on the rule {part[:64]}, which is not there", f"{part[:64]} ::= ...")
            return Cost(states=1, nullable=False), self._ends.rules[part]
        if part != "(":
            raise self._unfit(f"has a {part} with nothing to repeat")
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._unfit(f"has groups deeper than {DEPTH_MAX} in one another", "make rules of them")
        found = self._alternatives()
        if not self._take(")"):
            raise self._unfit("has a ( without a )")
        self._depth -= 1
        return found

    def _note_pair(self, name: str) -> None:
        if self._at > 1 and self._tokens[self._at - 2][0] == "name":
            self._ends.pairs.append((self._name, self._tokens[self._at - 2][1], name))

    def _bounds(self) -> tuple[int, int | None] | None:
        if self._at == len(self._tokens):
            return None
        kind, part, _ = self._tokens[self._at]
        if part in _REPETITIONS:
            self._at += 1
            return _REPETITIONS[part]
        if kind != "count":
            return None
        self._at += 1
        low, comma, high = part[1:-1].replace(" ", "").partition(",")
        at_most = int(high) if high else None if comma else int(low)
        if at_most is not None and at_most < int(low):
            raise self._unfit(f"has a repetition of at least {low} and at most {high}")
        return int(low), at_most

    def _plain(self, text: str) -> str:
        return _ESCAPED.sub(self._unescaped, text)

    def _unescaped(self, escape: re.Match[str]) -> str:
        digits = escape[1] or escape[2]
        character = chr(int(digits, 16)) if digits else _CONTROLS.get(escape[3], escape[3])
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise self._unfit("has a NUL character or half a character by its number")
        return character

    def _class(self, text: str) -> int:
        negated = text.startswith("^")
        found, members = 0, _MEMBER.findall(text[negated:])
        while members:
            first = self._plain(members.pop(0))
            if len(members) > 1 and members[0] == "-":
                members.pop(0)
                last = self._plain(members.pop(0))
                if last < first:
                    raise self._unfit(f"has a range from {first} to {last}, which is before it")
                found |= form_cost.range_of(first, last)
            else:
                found |= characters_of(first)
        return form_cost.all_but(found) if negated else found

    def _take(self, sign: str) -> bool:
        taken = self._at < len(self._tokens) and self._tokens[self._at][:2] == ("sign", sign)
        self._at += taken
        return taken

    def _unfit(self, message: str, suggestion: str = "") -> UnfitForm:
        line = self._tokens[min(self._at, len(self._tokens)) - 1][2] if self._tokens else 0
        return UnfitForm(f"{message}, in the rule {self._name[:64]}" + (f" at line {line}" if line else ""), suggestion)
