"""Forms that an answer may be held to: what is wrong with one, before any engine compiles it.

An engine compiles a form into an automaton over its vocabulary, in a process that all requests share; what would take it
minutes or gigabytes is refused here, by bounds that can be computed from the text alone.
"""

from collections.abc import Iterator
from typing import Final

from generation_svc.engine import Feature, StructuredOutput
from penstock.errors import Violation

SCHEMA_BYTES_MAX: Final = 64 * 2**10
REGEX_BYTES_MAX: Final = 4 * 2**10
GRAMMAR_BYTES_MAX: Final = 64 * 2**10
CHOICES_MAX: Final = 1000
CHOICE_BYTES_MAX: Final = 1024

_BYTES_MAX: Final = {
    Feature.JSON_SCHEMA: SCHEMA_BYTES_MAX,
    Feature.REGEX: REGEX_BYTES_MAX,
    Feature.GRAMMAR: GRAMMAR_BYTES_MAX,
}


def faults(form: StructuredOutput) -> Iterator[Violation]:
    """What is wrong with a form; nothing where an engine may try it."""
    field = f"structured_output.{form.kind}"
    if form.kind is Feature.CHOICE:
        yield from _choice_faults(field, form.choices)
    elif (most := _BYTES_MAX.get(form.kind)) is not None and not 1 <= (size := len(form.value.encode())) <= most:
        yield Violation(field=field, message=f"has {size} bytes, must have 1 to {most}")


def _choice_faults(field: str, choices: tuple[str, ...]) -> Iterator[Violation]:
    if not 1 <= len(choices) <= CHOICES_MAX:
        yield Violation(field=f"{field}.texts", message=f"has {len(choices)} texts, must have 1 to {CHOICES_MAX}")
        return
    for index, text in enumerate(choices):
        if not 1 <= (size := len(text.encode())) <= CHOICE_BYTES_MAX:
            yield Violation(field=f"{field}.texts[{index}]", message=f"has {size} bytes, must have 1 to {CHOICE_BYTES_MAX}")
