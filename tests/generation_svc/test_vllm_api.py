"""What is used of vLLM, held against its sources: the installed version's, and any other's that PENSTOCK_VLLM_SOURCES names.

Read as syntax, not imported: it takes half a minute to import vLLM, and two versions never share an environment.
"""

import ast
import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from generation_svc.vllm_arguments import DECIDED, SETTING_OF
from tests.generation_svc.processes import ROOT, VLLM_PYTHON, vllm_python

OTHERS = [Path(folder) for folder in os.environ.get("PENSTOCK_VLLM_SOURCES", "").split(":") if folder]

IMPORTED = {
    "vllm": {"AsyncEngineArgs", "PoolingParams", "SamplingParams"},
    "vllm.config": {"SpeculativeConfig"},
    "vllm.exceptions": {"VLLMClientError"},
    "vllm.inputs.engine": {"tokens_input"},
    "vllm.lora.request": {"LoRARequest"},
    "vllm.platforms": {"current_platform"},
    "vllm.sampling_params": {"RequestOutputKind", "StructuredOutputsParams"},
    "vllm.usage.usage_lib": {"UsageContext"},
    "vllm.v1.engine.async_llm": {"AsyncLLM"},
    "vllm.v1.engine.exceptions": {"EngineDeadError", "EngineGenerateError"},
    "vllm.v1.metrics.loggers": {"PrometheusStatLogger"},
    "vllm.v1.structured_output.backend_guidance": {"serialize_guidance_grammar"},
    "vllm.v1.structured_output.request": {"get_structured_output_key"},
}
OPTIONAL = {("vllm.exceptions", "VLLMClientError")}  # Since some version after 0.26.

FIELDS = {
    ("engine/arg_utils.py", "EngineArgs"): {*SETTING_OF, *DECIDED} - {"enable_log_requests"},
    ("engine/arg_utils.py", "AsyncEngineArgs"): {"enable_log_requests"},
    ("sampling_params.py", "SamplingParams"): {
        "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty",
        "min_tokens", "max_tokens", "stop", "include_stop_str_in_output", "output_kind", "skip_clone", "logprobs",
        "logprob_token_ids", "structured_outputs",
    },
    ("sampling_params.py", "StructuredOutputsParams"): {"json", "regex", "choice", "grammar", "json_object"},
    ("config/structured_outputs.py", "StructuredOutputsConfig"): {
        "backend", "disable_any_whitespace", "disable_additional_properties",
    },
    ("config/speculative.py", "SpeculativeConfig"): {"method", "model", "num_speculative_tokens"},
    ("lora/request.py", "LoRARequest"): {"lora_name", "lora_int_id", "lora_path"},
    ("pooling_params.py", "PoolingParams"): {"task", "extra_kwargs"},
    ("v1/metrics/stats.py", "SchedulerStats"): {
        "num_waiting_reqs", "num_skipped_waiting_reqs", "kv_cache_usage", "prefix_cache_stats",
    },
    ("v1/metrics/stats.py", "BaseCacheStats"): {"queries", "hits"},
    ("v1/metrics/stats.py", "RequestStateStats"): {"scheduled_ts", "first_token_ts", "last_token_ts"},
    ("outputs.py", "CompletionOutput"): {"text", "token_ids", "logprobs", "finish_reason", "stop_reason"},
    ("logprobs.py", "Logprob"): {"logprob", "rank", "decoded_token"},
}  # fmt: skip

