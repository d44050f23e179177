"""API keys: the file that lists them, and who a caller is that shows one.

The file is a JSON list of {"name", "key_sha256", "scopes", "principals", "may_assert_principals"}; who may assert principals
may also say on which tenant's account it calls. The file holds no key, only what can be compared with one. It is read again
when it changes, so that a key can be revoked while the service runs.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from penstock.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from penstock.identity import PRINCIPALS_HEADER, TENANT_HEADER, Identity, Scope, read_principals, read_tenant

log = logging.getLogger("penstock.keys")

KEY_PREFIX: Final = "psk_"
RELOAD_S: Final = 1.0
_FILE_BYTES_MAX: Final = 16 * 2**20

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]


class KeyEntry(BaseModel):
    """One key of the file. `principals` "all" sees what any principal sees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    key_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: list[Scope] = Field(min_length=1)
    principals: list[Annotated[str, Field(min_length=1, max_length=256)]] | Literal["all"] = []
    may_assert_principals: bool = False

    @cached_property
    def identity(self) -> Identity:
        """Who shows this key."""
        principals = None if self.principals == "all" else frozenset(self.principals)
        return Identity(name=self.name, tenant=self.name, principals=principals, scopes=frozenset(self.scopes))


_ENTRIES: Final = TypeAdapter(list[KeyEntry])


class Keyring:
    """The keys of a file. Raises FailedPrecondition, with what is wrong and where, when the file can't be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._by_digest = _read(path)
        log.info("%d API keys are in %s", len(self._by_digest), path)

    def reload(self) -> None:
        """Reads the file again. What is wrong with it is logged, and the keys stay as they were."""
        self._stamp = _stamp(self._path)
        try:
            self._by_digest = _read(self._path)
        except FailedPrecondition as error:
            log.error("the API keys stay as they were: %s", error.message)  # noqa: TRY400  # The message says it all.
        else:
            log.info("%d API keys are in %s", len(self._by_digest), self._path)

    def reload_if_changed(self) -> None:
        """Reads the file again when it is another than the one that was read."""
        if _stamp(self._path) != self._stamp:
            self.reload()

    def identify(self, metadata: Mapping[str, str]) -> Identity:
        """Who calls. Raises Unauthenticated without a listed key, PermissionDenied for what it may not say of itself."""
        entry = self._entry(_shown(metadata))
        principals, tenant = metadata.get(PRINCIPALS_HEADER), metadata.get(TENANT_HEADER)
        if principals is None and tenant is None:
            return entry.identity
        if not entry.may_assert_principals:
            header = TENANT_HEADER if principals is None else PRINCIPALS_HEADER
            raise PermissionDenied(
                f"the key {entry.name!r} may not say on whose behalf it calls; leave {header} out",
                metadata={"key": entry.name},
            )
        return replace(
            entry.identity,
            principals=entry.identity.principals if principals is None else read_principals(principals),
            tenant=entry.name if tenant is None else read_tenant(tenant),
        )

    def _entry(self, key: str) -> KeyEntry:
        digest = sha256_of(key)
        # Finding it by its hash tells a stranger nothing of another key: hashes can't be steered.
        entry = self._by_digest.get(digest)
        if entry is None or not hmac.compare_digest(entry.key_sha256, digest):
            raise Unauthenticated("this API key is not, or no longer, known here")
        return entry


@asynccontextmanager
async def kept_fresh(keyring: Keyring | None) -> AsyncIterator[None]:
    """While the block runs, reads the file again when it has changed, seen within RELOAD_S, and on SIGHUP."""
    if keyring is None:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, keyring.reload)
    watching = asyncio.create_task(_watch(keyring))
    try:
        yield
    finally:
        watching.cancel()
        loop.remove_signal_handler(signal.SIGHUP)


async def _watch(keyring: Keyring) -> None:
    while True:
        await asyncio.sleep(RELOAD_S)
        keyring.reload_if_changed()


def new_key() -> str:
    """A key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def sha256_of(key: str) -> str:
    """What the file holds of a key, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _shown(metadata: Mapping[str, str]) -> str:
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else metadata.get("x-api-key", "").strip()
    if not key:
        raise Unauthenticated("an API key is needed: send it as authorization: Bearer KEY, or as x-api-key: KEY")
    return key


def _read(path: Path) -> dict[str, KeyEntry]:
    try:
        with path.open("rb") as file:
            entries = _ENTRIES.validate_json(file.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise FailedPrecondition(f"the API keys in {path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        raise FailedPrecondition(f"the API keys in {path} are not as they must be: {_faults(error)}") from error
    _check_distinct(path, entries)
    return {entry.key_sha256: entry for entry in entries}


def _check_distinct(path: Path, entries: Sequence[KeyEntry]) -> None:
    for what, values in (("name", [each.name for each in entries]), ("key_sha256", [each.key_sha256 for each in entries])):
        twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if twice is not None:
            raise FailedPrecondition(f"the API keys in {path} are not as they must be: two have the {what} {twice!r}")


def _faults(error: ValidationError) -> str:
    """What is wrong and where, without what stood there: it may be a key that somebody put in plainly."""
    told = (f"{'.'.join(str(part) for part in fault['loc']) or 'the file'}: {fault['msg']}" for fault in error.errors()[:5])
    return "; ".join(told)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
