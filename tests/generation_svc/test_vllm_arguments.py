import dataclasses
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from generation_svc import vllm_arguments
from generation_svc.settings import GenerationSettings
from generation_svc.vllm_arguments import DECIDED, SETTING_OF, Installation
from generation_svc.vllm_settings import VllmSettings
from penstock.errors import FailedPrecondition


def whole_number(value: object) -> object:
    if not isinstance(value, int):
        message = "Input should be a valid integer"
        raise ValueError(message)  # noqa: TRY004  # As vllm_api does.
    return value


GPU = Installation(
    arguments={
        **dict.fromkeys((*SETTING_OF, *DECIDED, "compilation_config"), lambda value: value),
        "block_size": whole_number,
    },
    speculative_keys=frozenset({"method", "model", "num_speculative_tokens", "prompt_lookup_max"}),
    device="cuda",
)
CPU = dataclasses.replace(GPU, device="cpu")


def arguments(installed: Installation = GPU, **settings: object):
    return vllm_arguments.generating(GenerationSettings(engine="vllm", model="owner/name", **settings), installed)


def refusal(installed: Installation = GPU, **settings: object) -> str:
    with pytest.raises(FailedPrecondition) as refused:
        arguments(installed, **settings)
    return refused.value.message


def adapter(folder: Path, rank: object) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(folder)


def test_the_defaults_are_those_for_rag() -> None:
    made = arguments()
    assert made["enable_prefix_caching"]
    assert made["enable_chunked_prefill"]
    assert made["scheduling_policy"] == "priority"
    assert made["max_num_seqs"] == 32
    assert made["structured_outputs_config"] == {"backend": "guidance", "disable_any_whitespace": False}
    assert not {"max_num_batched_tokens", "quantization", "speculative_config"} & set(made), "these are vLLM's to choose"


def test_every_setting_of_vllm_reaches_it() -> None:
    own = {"vllm_extra", "vllm_warm_up", "vllm_structured_whitespace"}
    assert {name for name in VllmSettings.model_fields if name not in own} <= set(SETTING_OF.values())


def test_what_is_set_is_passed_by_vllms_name_and_unit() -> None:
    made = arguments(
        running_max=64, context_window=4096, vllm_batched_tokens_max=8192, vllm_cache_gb=1.5, vllm_quantization="fp8",
        vllm_cache_dtype="fp8", vllm_tensor_parallel=2, vllm_pipeline_parallel=3, vllm_data_parallel=4, vllm_scheduling="fcfs",
    )  # fmt: skip
    assert made["kv_cache_memory_bytes"] == 3 * 2**29
    assert (made["max_num_seqs"], made["max_model_len"], made["max_num_batched_tokens"]) == (64, 4096, 8192)
    assert (made["tensor_parallel_size"], made["pipeline_parallel_size"], made["data_parallel_size"]) == (2, 3, 4)
    assert (made["quantization"], made["kv_cache_dtype"], made["scheduling_policy"]) == ("fp8", "fp8", "fcfs")


def test_vllms_own_logs_and_counters_stay_off() -> None:
    assert (arguments()["enable_log_requests"], arguments()["disable_log_stats"]) == (False, True)


def test_an_extra_argument_is_passed_on() -> None:
    assert arguments(vllm_extra={"block_size": 32})["block_size"] == 32


def test_an_unknown_extra_argument_is_refused_with_what_may_have_been_meant() -> None:
    assert "did you mean block_size" in refusal(vllm_extra={"blocksize": 32})


def test_an_extra_argument_of_a_wrong_type_is_refused_by_name() -> None:
    assert "'block_size' is 'big': Input should be a valid integer" in refusal(vllm_extra={"block_size": "big"})


@pytest.mark.parametrize(
    ("name", "setting"),
    [("max_num_seqs", "RUNNING_MAX"), ("gpu_memory_utilization", "VLLM_GPU_MEMORY_FRACTION"), ("runner", "ENGINE")],
)
def test_an_extra_argument_that_a_setting_decides_is_refused_with_the_setting(name: str, setting: str) -> None:
    assert "set that" in refusal(vllm_extra={name: 1})
    assert f"PENSTOCK_GENERATION_{setting};" in refusal(vllm_extra={name: 1})


