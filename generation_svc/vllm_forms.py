"""Forms of answers as vLLM takes them, checked once for each form in a thread, because a check takes up to seconds.

vLLM compiles a form in its own process, where a failure ends the one request; what can be refused is refused here.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from generation_svc import vllm_api
from generation_svc.engine import Feature, StructuredOutput
from generation_svc.vllm_form_matcher import FormMatchers, holds
from penstock.errors import InvalidArgument

_KEPT_MAX: Final = 128
"""Forms that are known to be right. A RAG service has a few, of up to 64 KiB each."""
_THREADS: Final = 2
"""A form that takes seconds must not hold up the next."""

_FIELD_OF: Final = {Feature.JSON_SCHEMA: "json", Feature.REGEX: "regex", Feature.GRAMMAR: "grammar"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedForm:
    """A form that vLLM takes. `matcher` is None where answers cannot be read again."""

    field: str
    parameters: Any
    """vLLM's StructuredOutputsParams."""
    matcher: Any


class Forms:
    """The checked forms of one AsyncLLM."""

    def __init__(self, llm: Any) -> None:
        self._config = vllm_api.take_over_forms(llm)
        self._model_config = llm.model_config
        self._tokenizer = llm.get_tokenizer()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="forms")
        self._kept: OrderedDict[StructuredOutput, CheckedForm] = OrderedDict()

    async def checked(self, form: StructuredOutput) -> CheckedForm:
        """Raises InvalidArgument for a form that is none, or that costs too much."""
        if form in self._kept:
            self._kept.move_to_end(form)
            return self._kept[form]
        checked: CheckedForm = await self._in_thread(self._check, form)
        self._kept[form] = checked
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return checked

    async def check_answer(self, form: CheckedForm, token_ids: Sequence[int]) -> None:
        """Raises InvalidArgument when an answer that has ended does not have its form: vLLM gave up holding it to it."""
        if form.matcher is not None and not await self._in_thread(holds, form.matcher, token_ids):
            message = f"{form.field}: vLLM could not hold the answer to this form to its end; make it smaller or simpler"
            raise InvalidArgument(message, metadata={"field": form.field})

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _check(self, form: StructuredOutput) -> CheckedForm:
        field = f"structured_output.{form.kind}"
        try:
            parameters = vllm_api.StructuredOutputsParams(**_asked(form))
            sampling = vllm_api.SamplingParams(structured_outputs=parameters)
            sampling.verify(self._model_config, None, self._config, self._tokenizer)
            grammar = vllm_api.guidance_grammar(parameters, self._config)
            matcher = self._matchers.matcher(grammar) if grammar else None
        except vllm_api.PARAMETER_FAULTS as error:
            raise InvalidArgument(f"{field}: {error}", metadata={"field": field}) from error
        return CheckedForm(field=field, parameters=parameters, matcher=matcher)

    @cached_property
    def _matchers(self) -> FormMatchers:
        return FormMatchers(self._tokenizer, vocabulary_size=self._model_config.get_vocab_size())


def _asked(form: StructuredOutput) -> dict[str, Any]:
    if form.kind is Feature.CHOICE:
        return {"choice": list(form.choices)}
    if form.kind is Feature.JSON_OBJECT:
        return {"json_object": True}
    return {_FIELD_OF[form.kind]: form.value}
