"""Settings that every service has. Built once in a service's `__main__`, handed down as values, never read elsewhere.

Each field is an environment variable: the service's prefix and the field's name in capitals, such as
PENSTOCK_GATEWAY_GRPC_ADDRESS. Numbers carry their unit and their bounds. OpenTelemetry keeps its own OTEL_* names.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Where a service listens, what it accepts, and how it leaves."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    grpc_address: str = Field(default="127.0.0.1:0", description="Where gRPC listens. Port 0: any free one.")
    http_address: str = Field(default="127.0.0.1:0", description="Where HTTP listens. Port 0: any free one. Empty: no HTTP.")
    address_file: Path | None = Field(
        default=None, description="File to which the bound addresses are written as JSON once the service is ready."
    )
    workers: int = Field(
        default=1, ge=1, le=256, description="Processes that serve together on the same two ports (Linux). 1: this one alone."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of the API keys that callers must show (penstock keys new makes them). Read again when it changes "
        "and on SIGHUP. None: no key is asked for, and everybody may do everything.",
    )
    metrics_page: bool = Field(default=True, description="Whether HTTP answers GET /metrics, for Prometheus, to everybody.")
    concurrency_max: int = Field(
        default=512, ge=1, le=100_000, description="Calls in flight; beyond it callers get OVERLOADED at once."
    )
    message_bytes_max: int = Field(
        default=16 * 2**20, ge=1024, le=2**30, description="Largest request; beyond it callers get MESSAGE_TOO_LARGE."
    )
    deadline_s: float = Field(
        default=300.0, gt=0, le=3600, description="Time for a call whose caller gave none, and the most that one may ask for."
    )
    drain_grace_s: float = Field(
        default=30.0, ge=0, le=3600, description="Time for calls in flight to finish after SIGTERM or Ctrl-C."
    )
    connection_age_max_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="Age at which a connection is closed, so that clients find new replicas.",
    )
    parent_pid: int = Field(
        default=0,
        ge=0,
        le=2**22,  # Linux's own bound.
        description="Process that started this one: when it dies, kill -9 included, drain and leave (Linux). 0: none.",
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severity that is logged.")
    log_format: str = Field(default="json", pattern="^(json|text)$", description="json for machines, text for people.")
