"""The gateway's settings: PENSTOCK_GATEWAY_ and the field's name in capitals."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from gateway.web.hosts import parse_hosts
from penstock.addresses import parse_target
from penstock.settings import ServiceSettings

REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")


def _target(text: str) -> str:
    parse_target(text)
    return text


def _target_or_none(text: str) -> str:
    return _target(text) if text else text


def _redis_url(url: SecretStr) -> SecretStr:
    if url.get_secret_value() and not url.get_secret_value().startswith(REDIS_SCHEMES):
        message = f"not the URL of a Redis: it begins with {', '.join(REDIS_SCHEMES)}"
        raise ValueError(message)
    return url


def _hosts(text: str) -> str:
    parse_hosts(text)
    return text


class GatewaySettings(ServiceSettings):
    """Where flows are kept, where the other services are, and what a run may take."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_GATEWAY_", frozen=True, extra="ignore")

    retrieval_target: str = Field(
        default="dns:///localhost:50051", description="The retrieval service, as gRPC names targets: dns:///host:port."
    )
    generation_target: Annotated[str, AfterValidator(_target)] = Field(
        default="dns:///localhost:50052",
        description="The generation service: dns:///host:port, where the name has an address for each replica (a headless "
        "Service), or the replicas' addresses with commas between them.",
    )
    generation_rerank_target: Annotated[str, AfterValidator(_target_or_none)] = Field(
        default="", description="The replicas of generation whose model reranks, likewise. Empty: those of generation_target."
    )
    generation_embed_target: Annotated[str, AfterValidator(_target_or_none)] = Field(
        default="", description="The replicas of generation whose model embeds, likewise. Empty: those of generation_target."
    )
    generation_load_factor: float = Field(
        default=1.25,
        ge=1,
        le=100,
        description="A prompt goes to the replica that has its beginning cached while that has at most this times the average "
        "load. Larger: more cache hits, and longer waits behind them.",
    )
    generation_tries_max: int = Field(
        default=3, ge=1, le=10, description="Replicas that are tried for an answer that has not begun when one is unavailable."
    )
    generation_report_interval_s: float = Field(
        default=1.0, gt=0, le=60, description="Time between two questions to each of several replicas for what it works on."
    )
    generation_links: bool = Field(
        default=False,
        description="Whether generation is called over a link where its replica offers one: a connection to its HTTP port with "
        "the messages of gRPC, for a third of grpc.aio's CPU. Else, and wherever there is none, it is called over gRPC.",
    )
    backend_api_key: SecretStr = Field(
        default=SecretStr(""), description="API key that is shown to the other services. Empty: none."
    )
    retrieval_timeout_s: float = Field(default=10.0, gt=0, le=600, description="Longest wait for one search.")
    generation_timeout_s: float = Field(default=240.0, gt=0, le=3600, description="Longest wait for an answer of a model.")
    run_deadline_s: float = Field(default=300.0, gt=0, le=3600, description="Longest run, whatever its caller allows.")
    run_model_calls_max: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Most answers, embeddings and rerankings that one run may ask for. A flow's own budget may be lower.",
    )
    run_tokens_max: int = Field(
        default=2_000_000, ge=1, le=2**31 - 1, description="Most tokens of prompts and answers of one run, likewise."
    )
    run_retrievals_max: int = Field(default=1000, ge=1, le=100_000, description="Most searches of one run, likewise.")
    data_dir: Path = Field(
        default=Path(".penstock/gateway"), description="Folder of the embedded database. Made where it is missing."
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL of the database of flows. Empty: SQLite in data_dir, for one gateway process."
    )
    flows_dir: Path | None = Field(
        default=None, description="Folder whose NAME.json files are kept as flows at start, replacing those of the same name."
    )
    variables_dir: Path | None = Field(
        default=None,
        description="Folder whose files are variables that flows may read, by the files' names, such as a mounted secret. They "
        "go before PENSTOCK_VARIABLE_NAME of the environment.",
    )
    flow_cache_max: int = Field(default=256, ge=1, le=100_000, description="Compiled flows held in memory.")
    flow_refresh_s: float = Field(
        default=1.0, ge=0, le=3600, description="Longest time for which a flow that another replica replaced is still served."
    )
    stream_buffer_max: int = Field(
        default=64, ge=1, le=100_000, description="Events that wait for a slow reader of a stream before its run waits too."
    )
    sessions_url: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        default=SecretStr(""),
        description="URL of the Redis that keeps conversations, for all gateways that name it: redis://host:6379/0. Empty: "
        "each gateway process keeps its own, in memory.",
    )
    sessions_expiry_s: float = Field(
        default=86_400.0, gt=0, le=366 * 86_400, description="Time for which a conversation is kept after its last message."
    )
    sessions_messages_max: int = Field(
        default=200, ge=1, le=10_000, description="Messages of a conversation that are kept: the newest."
    )
    sessions_timeout_s: float = Field(
        default=2.0, gt=0, le=60, description="Longest wait for the Redis that keeps conversations."
    )
    sql_connections: SecretStr = Field(
        default=SecretStr(""),
        description='Databases that sql nodes may read: a JSON object of names and URLs, such as {"orders": '
        '"postgresql+asyncpg://reader:PASSWORD@HOST/DATABASE"}. Give the role SELECT on what flows may see, and no more.',
    )
    sql_connections_max: int = Field(default=4, ge=1, le=1000, description="Connections to each of these databases at a time.")
    sql_timeout_s: float = Field(default=10.0, gt=0, le=600, description="Longest query of a sql node.")
    http_hosts: Annotated[str, AfterValidator(_hosts)] = Field(
        default="",
        description="Hosts that http nodes may reach, with commas between them: api.example.com, *.example.com, "
        "http://intranet.example.com:8080. Without http:// it is https. A ! at the end lets the host have a private address.",
    )
    http_timeout_s: float = Field(default=10.0, gt=0, le=600, description="Longest wait for an answer to an http node.")
    tool_answer_bytes_max: int = Field(
        default=2**20, ge=1024, le=64 * 2**20, description="Largest answer to a sql or an http node."
    )
    mcp_origins: str = Field(
        default="",
        description="Origins whose web pages may call tools at /mcp, with commas between: https://chat.example.com. "
        "Programs that are no pages need none. Empty: no page may.",
    )
    background_runs_max: int = Field(default=16, ge=1, le=10_000, description="Runs in the background at the same time.")
    background_queue_max: int = Field(
        default=256,
        ge=0,
        le=100_000,
        description="Runs in the background that wait for their turn; beyond it they are refused.",
    )
    background_results_max: int = Field(
        default=1000, ge=1, le=100_000, description="Results of runs in the background that are kept, the newest."
    )
    background_expiry_s: float = Field(
        default=3600.0, gt=0, le=7 * 86_400, description="Time for which the result of a run in the background is kept."
    )
