"""Who makes the call that is being served, so that what it may see can be decided where that is known.

A service without keys knows nobody: its callers may say by metadata which principals they are, and may do everything.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import quote, unquote

Scope = Literal["read", "write", "admin"]
"""read: look, search, run flows. write: store and delete. admin: all that there is, the other two among it.

Who writes need not read: what fills a collection may be kept from what is in it.
"""
SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))

PRINCIPALS_HEADER: Final = "x-penstock-principals"
"""Principals such as "user:ann,group:legal", each percent-encoded where it holds a comma or what is not ASCII."""
PRINCIPALS_MAX: Final = 1000
TENANT_HEADER: Final = "x-penstock-tenant"
"""On whose account a call is made, such as "acme": percent-encoded where it is not ASCII."""
TENANT_CHARACTERS_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller: the name of its key, empty without one; whose rights it has; what it may do.

    `principals` are those whose access it has beside everybody's; None: access to everything. `tenant` is on whose account it
    calls, by which what is scarce is shared out: its key's name, unless a trusted caller says another.
    """

    name: str = ""
    tenant: str = ""
    principals: frozenset[str] | None = frozenset()
    scopes: frozenset[Scope] = SCOPES

    def may(self, scope: Scope) -> bool:
        """Whether it may do what needs that scope."""
        return scope in self.scopes or "admin" in self.scopes


ANYBODY: Final = Identity()

_current: ContextVar[Identity] = ContextVar("penstock_identity", default=ANYBODY)


def current() -> Identity:
    """The caller of the call that is being served. Outside of a call it is ANYBODY."""
    return _current.get()


def assume(identity: Identity) -> None:
    """Makes `identity` that of the current task and of every task it starts."""
    _current.set(identity)


def read_principals(header: str) -> frozenset[str]:
    """The principals that a header names, at most PRINCIPALS_MAX."""
    parts = header.split(",", PRINCIPALS_MAX)[:PRINCIPALS_MAX]
    return frozenset(unquote(part) for each in parts if (part := each.strip()))


def write_principals(principals: Iterable[str]) -> str:
    """The header that names them."""
    return ",".join(quote(principal, safe=":/@._-+ ") for principal in sorted(principals))


def read_tenant(header: str) -> str:
    """The tenant that a header names, its first TENANT_CHARACTERS_MAX characters."""
    return unquote(header.strip()[: 9 * TENANT_CHARACTERS_MAX])[:TENANT_CHARACTERS_MAX]


def write_tenant(tenant: str) -> str:
    """The header that names it."""
    return quote(tenant, safe=":/@._-+ ")
