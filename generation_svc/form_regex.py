r"""Regular expressions that an answer may be held to: one dialect for every engine, and what an expression costs.

The dialect is the part that Python, JavaScript, xgrammar and llguidance understand alike. The backends read the rest each in
its own way, some without a word: xgrammar takes \A for the letter A and [\^a] for a negated class. It is refused by name.
The whole answer is matched, so ^ and $ are allowed at the ends and mean nothing.
"""

from typing import Final

from generation_svc import form_cost
from generation_svc.form_cost import Cost, UnfitForm, characters_of

BYTES_MAX: Final = 4 * 2**10
DEPTH_MAX: Final = 20
_COUNT_DIGITS_MAX: Final = 6
_DIGITS: Final = characters_of("0123456789")
_WORD: Final = _DIGITS | form_cost.range_of("a", "z") | form_cost.range_of("A", "Z") | characters_of("_")
_SPACE: Final = characters_of(" \t\n\r\f\v\u00a0")
# Whether \w and \d mean more than ASCII differs: what is not ASCII is counted in all of them.
_CLASSES: Final = {
    "\\d": _DIGITS | characters_of("\u0660"), "\\w": _WORD | characters_of("\u00e4"), "\\s": _SPACE,
    "\\D": form_cost.all_but(_DIGITS), "\\W": form_cost.all_but(_WORD), "\\S": form_cost.all_but(_SPACE),
}  # fmt: skip
_CONTROLS: Final = dict(zip("tnrfv", "\t\n\r\f\v", strict=True))
_HEXADECIMAL: Final = {"x": 2, "u": 4}
_HEXADECIMAL_DIGITS: Final = frozenset("0123456789abcdefABCDEF")
_REPETITIONS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_SPECIAL: Final = frozenset("*+?{")
_NO_SUCH_ESCAPE: Final = {
    "b": "a word boundary", "B": "a word boundary", "A": "an anchor", "Z": "an anchor", "z": "an anchor", "G": "an anchor",
    "p": "a Unicode property", "P": "a Unicode property", "k": "a reference back",
}  # fmt: skip


def cost(pattern: str) -> Cost:
    """What an expression costs. Raises UnfitForm for what is no expression of the dialect, or costs too much."""
    if not 1 <= (size := len(pattern.encode(errors="replace"))) <= BYTES_MAX:
        raise UnfitForm(f"has {size} bytes, must have 1 to {BYTES_MAX}")
    return form_cost.check(_Parser(pattern).whole())


