"""What the deployment's files are held against: the services' real settings classes, and the tools that read such files."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from generation_svc.settings import GenerationSettings
from penstock.settings import ServiceSettings
from retrieval_svc.settings import RetrievalSettings

SETTINGS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "retrieval": RetrievalSettings,
    "generation": GenerationSettings,
}

# Not ours, but read by what we run on: OpenTelemetry, the model hub, the engines.
FOREIGN = ("OTEL_", "HF_", "OMP_NUM_THREADS")


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def settings_of() -> Callable[[str, Mapping[str, str]], ServiceSettings]:
    """Builds a service's settings from an environment, as its process would; a name that is no field of it is an error."""

    def build(service: str, environment: Mapping[str, str]) -> ServiceSettings:
        cls = SETTINGS[service]
        prefix = f"PENSTOCK_{service.upper()}_"
        values = {}
        for name, value in environment.items():
            if name.startswith(prefix):
                field = name.removeprefix(prefix).lower()
                assert field in cls.model_fields, f"{name} is no setting of {service}"
                values[field] = value
            else:
                assert name.startswith(FOREIGN), f"{name} is no setting that {service} reads"
        return cls.model_validate(values)

    return build


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Finds a program; where it is missing the test is skipped, unless CI is set and it is not optional even there."""

    def find(name: str, how: str, *, optional: bool = False) -> str:
        # Programs that come as packages lie beside Python, which need not be on the path.
        path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
        if path is None and os.environ.get("CI") and not optional:
            pytest.fail(f"{name} is needed where CI is set: {how}")
        if path is None:
            pytest.skip(f"{name} is not here: {how}")
        return path

    return find
