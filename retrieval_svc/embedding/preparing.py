"""Models in 8 bits: made once from a sentence-transformers folder by a child process, and kept.

The child needs torch; this process does not, and stays small. Which model it is, is said by the digest of its source and the
recipe, never by the bytes that came out: two machines that prepare the same model may mix their vectors.
"""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, NoReturn

import orjson

from penstock.errors import CannotPrepare, FailedPrecondition
from retrieval_svc.embedding.source import ModelSource

DESCRIPTION: Final = "model.json"
TOKENIZER: Final = "tokenizer.json"
_REFUSED: Final = "refused.json"
_REFUSAL_CODE: Final = 3
"""The child's exit code when the model is what cannot be prepared, and not the machine."""
_CHILD_S_MAX: Final = 1800.0
_log = logging.getLogger(__name__)


class Backend(Enum):
    """What runs a model."""

    AUTO = "auto"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


RECIPES: Final = {Backend.OPENVINO: "openvino-int8-1", Backend.ONNXRUNTIME: "onnxruntime-int8-1"}
"""Changes with anything that changes the vectors, because it is part of the fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a prepared model is. `window` counts special tokens too; `steps` is what follows the layers."""

    dimension: int
    window: int
    window_tokens: int
    steps: str
    pad_id: int
    query_prompt: str = ""
    document_prompt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared model on disk."""

    folder: Path
    recipe: str
    digest: str
    description: Description


def prepare(source: ModelSource, backend: Backend, cache_dir: Path) -> Prepared:
    """The model for `backend`, from the cache or made now; takes seconds then. Others who want the same one wait for it.

    Raises CannotPrepare when the model cannot be exported, FailedPrecondition when the child fails for another reason.
    """
    recipe = RECIPES[backend]
    folder = cache_dir / f"{source.digest[:32]}-{recipe}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_suffix(".lock")):
        if not (folder / DESCRIPTION).exists() and not (folder / _REFUSED).exists():
            _make(source, backend, folder)
    refused = folder / _REFUSED
    if refused.exists():
        raise CannotPrepare(orjson.loads(refused.read_bytes())["reason"])
    description = Description(**orjson.loads((folder / DESCRIPTION).read_bytes()))
    return Prepared(folder=folder, recipe=recipe, digest=source.digest, description=description)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _make(source: ModelSource, backend: Backend, folder: Path) -> None:
    began = time.monotonic()
    _log.info("preparing %s for %s, once", source.folder, backend.value)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.part-"))
    try:
        _run_child(source, backend, partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _log.info("prepared %s for %s in %.1f s", source.folder, backend.value, time.monotonic() - began)


def _run_child(source: ModelSource, backend: Backend, into: Path) -> None:
    command = [sys.executable, "-m", "retrieval_svc.embedding.exporting", backend.value, str(source.folder), str(into)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_CHILD_S_MAX, check=False)  # noqa: S603  # Our own module.
    except subprocess.TimeoutExpired as error:
        message = f"preparing {source.folder} took longer than {_CHILD_S_MAX:.0f} s; set the backend to torch"
        raise FailedPrecondition(message) from error
    if done.returncode not in {0, _REFUSAL_CODE}:
        message = (
            f"preparing {source.folder} for {backend.value} failed (exit code {done.returncode}); set the backend to torch, "
            f"or see what it said: {done.stderr[-2000:].strip()}"
        )
        raise FailedPrecondition(message)


def refuse(target: Path, reason: str) -> NoReturn:
    """Ends the child that finds that a model cannot be prepared. The reason is kept, so that no start tries it again."""
    write_json(target / _REFUSED, {"reason": reason})
    os._exit(_REFUSAL_CODE)  # Libraries of several thread pools are in no hurry to leave.


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file and has it on disk."""
    with path.open("wb") as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
