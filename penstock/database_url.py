"""What is said of a database URL that no engine can be made of: what to set, and nothing of the password that stands in it."""

import re
from typing import Final

from penstock.errors import FailedPrecondition

DRIVERS: Final = {
    "sqlite+aiosqlite": "sqlite+aiosqlite:////FOLDER/FILE.db",
    "postgresql+asyncpg": "postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE",
}
"""How the URLs begin that Penstock is tried with, and what they look like."""

_SCHEME: Final = re.compile(r"[a-z0-9+]{1,40}(?=://)", re.IGNORECASE)


def unusable_url(url: str, setting: str, error: Exception) -> FailedPrecondition:
    """The error to start with no further. `error` is why no engine could be made: its own words may repeat the URL."""
    scheme = _SCHEME.match(url)
    forms = " or ".join(DRIVERS.values())
    if scheme is None:
        return FailedPrecondition(f"{setting} is no database URL: set it to {forms}")
    if scheme[0] not in DRIVERS:
        return FailedPrecondition(f"{setting} begins with '{scheme[0]}://', which cannot be used: set it to {forms}")
    if isinstance(error, ImportError):
        return FailedPrecondition(f"{setting} begins with '{scheme[0]}://', whose package {error.name} is not installed")
    escaped = "a mark in the password such as @ or / is written %40 or %2F"
    return FailedPrecondition(
        f"{setting} cannot be read behind its '{scheme[0]}://': set it to {DRIVERS[scheme[0]]}; {escaped}"
    )