class _Parser:
    """Reads an expression from left to right. Groups are read by recursion, which DEPTH_MAX bounds."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0

    def whole(self) -> Cost:
        self._take("^")
        found = self._alternatives()
        if self._at < len(self._text):
            raise self._unfit("has a ) without a (", "write \\) for the character")
        return found

    def _alternatives(self) -> Cost:
        start = self._at
        found = self._sequence()
        while self._at > start or self._peek() == "|":
            is_empty, start = self._at == start, self._at + 1
            if not self._take("|"):
                break
            found = form_cost.either(found, self._sequence())
            if is_empty or self._at == start:
                raise self._unfit("has a | with nothing on one side, which not every engine takes", "write (a|b)? for (a|b|)")
        return found

    def _sequence(self) -> Cost:
        found = Cost()
        while (character := self._peek()) and character not in "|)":
            if character == "$" and self._at == len(self._text) - 1:
                self._at += 1
                break
            found = form_cost.in_order(found, self._quantified(self._atom()))
        return found

    def _atom(self) -> Cost:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return form_cost.one_of(self._class())
        if character == "\\":
            meant = self._escape()
            self._refuse_nul(meant)
            return form_cost.one_of(_CLASSES[meant] if len(meant) == 2 else characters_of(meant))
        if character == ".":
            return form_cost.one_of(form_cost.ANY)
        if character in "^$":
            raise self._unfit(
                f"has a {character} inside", "the whole answer is matched anyway: leave it out, or write \\" + character
            )
        if character in _SPECIAL:
            raise self._unfit(f"has a {character} with nothing to repeat", f"write \\{character} for the character")
        self._refuse_nul(character)
        return form_cost.literal(character)

    def _group(self) -> Cost:
        if self._take("?") and not self._take(":"):
            raise self._unfit("has a group that looks around, has a name or sets a flag", "use ( ) or (?: )")
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._unfit(f"has groups deeper than {DEPTH_MAX} in one another")
        found = self._alternatives()
        if not self._take(")"):
            raise self._unfit("has a ( without a )", "write \\( for the character")
        self._depth -= 1
        return found

    def _quantified(self, part: Cost) -> Cost:
        character = self._peek()
        if character not in _SPECIAL or not character:
            return part
        self._at += 1
        bounds = self._counts() if character == "{" else _REPETITIONS[character]
        self._take("?")  # Whether it is greedy makes no difference to what is matched.
        if (again := self._peek()) and again in _SPECIAL:
            raise self._unfit(f"has a {again} after a repetition", "put the repetition into ( )")
        return form_cost.repeated(part, *bounds)

    def _counts(self) -> tuple[int, int | None]:
        at_least = self._count()
        at_most: int | None = at_least
        if self._take(","):
            at_most = None if self._peek() == "}" else self._count()
        if not self._take("}"):
            raise self._unfit("has a { that is no repetition", "write {2}, {2,} or {2,5}, or \\{ for the character")
        if at_most is not None and at_most < at_least:
            raise self._unfit(f"has a repetition of at least {at_least} and at most {at_most}")
        return at_least, at_most

    def _count(self) -> int:
        start = self._at
        while (digit := self._peek()) and digit in "0123456789":
            self._at += 1
        digits = self._text[start : self._at]
        if not digits:
            raise self._unfit("has a { that is no repetition", "write {2}, {2,} or {0,5}, or \\{ for the character")
        if len(digits) > _COUNT_DIGITS_MAX:
            raise self._unfit(f"has a count of {len(digits)} digits, at most {_COUNT_DIGITS_MAX} are taken")
        return int(digits)

    def _class(self) -> int:
        """The set of characters that a class stands for."""
        negated = self._take("^")
        start, found = self._at, 0
        while not self._take("]"):
            first = self._member(is_first=self._at == start and not negated)
            if len(first) == 2:
                found |= _CLASSES[first]
                self._refuse_dash_after_class()
            elif self._peek() == "-" and self._peek(1) not in {"]", ""}:
                self._at += 1
                found |= form_cost.range_of(first, self._end_of_range(first))
            else:
                found |= characters_of(first)
        if self._at - 1 == start:
            raise self._unfit("has a class [ ] with nothing in it", "write \\] for the character")
        return form_cost.all_but(found) if negated else found

    def _member(self, *, is_first: bool) -> str:
        character = self._next("has a [ without a ]")
        if character == "[":
            raise self._unfit("has a [ in a class", "write \\[ for the character; classes like [:alpha:] are not known")
        if character in "\r\n":
            raise self._unfit("has a line end in a class", "write \\n or \\r")
        self._refuse_nul(character)
        if character != "\\":
            return character
        meant = self._escape()
        if is_first and meant == "^":
            raise self._unfit("has \\^ first in a class, which engines take for a negation", "put it behind another character")
        return meant

    def _end_of_range(self, first: str) -> str:
        last = self._member(is_first=False)
        if len(last) == 2:
            raise self._unfit(f"has a range from {first} to the class {last}", "write \\- for the character")
        if last < first:
            raise self._unfit(f"has a range from {first} to {last}, which is before it")
        return last

    def _refuse_dash_after_class(self) -> None:
        if self._peek() == "-" and self._peek(1) != "]":
            raise self._unfit("has a - behind a class like \\w", "write \\- for the character")

    def _escape(self) -> str:
        r"""The character that is meant, or a class such as \d as two characters."""
        character = self._next("ends in a \\")
        if "\\" + character in _CLASSES:
            return "\\" + character
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character in _HEXADECIMAL:
            return self._hexadecimal(_HEXADECIMAL[character])
        if character.isdigit():
            raise self._unfit(
                "has a reference back to a group, or a character by its octal number", "write \\x0a for a character"
            )
        if character.isalnum() or not character.isascii() or character in "\0\n\r":
            what = _NO_SUCH_ESCAPE.get(character, "not known to every engine")
            raise self._unfit(f"has \\{character}, which is {what}", "leave it out")
        return character

    def _hexadecimal(self, digits: int) -> str:
        number = self._text[self._at : self._at + digits]
        if len(number) < digits or not _HEXADECIMAL_DIGITS.issuperset(number):
            raise self._unfit(f"has a character's number without its {digits} digits")
        self._at += digits
        if digits == 2 and (further := self._peek()) and further in _HEXADECIMAL_DIGITS:
            raise self._unfit(
                f"has \\x{number} before {further}, which xgrammar takes for a part of the number", f"write \\u00{number}"
            )
        character = chr(int(number, 16))
        if "\ud800" <= character <= "\udfff":
            raise self._unfit("has half a character by its number", "write the character itself")
        return character

    def _refuse_nul(self, character: str) -> None:
        if character == "\0":
            raise self._unfit("has a NUL character")

    def _peek(self, ahead: int = 0) -> str:
        return self._text[self._at + ahead : self._at + ahead + 1]

    def _next(self, at_end: str = "ends too early") -> str:
        if not (character := self._peek()):
            raise self._unfit(at_end)
        self._at += 1
        return character

    def _take(self, character: str) -> bool:
        taken = self._peek() == character
        self._at += taken
        return taken

    def _unfit(self, message: str, suggestion: str = "") -> UnfitForm:
        return UnfitForm(f"{message}, at character {self._at}", suggestion)