PARAMETERS = {
    ("inputs/engine.py", "tokens_input"): {"prompt_token_ids", "cache_salt"},
    ("v1/engine/async_llm.py", "AsyncLLM.from_engine_args"): {"engine_args", "usage_context", "stat_loggers"},
    ("v1/engine/async_llm.py", "AsyncLLM.generate"): {
        "prompt", "sampling_params", "request_id", "lora_request", "priority",
    },
    ("v1/engine/async_llm.py", "AsyncLLM.encode"): {"prompt", "pooling_params", "request_id"},
    ("v1/engine/async_llm.py", "AsyncLLM.add_lora"): {"lora_request"},
    ("v1/engine/async_llm.py", "AsyncLLM.shutdown"): {"self"},
    ("v1/engine/async_llm.py", "AsyncLLM.errored"): {"self"},
    ("v1/engine/async_llm.py", "AsyncLLM.get_tokenizer"): {"self"},
    ("v1/engine/async_llm.py", "AsyncLLM.get_supported_tasks"): {"self"},
    ("v1/engine/output_processor.py", "OutputProcessor.propagate_error"): {"e"},
    ("v1/engine/output_processor.py", "OutputProcessor.get_num_unfinished_requests"): {"self"},
    ("config/model.py", "ModelConfig.get_diff_sampling_param"): {"self"},
    ("config/model.py", "ModelConfig.get_vocab_size"): {"self"},
    ("config/model.py", "ModelConfig.use_sep_token"): {"self"},
    ("sampling_params.py", "SamplingParams.verify"): {
        "model_config", "speculative_config", "structured_outputs_config", "tokenizer",
    },
    ("v1/structured_output/backend_guidance.py", "serialize_guidance_grammar"): {
        "request_type", "grammar_spec", "disable_any_whitespace", "disable_additional_properties",
    },
    ("v1/structured_output/request.py", "get_structured_output_key"): {"params"},
}  # fmt: skip

ASSIGNED = {
    ("v1/engine/async_llm.py", "AsyncLLM"): {"input_processor", "output_processor", "model_config"},
    ("v1/engine/input_processor.py", "InputProcessor"): {"structured_outputs_config"},
    ("outputs.py", "RequestOutput"): {"outputs", "finished", "metrics", "num_cached_tokens"},
    ("outputs.py", "PoolingRequestOutput"): {"outputs"},
    ("v1/metrics/stats.py", "IterationStats"): {"num_preempted_reqs"},
}

OVERRIDDEN = {"record", "log", "log_engine_initialized", "record_sleep_state", "record_admission_rejection"}


@pytest.fixture(params=["installed", *OTHERS], ids=str)
def source(request: pytest.FixtureRequest) -> Path:
    if request.param != "installed":
        return request.param
    found = list(VLLM_PYTHON.parent.parent.glob("lib/python3*/site-packages/vllm"))
    if not found:
        pytest.skip("vLLM's environment is not there: make vllm")
    return found[0]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def classes(module: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(module) if isinstance(node, ast.ClassDef)}


def functions(body: list[ast.stmt]) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_what_is_imported_of_vllm_is_what_is_listed_here() -> None:
    imports = [node for node in ast.walk(parsed(ROOT / "generation_svc/vllm_api.py")) if isinstance(node, ast.ImportFrom)]
    found = {node.module: {name.name for name in node.names} for node in imports if node.module.split(".")[0] == "vllm"}
    assert found == IMPORTED


def test_every_name_that_is_imported_is_there(source: Path) -> None:
    for module, names in IMPORTED.items():
        path = source.joinpath(*module.split(".")[1:])
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        assert [name for name in names if name not in text and (module, name) not in OPTIONAL] == [], module


