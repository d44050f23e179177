"""Whether and when an endpoint that failed is asked again, for all requests together.

Only before the first token: what was given to a caller is never given twice. Asked again is
  - an endpoint that could not be reached, dropped the connection, or answered 502, 503 or 504: up to `retries_max` times,
    after a pause that doubles and is jittered, or after the time that it asks for;
  - an overloaded one (429): once, and only if it asks for a time. Such a limit is a rate, which waiting meets; any other
    overload is the caller's to hear of, as everywhere in Penstock.
What an endpoint asks for (Retry-After) holds for every request: until then none is sent. A request waits for that moment if it
is near and leaves it enough of its deadline; else it is refused at once, with the time that is left.

Retries have a budget as in gRPC's retryThrottling: a failure takes from it, an answer gives a tenth back, and while half of it
is gone nothing is asked again. So an endpoint that is down is not asked thrice as much as one that is up.
"""

import asyncio
import random
import time
from typing import Final

import aiohttp

from generation_svc.openai_errors import RETRY_AFTER_SAID
from penstock.deadline import patience_s
from penstock.errors import BackendUnavailable, Overloaded, PenstockError

QUIET_S_MAX: Final = 60.0
"""Longest that nothing is sent, whatever an endpoint asks for: it may have erred, or have been replaced."""
_PAUSE_S: Final = 0.1
_PAUSE_S_MAX: Final = 2.0
_SPREAD: Final = 0.1
_BUDGET: Final = 10.0
_BUDGET_BACK: Final = 0.1
_NOT_READY: Final = frozenset({"502", "503", "504"})


class Retries:
    """What is known of one endpoint's failures."""

    def __init__(self, *, retries_max: int, retry_after_max_s: float) -> None:
        self._retries_max = retries_max
        self._retry_after_max_s = retry_after_max_s
        self._budget = _BUDGET
        self._quiet_until_s = 0.0
        self._asked_by: PenstockError = Overloaded("the endpoint asked for a pause")

    def request(self) -> "RequestTries":
        """The tries of one request."""
        return RequestTries(self)

    def worked(self) -> None:
        """An answer came."""
        self._budget = min(_BUDGET, self._budget + _BUDGET_BACK)

    async def quiet(self) -> None:
        """Waits until the endpoint may be asked. Raises what it said when that is too far off."""
        left_s = self._quiet_s()
        if left_s > patience_s(self._retry_after_max_s):
            raise self._told(left_s)
        if left_s > 0:
            # Those that waited do not come back all at once.
            await asyncio.sleep(left_s * (1 + _SPREAD * random.random()))  # noqa: S311  # Not a secret.
            # Another request may have been told of a later moment; whoever has waited once is told of it.
            if (left_s := self._quiet_s()) > 0:
                raise self._told(left_s)

    def failed(self, error: PenstockError, *, tries: int) -> float:
        """Seconds until the next try. Raises the error when there is none."""
        if said := RETRY_AFTER_SAID in error.metadata and error.retry_after_s is not None:
            self._be_quiet(error)
        overloaded = isinstance(error, Overloaded)
        if not (overloaded and said) and not _passing(error):
            raise error
        self._budget = max(0.0, self._budget - 1)
        if tries > (min(1, self._retries_max) if overloaded else self._retries_max) or self._budget <= _BUDGET / 2:
            raise error
        # What was asked for is waited for by whoever sends next.
        pause_s = 0.0 if said else _pause_s(tries)
        if max(pause_s, self._quiet_s()) > patience_s(self._retry_after_max_s if said else _PAUSE_S_MAX):
            raise error
        return pause_s

    def _be_quiet(self, error: PenstockError) -> None:
        until_s = time.monotonic() + min(error.retry_after_s or 0.0, QUIET_S_MAX)
        if until_s > self._quiet_until_s:
            self._quiet_until_s, self._asked_by = until_s, error

    def _quiet_s(self) -> float:
        return self._quiet_until_s - time.monotonic()

    def _told(self, left_s: float) -> PenstockError:
        said = self._asked_by
        kind = Overloaded if isinstance(said, Overloaded) else BackendUnavailable
        return kind(said.message, metadata=said.metadata, retry_after_s=max(left_s, 0.0))


class RequestTries:
    """One request's tries."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._tries = 0

    async def ready(self) -> None:
        """Waits until the endpoint may be asked. Raises what it said when that is too far off."""
        await self._retries.quiet()
        self._tries += 1

    async def failed(self, error: PenstockError) -> None:
        """Waits for the next try. Raises the error when there is none."""
        await asyncio.sleep(self._retries.failed(error, tries=self._tries))

    def worked(self) -> None:
        """The answer began."""
        self._retries.worked()


def _pause_s(tries: int) -> float:
    return min(_PAUSE_S_MAX, _PAUSE_S * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311  # Not a secret.


def _passing(error: PenstockError) -> bool:
    """Whether it is the connection or the endpoint that failed, not the request."""
    cause = error.__cause__
    if isinstance(cause, aiohttp.SocketTimeoutError):
        return False  # A slow endpoint, which works on it: asking again would double its work.
    connection = isinstance(cause, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError)
    return connection or error.metadata.get("upstream_status") in _NOT_READY
