"""Fetching a model by its name on a hub, for the openvino engine; vLLM does so by itself."""

import asyncio
from pathlib import Path

from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model


async def fetched(reference: str) -> Path:
    """The file or folder of a model reference: as locate_model says, or else downloaded from the hub, into its usual cache.

    "owner/name" is a whole repository (an OpenVINO model), "owner/name/file.gguf" one file of it.
    Raises FailedPrecondition when it is not here and cannot be had.
    """
    return await asyncio.to_thread(_fetched, reference)


def _fetched(reference: str) -> Path:
    path = Path(locate_model(reference))
    if path.exists():
        return path
    owner, name, inner = (*reference.split("/", 2), "", "")[:3]
    if path.is_absolute() or not name or owner in {".", ".."}:
        message = f"the model {reference!r} is not there; PENSTOCK_GENERATION_MODEL takes a file, a folder or a name on a hub"
        raise FailedPrecondition(message)
    return _download(f"{owner}/{name}", inner)


def _download(repository: str, file: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download, snapshot_download  # noqa: PLC0415  # Few need it.
        from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        message = f"{repository!r} is not here, and fetching it from a hub needs a library: pip install huggingface-hub"
        raise FailedPrecondition(message) from error
    try:
        return Path(hf_hub_download(repository, file) if file else snapshot_download(repository))
    except (OSError, ValueError, EntryNotFoundError) as error:  # No network, no such repository, a bad name, no such file.
        message = f"{repository!r} is neither a file or folder here nor to be had from the hub: {error}"
        raise FailedPrecondition(message) from error
