"""Each service starts with nothing but what its own lock names, as in its image; the tests' environment has everything."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"gateway": "gateway", "retrieval": "retrieval_svc", "generation": "generation_svc"}

# vLLM has an environment and an image of its own; what prepares checkpoints is a command of a developer's machine.
ELSEWHERE = ["generation_svc.vllm_engine", "generation_svc.checkpoints"]

IMPORT_EVERYTHING = """
import importlib, importlib.metadata, json, pkgutil, re, sys
package, locked, elsewhere = json.loads(sys.argv[1])
owners = importlib.metadata.packages_distributions()

class OnlyLocked:
    def find_spec(self, name, path=None, target=None):
        owned_by = {re.sub("[-_.]+", "-", owner).lower() for owner in owners.get(name.partition(".")[0], [])}
        if owned_by and not owned_by & set(locked):
            raise ModuleNotFoundError(f"{name} comes from {sorted(owned_by)}, which the lock does not name", name=name)

sys.meta_path.insert(0, OnlyLocked())
found = importlib.import_module(package)
for module in [each.name for each in pkgutil.walk_packages(found.__path__, package + ".")]:
    if module not in elsewhere:
        importlib.import_module(module)
"""


@pytest.mark.parametrize("service", PACKAGES)
def test_a_service_imports_with_its_lock_alone(service):
    names = re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements" / f"{service}.txt").read_text(), flags=re.MULTILINE)
    locked = [re.sub("[-_.]+", "-", name).lower() for name in names] + ["penstock"]
    arguments = json.dumps([PACKAGES[service], locked, ELSEWHERE])
    command = [sys.executable, "-c", IMPORT_EVERYTHING, arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
