"""All that this service takes of vLLM, in the only module that imports it. Where supported versions differ is said here.

vLLM publishes no types; what is Any here is described where it is used.
"""

import dataclasses
import signal
from collections.abc import Callable
from enum import Enum
from multiprocessing import resource_tracker
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from vllm import AsyncEngineArgs, PoolingParams, SamplingParams
from vllm.config import SpeculativeConfig
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.structured_output.backend_guidance import serialize_guidance_grammar
from vllm.v1.structured_output.request import get_structured_output_key

from generation_svc.vllm_arguments import Installation
from generation_svc.vllm_statistics import EngineStatistics

try:
    from vllm.exceptions import VLLMClientError
except ImportError:  # 0.26 says ValueError.
    VLLMClientError = ValueError

__all__ = [
    "PARAMETER_FAULTS", "EngineDeadError", "EngineGenerateError", "LoRARequest", "PoolingParams", "RequestOutputKind",
    "SamplingParams", "StructuredOutputsParams", "VLLMClientError", "guidance_grammar", "installation", "load",
    "take_over_forms", "tokens_input",
]  # fmt: skip

PARAMETER_FAULTS: Final = (VLLMClientError, ValueError, RecursionError)
"""What vLLM's parameters raise when they are made or checked; the last for JSON that is nested too deep for Python."""


def installation() -> Installation:
    """What this vLLM takes."""
    return Installation(
        arguments={field.name: _typing(field.type) for field in dataclasses.fields(AsyncEngineArgs)},
        speculative_keys=frozenset(field.name for field in dataclasses.fields(SpeculativeConfig)),
        device=current_platform.device_type,
    )


def load(arguments: dict[str, Any], statistics: EngineStatistics) -> Any:
    """Loads the model, which takes tens of seconds, and gives an AsyncLLM. Blocks; call it in a thread."""
    # Ctrl-C goes to the whole group, and vLLM's processes would leave at once, in the middle of the answers for which the
    # service still waits. They inherit what this thread blocks, but Python's resource tracker unblocks it when it starts.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        # vLLM's defaults depend on who uses it; with none said, its steps would be a quarter as large as its server's.
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(**arguments), usage_context=UsageContext.OPENAI_API_SERVER, stat_loggers=[recorder(statistics)]
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_over_forms(llm: Any) -> Any:
    """Gives vLLM's configuration of structured output, and makes AsyncLLM leave their checks to us.

    It would make them on the event loop, for as long as a third of a second, in which every other stream stands still.
    """
    config = llm.input_processor.structured_outputs_config
    llm.input_processor.structured_outputs_config = None
    return config


def guidance_grammar(parameters: Any, config: Any) -> str:
    """The grammar that vLLM's guidance backend makes of StructuredOutputsParams; empty where another backend is set."""
    if config.backend != "guidance":
        return ""
    kind, specification = get_structured_output_key(parameters)
    return str(
        serialize_guidance_grammar(kind, specification, config.disable_any_whitespace, config.disable_additional_properties)
    )


def recorder(statistics: EngineStatistics) -> type[PrometheusStatLogger]:
    """A stat logger, which vLLM makes itself.

    It stands in for vLLM's own Prometheus logger, whose dozens of histograms would otherwise be recorded on our event loop at
    each step, whatever disable_log_stats says: only a class derived from it keeps it away.
    """

    class Recorder(PrometheusStatLogger):  # type: ignore[misc]  # vLLM has no types.
        def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None:  # noqa: ARG002  # The base's is not wanted.
            self.engine_indexes = engine_indexes

        def record(self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0) -> None:  # noqa: ARG002
            statistics.record(scheduler_stats, iteration_stats, engine_idx)

        def log(self) -> None: ...

        def log_engine_initialized(self) -> None: ...

        def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None: ...

        def record_admission_rejection(self, reason: str) -> None: ...

    return Recorder


def _typing(annotation: Any) -> Callable[[Any], Any]:
    """Gives a value the type of an argument, by pydantic as vLLM's own configuration does. Raises ValueError."""
    members = _members(annotation)
    try:
        adapter = None if isinstance(annotation, str) else TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        adapter = None

    def typed(value: Any) -> Any:
        if isinstance(value, str) and value in members:
            return members[value]
        if adapter is None:
            return value  # A type that only vLLM can check, when it starts.
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError("; ".join(_fault(fault) for fault in error.errors())) from error

    return typed


def _members(annotation: Any) -> dict[str, Any]:
    """The enumerators that an argument takes, by their names, as vLLM's command line spells them."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, Enum)]
    return {name: member for kind in kinds for name, member in kind.__members__.items()}


def _fault(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])
