"""Which HTTP servers may be asked: the operator's list.

api.example.com                      https, port 443
*.example.com                        any name below it, but not itself
http://intranet.example.com:8080!    http, another port; ! lets it have a private address
"""

import re
from dataclasses import dataclass
from typing import Final

HOSTS_MAX: Final = 1000
_ENTRY: Final = re.compile(
    r"""
    (?: (?P<scheme>https?):// )?  (?P<wild>\*\.)?
    (?P<host> \[[0-9a-f:.]+\] | [a-z0-9_] (?: [a-z0-9._-]{0,251} [a-z0-9_] )? \.? )
    (?: :(?P<port>\d{1,5}) )?  (?P<private>!)?
    """,
    re.IGNORECASE | re.VERBOSE,
)
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """One entry. `host` is in lower case and without brackets; `below` means the names below it."""

    scheme: str
    host: str
    port: int
    below: bool = False
    private: bool = False

    def holds(self, scheme: str, host: str, port: int) -> bool:
        """Whether the entry lets this server be asked."""
        if (scheme, port) != (self.scheme, self.port):
            return False
        return host.endswith(f".{self.host}") if self.below else host == self.host


def parse_hosts(text: str) -> tuple[HostEntry, ...]:
    """The entries of a list with commas between them. Raises ValueError."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if len(words) > HOSTS_MAX:
        message = f"has {len(words)} hosts; at most {HOSTS_MAX}"
        raise ValueError(message)
    return tuple(_entry(word) for word in words)


def _entry(word: str) -> HostEntry:
    match = _ENTRY.fullmatch(word)
    scheme = (match["scheme"] or "https").lower() if match else ""
    port = int(match["port"] or PORTS[scheme]) if match else 0
    if match is None or not 1 <= port <= 65_535:
        message = f"{word[:80]!r} is no host: write HOST, HOST:PORT or *.HOST, after http:// where it is not https"
        raise ValueError(message)
    host = match["host"].lower().strip("[]").rstrip(".")
    return HostEntry(scheme=scheme, host=host, port=port, below=bool(match["wild"]), private=bool(match["private"]))
