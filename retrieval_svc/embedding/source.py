"""Where a model's files are, and what is in them as one digest."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model

_KINDS: Final = frozenset({".json", ".safetensors", ".bin", ".txt", ".model"})
_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A sentence-transformers folder. `digest` is over names and bytes of the files that the vectors depend on."""

    folder: Path
    digest: str


def find_source(reference: str) -> ModelSource:
    """Finds a model's folder, fetching one from a hub, and reads it once. Raises FailedPrecondition where there is none."""
    path = Path(locate_model(reference))
    folder = path if path.is_dir() else _fetch(reference)
    digest = hashlib.sha256()
    for file in sorted(each for each in folder.rglob("*") if each.is_file() and each.suffix in _KINDS):
        name = file.relative_to(folder)
        digest.update(f"{name.as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
    return ModelSource(folder=folder, digest=digest.hexdigest())


def _fetch(reference: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # Slow to import, and a folder needs none of it.

    patterns = [f"*{kind}" for kind in sorted(_KINDS)]
    try:
        return Path(snapshot_download(reference, allow_patterns=patterns))
    except Exception as error:
        message = (
            f"the embedding model {reference!r} cannot be loaded ({type(error).__name__}: {error}); "
            "name an installed package (package:NAME/PATH), a folder, or a model of a hub that can be reached"
        )
        raise FailedPrecondition(message) from error
