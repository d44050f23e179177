"""Forms that an answer may be held to: what is wrong with one, before any engine compiles it.

An engine compiles a form into an automaton over its vocabulary, in a process that all requests share, and asks it before each
token. What would take that minutes or gigabytes, or what engines read differently, is refused here, by what can be computed
from the text alone. Bounds are measured with xgrammar, which vLLM and OpenVINO use.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from generation_svc import form_grammar, form_regex, form_schema
from generation_svc.engine import Feature, StructuredOutput
from generation_svc.form_cost import UnfitForm
from penstock.errors import Violation

CHOICES_MAX: Final = 1000
CHOICE_BYTES_MAX: Final = 1024
CHOICES_BYTES_MAX: Final = 16 * 2**10
_KEPT_MAX: Final = 128
_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")


@lru_cache(_KEPT_MAX)
def faults(form: StructuredOutput) -> tuple[Violation, ...]:
    """What is wrong with a form; nothing where an engine may try it. A flow sends the same one with every request."""
    return tuple(_faults(form))


def _faults(form: StructuredOutput) -> Iterator[Violation]:
    field = f"structured_output.{form.kind}"
    if any(map(_HALF_CHARACTER.search, (form.value, *form.choices))):
        yield Violation(field=field, message="has half a character (a surrogate)", suggestion="send whole characters")
    elif form.kind is Feature.CHOICE:
        yield from _choice_faults(f"{field}.texts", form.choices)
    elif form.kind is Feature.JSON_SCHEMA:
        yield from form_schema.faults(form.value, field)
    elif form.kind in {Feature.REGEX, Feature.GRAMMAR}:
        check = form_regex.cost if form.kind is Feature.REGEX else form_grammar.check
        try:
            check(form.value)
        except UnfitForm as fault:
            yield Violation(field=field, message=fault.message, suggestion=fault.suggestion)


def choice_grammar(choices: tuple[str, ...]) -> str:
    """The grammar of one of these texts, for engines that have no choice of their own."""
    return "root ::= " + " | ".join(f'"{"".join(map(_quoted, text))}"' for text in choices)


def _quoted(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if " " <= character != "\x7f" else f"\\u{ord(character):04x}"


def _choice_faults(field: str, choices: tuple[str, ...]) -> Iterator[Violation]:
    if not 1 <= len(choices) <= CHOICES_MAX:
        yield Violation(field=field, message=f"has {len(choices)} texts, must have 1 to {CHOICES_MAX}")
        return
    for index, text in enumerate(choices):
        if not 1 <= (size := len(text.encode(errors="replace"))) <= CHOICE_BYTES_MAX:
            yield Violation(field=f"{field}[{index}]", message=f"has {size} bytes, must have 1 to {CHOICE_BYTES_MAX}")
        if "\0" in text:
            yield Violation(field=f"{field}[{index}]", message="has a NUL character")
    if (total := sum(len(text.encode(errors="replace")) for text in choices)) > CHOICES_BYTES_MAX:
        yield Violation(field=field, message=f"has {total} bytes in all its texts, at most {CHOICES_BYTES_MAX} are taken")
    if len(set(choices)) < len(choices):
        twice = next(text for index, text in enumerate(choices) if text in choices[:index])
        yield Violation(field=field, message=f"has {twice[:64]!r} twice", suggestion="give each text once")
