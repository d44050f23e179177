"""Llguidance, with which vLLM holds answers to forms, in this process too: the only module that imports it.

It bounds what a form may cost. Past a bound vLLM lets the answer end where it is, as though it were complete, and up to the
bound a step may take seconds, in which every answer stands still. So the first step is tried here, and a finished answer is
read again.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import llguidance
import llguidance.hf
import llguidance.numpy

STEP_CPU_S_MAX: Final = 0.5
"""CPU time for a form's first step. Ordinary forms take milliseconds."""


class FormMatchers:
    """Makes matchers for one tokenizer, whose tables take most of a second to make."""

    def __init__(self, tokenizer: Any, *, vocabulary_size: int) -> None:
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, max(vocabulary_size, len(tokenizer)))

    def matcher(self, grammar: str) -> Any:
        """A matcher at its beginning. Raises ValueError for a grammar that vLLM could not follow, or only slowly."""
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        began = time.thread_time()
        probe = matcher.deep_copy()
        if not probe.get_error():
            mask = llguidance.numpy.allocate_token_bitmask(1, self._tokenizer.vocab_size)
            llguidance.numpy.fill_next_token_bitmask(probe, mask, 0)
        if error := probe.get_error():
            raise ValueError(error.splitlines()[0])
        if (took := time.thread_time() - began) > STEP_CPU_S_MAX:
            message = f"its first step takes {took:.1f} s, at most {STEP_CPU_S_MAX} s is taken; make it smaller or simpler"
            raise ValueError(message)
        return matcher


def holds(matcher: Any, token_ids: Sequence[int]) -> bool:
    """Whether these tokens are a whole text of the form. The last may be a token that only ends the answer."""
    reading = matcher.deep_copy()
    if not reading.consume_tokens(list(token_ids[:-1])):
        return False
    return bool(reading.is_accepting() or (reading.consume_tokens(list(token_ids[-1:])) and reading.is_accepting()))
