"""Who may call what: the interceptor that knows the caller before any work is done for it."""

from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry import trace

from penstock import identity, semconv
from penstock.dispatcher import Around, CallContext, Interceptor
from penstock.errors import PermissionDenied
from penstock.identity import (
    ANYBODY,
    PRINCIPALS_HEADER,
    TENANT_HEADER,
    Identity,
    Scope,
    read_principals,
    read_tenant,
)
from penstock.keys import Keyring

Scopes = Mapping[str, Scope] | Callable[[str], Scope]
"""The scope that a method needs, by its name ("Search"), or from its whole one ("/package.Service/Search")."""

UNDECLARED: Final[Scope] = "admin"
"""What a method needs of which its service says nothing."""


class Access(Interceptor):
    """Makes the caller known to what serves it. With keys it must show one, and the key must have the method's scope."""

    def __init__(self, keyring: Keyring | None, scopes: Scopes) -> None:
        self._keyring = keyring
        self._scopes = scopes

    def around(self, method: str, *, streams: bool) -> Around:  # noqa: ARG002  # The port's signature.
        scope = self._scopes(method) if callable(self._scopes) else self._scopes.get(method.rpartition("/")[2], UNDECLARED)
        identify = _unknown if self._keyring is None else _known(self._keyring, method.rpartition("/")[2], scope)

        def admitted(context: CallContext) -> None:
            identity.assume(identify(context.metadata()))

        return admitted


def _unknown(metadata: Mapping[str, str]) -> Identity:
    principals, tenant = metadata.get(PRINCIPALS_HEADER), metadata.get(TENANT_HEADER)
    if principals is None and tenant is None:
        return ANYBODY
    return Identity(principals=read_principals(principals or ""), tenant=read_tenant(tenant or ""))


def _known(keyring: Keyring, method: str, scope: Scope) -> Callable[[Mapping[str, str]], Identity]:
    def identify(metadata: Mapping[str, str]) -> Identity:
        caller = keyring.identify(metadata)
        trace.get_current_span().set_attribute(semconv.PENSTOCK_KEY_NAME, caller.name)
        if not caller.may(scope):
            raise PermissionDenied(
                f"{method} needs the scope {scope!r}, which the key {caller.name!r} does not have",
                metadata={"scope": scope, "key": caller.name},
            )
        return caller

    return identify