def test_an_extra_argument_that_the_service_decides_is_refused() -> None:
    assert "is decided by this service" in refusal(vllm_extra={"disable_log_stats": False})


def test_all_faults_are_told_at_once() -> None:
    message = refusal(CPU, vllm_data_parallel=2, vllm_extra={"blocksize": 1}, vllm_speculative={"methd": "ngram"})
    assert all(part in message for part in ("VLLM_DATA_PARALLEL", "blocksize", "did you mean method", 'neither "method"'))


def test_data_parallel_on_a_cpu_is_refused_and_on_gpus_is_not() -> None:
    assert "start more replicas instead" in refusal(CPU, vllm_data_parallel=2)
    assert arguments(GPU, vllm_data_parallel=2)["data_parallel_size"] == 2


def test_a_step_that_is_smaller_than_what_runs_is_refused() -> None:
    assert "each running request needs a token" in refusal(vllm_batched_tokens_max=16)
    assert "a step takes whole prompts" in refusal(vllm_batched_tokens_max=512, vllm_chunked_prefill=False, context_window=4096)


@pytest.mark.parametrize("tokens", [0, 65, "4", None])
def test_absurd_speculation_is_refused(tokens: object) -> None:
    assert "must be 1 to 64" in refusal(vllm_speculative={"method": "ngram", "num_speculative_tokens": tokens})


def test_adapters_make_room_for_themselves(tmp_path: Path) -> None:
    paths = {"small": adapter(tmp_path / "a", 8), "large": adapter(tmp_path / "b", 20)}
    made = arguments(vllm_adapters=paths)
    assert (made["enable_lora"], made["max_loras"], made["max_lora_rank"], made["max_cpu_loras"]) == (True, 2, 32, 2)
    assert arguments()["enable_lora"] is False


def test_an_adapter_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    assert "'contracts'" in refusal(vllm_adapters={"contracts": str(tmp_path / "nothing")})
    assert "adapter_config.json" in refusal(vllm_adapters={"contracts": adapter(tmp_path / "odd", None)})


def test_an_adapter_over_the_rank_that_is_set_is_refused(tmp_path: Path) -> None:
    assert "has a rank of 64" in refusal(vllm_adapters={"x": adapter(tmp_path / "x", 64)}, vllm_adapter_rank_max=16)
    assert "name the adapters" in refusal(vllm_adapter_rank_max=16)


def test_a_pooling_model_has_no_cache_to_set_and_no_adapters() -> None:
    settings = GenerationSettings(engine="vllm-pooling", model="owner/name")
    made = vllm_arguments.pooling(settings, CPU)
    assert made["runner"] == "pooling"
    assert "enable_prefix_caching" not in made
    with pytest.raises(FailedPrecondition, match="VLLM_SPECULATIVE"):
        vllm_arguments.pooling(settings.model_copy(update={"vllm_speculative": {"method": "ngram"}}), CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vllm_dtype", "float8"),
        ("vllm_gpu_memory_fraction", 1.1),
        ("vllm_tensor_parallel", 0),
        ("vllm_scheduling", "random"),
        ("vllm_cache_dtype", "fp8; rm"),
        ("vllm_structured_backend", "auto"),
        ("vllm_adapters", '{"a/b": "/x"}'),
        ("vllm_adapters", {str(number): "/x" for number in range(65)}),
        ("vllm_extra", "[1]"),
        ("vllm_extra", "{not json"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        GenerationSettings(**{name: value})


def test_maps_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_GENERATION_VLLM_EXTRA", '{"block_size": 32}')
    monkeypatch.setenv("PENSTOCK_GENERATION_VLLM_ADAPTERS", '{"contracts": "/models/contracts"}')
    monkeypatch.setenv("PENSTOCK_GENERATION_VLLM_SPECULATIVE", "")
    settings = GenerationSettings()
    assert settings.vllm_extra == {"block_size": 32}
    assert settings.vllm_adapters == {"contracts": "/models/contracts"}
    assert settings.vllm_speculative == {}
