"""Variables that flows may read and do not hold: of the environment, by a prefix, or files of a mounted secret.

A flow names a variable, and whoever writes flows may thus read it. Hence the prefix: nothing else of the gateway's environment
can be named.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from penstock.errors import FlowMisconfigured

PREFIX: Final = "PENSTOCK_VARIABLE_"
FILES_MAX: Final = 1000
FILE_BYTES_MAX: Final = 2**16


CLOCK: Final = {"CURRENT_DATE": "%Y-%m-%d", "CURRENT_TIME": "%Y-%m-%d %H:%M:%S UTC"}
"""Variables that are there unless they are set: what the time is, in UTC."""


class Variables:
    """Variables by name. Names are compared as the environment has them: in capitals, with _ for what is no letter or digit."""

    def __init__(self, values: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._values = {_plain(name): value for name, value in values.items()}
        self._now = now

    def value(self, name: str) -> str:
        """Raises FlowMisconfigured where nothing is set."""
        plain = _plain(name)
        found = self._values.get(plain)
        if found is None and plain in CLOCK:
            return self._now().strftime(CLOCK[plain])
        if found is None:
            raise FlowMisconfigured(
                f"the flow reads the variable {name!r}, which is not set: set {PREFIX}{plain}, or put a file "
                f"{plain} into the folder of PENSTOCK_GATEWAY_VARIABLES_DIR",
                metadata={"variable": name},
            )
        return found


def open_variables(environment: Mapping[str, str], directory: Path | None) -> Variables:
    """The variables of the environment whose names begin with PREFIX, and the files of a folder, which go before them."""
    values = {name.removeprefix(PREFIX): value for name, value in environment.items() if name.startswith(PREFIX)}
    if directory is not None:
        files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))[:FILES_MAX]
        for path in files:
            with path.open("rb") as file:
                values[path.name] = file.read(FILE_BYTES_MAX).decode(errors="replace").removesuffix("\n")
    return Variables(values)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
