"""Heavy libraries, imported where they are used: each environment has some of them, and tells which one has the others."""

import importlib
from typing import Any, Final

from penstock.errors import FailedPrecondition

_ENVIRONMENTS: Final = {"llmcompressor": "llm-compressor", "datasets": "llm-compressor"}


def imported(module: str) -> Any:
    """A module. Raises FailedPrecondition that says in which environment it is."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        environment = _ENVIRONMENTS.get(library, "vllm")
        message = (
            f"this needs {library}, which is not in this environment ({error}); run it in the one that has it: "
            f"make {environment}, then .venv-{environment}/bin/python -m generation_svc.checkpoints"
        )
        raise FailedPrecondition(message) from error
