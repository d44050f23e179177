"""Forms of answers as vLLM takes them, checked once for each form in a thread, because a check takes up to a third of a second.

vLLM compiles a form in its own process, and what fails there ends the one request; what can be refused is refused here.
"""

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from generation_svc import vllm_api
from generation_svc.engine import Feature, StructuredOutput
from penstock.errors import InvalidArgument

_KEPT_MAX: Final = 128
"""Forms that are known to be right. A RAG service has a few, of up to 64 KiB each."""

_FIELD_OF: Final = {Feature.JSON_SCHEMA: "json", Feature.REGEX: "regex", Feature.GRAMMAR: "grammar"}


class Forms:
    """The checked forms of one AsyncLLM."""

    def __init__(self, llm: Any) -> None:
        self._config = vllm_api.take_over_forms(llm)
        self._model_config = llm.model_config
        self._tokenizer = llm.get_tokenizer()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forms")
        self._kept: OrderedDict[StructuredOutput, Any] = OrderedDict()

    async def checked(self, form: StructuredOutput) -> Any:
        """The form as vLLM's StructuredOutputsParams. Raises InvalidArgument for a form that is none."""
        if form in self._kept:
            self._kept.move_to_end(form)
            return self._kept[form]
        loop = asyncio.get_running_loop()
        parameters = await loop.run_in_executor(self._thread, self._check, form)
        self._kept[form] = parameters
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return parameters

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _check(self, form: StructuredOutput) -> Any:
        try:
            parameters = vllm_api.StructuredOutputsParams(**_asked(form))
            sampling = vllm_api.SamplingParams(structured_outputs=parameters)
            sampling.verify(self._model_config, None, self._config, self._tokenizer)
        except vllm_api.PARAMETER_FAULTS as error:
            field = f"structured_output.{form.kind}"
            raise InvalidArgument(f"{field}: {error}", metadata={"field": field}) from error
        return parameters


def _asked(form: StructuredOutput) -> dict[str, Any]:
    if form.kind is Feature.CHOICE:
        return {"choice": list(form.choices)}
    if form.kind is Feature.JSON_OBJECT:
        return {"json_object": True}
    return {_FIELD_OF[form.kind]: form.value}