@pytest.mark.parametrize(("place", "fields"), FIELDS.items(), ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_every_field_that_is_set_or_read_is_there(source: Path, place: tuple[str, str], fields: set[str]) -> None:
    body = classes(parsed(source / place[0]))[place[1]].body
    assert fields <= {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


@pytest.mark.parametrize(("place", "names"), PARAMETERS.items(), ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_every_function_takes_what_it_is_given(source: Path, place: tuple[str, str], names: set[str]) -> None:
    *owner, name = place[1].split(".")
    module = parsed(source / place[0])
    arguments = functions(classes(module)[owner[0]].body if owner else module.body)[name].args
    assert names <= {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}


@pytest.mark.parametrize(("place", "names"), ASSIGNED.items(), ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_every_attribute_that_is_read_is_assigned_at_birth(source: Path, place: tuple[str, str], names: set[str]) -> None:
    initialise = functions(classes(parsed(source / place[0]))[place[1]].body)["__init__"]
    stored = [node for node in ast.walk(initialise) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    assert names <= {node.attr for node in stored}


def test_all_that_vllm_calls_of_a_stat_logger_is_overridden(source: Path) -> None:
    manager = classes(parsed(source / "v1/metrics/loggers.py"))["StatLoggerManager"]
    loggers = {"stat_logger", "logger", "agg_logger"}
    module_logger = {"warning", "isEnabledFor"}
    called = {
        node.func.attr
        for node in ast.walk(manager)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in loggers
    }
    assert called - module_logger <= OVERRIDDEN


RECORDER = """
from types import SimpleNamespace as Step
from generation_svc.vllm_api import recorder
from generation_svc.vllm_statistics import EngineStatistics
from vllm.v1.metrics.loggers import StatLoggerManager
statistics = EngineStatistics(slots=4)
manager = StatLoggerManager(None, custom_stat_loggers=[recorder(statistics)], enable_default_loggers=False)
manager.log_engine_initialized()
prefix = Step(queries=10, hits=4)
step = Step(num_waiting_reqs=1, num_skipped_waiting_reqs=0, kv_cache_usage=0.5, prefix_cache_stats=prefix)
manager.record(step, Step(num_preempted_reqs=0))
manager.log()
print(len(manager.stat_loggers), statistics.load(3))
"""

SCRIPT = """
import json, sys
from generation_svc import vllm_api, vllm_arguments
from generation_svc.settings import GenerationSettings
from penstock.errors import FailedPrecondition
from vllm import AsyncEngineArgs
installed = vllm_api.installation()
for given in json.load(sys.stdin):
    try:
        AsyncEngineArgs(**vllm_arguments.generating(GenerationSettings(engine="vllm", model="owner/name", **given), installed))
        print("accepted")
    except FailedPrecondition as error:
        print(error.message.replace(chr(10), " "))
"""


def run(script: str, given: str = "") -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VLLM_LOGGING_LEVEL": "ERROR"}
    command = [vllm_python(), "-c", script]
    ran = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.vllm
@pytest.mark.slow
def test_ours_is_the_only_stat_logger_that_vllm_calls_at_each_step() -> None:
    said = run(RECORDER)[-1]
    assert said.startswith("1 Load(running=2, waiting=1, cache_used=0.5, prefix_queried_tokens=10, prefix_hit_tokens=4")


@pytest.mark.vllm
@pytest.mark.slow
def test_the_installed_vllm_takes_our_arguments_and_checks_the_extra_ones() -> None:
    given = [
        {"vllm_cache_dtype": "fp8", "vllm_extra": {"block_size": 32, "compilation_config": {"mode": "NONE"}}},
        {"vllm_extra": {"attention_backend": "FLASH_ATTN"}},
        {"vllm_extra": {"block_size": "thirty"}},
        {"vllm_extra": {"compilation_config": {"level_of_it": 3}}},
        {"vllm_cache_dtype": "fp9"},
        {"vllm_extra": {"blocksize": 32}},
        {"vllm_speculative": {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_maxx": 4}},
    ]
    said = run(SCRIPT, json.dumps(given))[-len(given) :]
    assert said[:2] == ["accepted", "accepted"]
    assert "'block_size' is 'thirty': Input should be a valid integer" in said[2]
    assert "level_of_it: Unexpected keyword argument" in said[3]
    assert "VLLM_CACHE_DTYPE is 'fp9': Input should be 'auto'" in said[4]
    assert "did you mean block_size" in said[5]
    assert "did you mean prompt_lookup_max" in said[6]
