"""Vectors of texts that were embedded lately, bounded in bytes; and one embedding for a text that several ask for at once."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import numpy as np

from retrieval_svc.embedding.embedder import Embedded, Purpose
from retrieval_svc.values import Matrix, Vector

_ENTRY_BYTES: Final = 300
"""About what an entry takes besides its vector."""
Key = tuple[str, Purpose, bytes]
Found = tuple[Vector, int]
"""A vector, and the tokens of its text."""


class CacheStatistics(Protocol):
    """Counts what the cache was good for."""

    def hits(self, count: int, purpose: Purpose) -> None:
        """So many texts had been embedded, or were being embedded for somebody else."""
        ...

    def misses(self, count: int, purpose: Purpose) -> None:
        """So many texts have to be embedded."""
        ...


class Uncounted:
    """Counts nothing."""

    def hits(self, count: int, purpose: Purpose) -> None:
        """Nothing."""

    def misses(self, count: int, purpose: Purpose) -> None:
        """Nothing."""


class VectorCache:
    """Keeps the vectors that were used last. Used from one event loop; shared by all models. Vectors in it are read-only."""

    def __init__(self, bytes_max: int, statistics: CacheStatistics | None = None) -> None:
        self._bytes_max = bytes_max
        self._statistics = statistics or Uncounted()
        self._kept: OrderedDict[Key, Found] = OrderedDict()
        self._bytes = 0
        self._in_flight: dict[Key, asyncio.Future[Found]] = {}

    @property
    def bytes_used(self) -> int:
        """About how much memory the entries take."""
        return self._bytes

    async def embed(
        self, fingerprint: str, purpose: Purpose, texts: Sequence[str], make: Callable[[list[str]], Awaitable[Embedded]]
    ) -> tuple[Matrix, int]:
        """A vector a text and the tokens of all, of which `make` embeds those that are neither kept nor being embedded.

        Who waits for another's embedding that fails or is cancelled, embeds for himself.
        """
        asked = {_key(fingerprint, purpose, text): text for text in texts}
        found = {key: kept for key in asked if (kept := self._find(key))}
        waited = {key: self._in_flight[key] for key in asked if key not in found and key in self._in_flight}
        missing = {key: text for key, text in asked.items() if key not in found and key not in waited}
        self._statistics.hits(len(texts) - len(missing), purpose)
        self._statistics.misses(len(missing), purpose)
        if missing:
            found |= await self._make(missing, make)
        found |= await _outcomes(waited)
        failed = {key: text for key, text in asked.items() if key not in found}
        if failed:
            found |= await self._make(failed, make)
        rows = [found[_key(fingerprint, purpose, text)] for text in texts]
        return np.stack([vector for vector, _ in rows]), sum(count for _, count in rows)

    def _find(self, key: Key) -> Found | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    async def _make(self, texts: dict[Key, str], make: Callable[[list[str]], Awaitable[Embedded]]) -> dict[Key, Found]:
        future: dict[Key, asyncio.Future[Found]] = {key: asyncio.get_running_loop().create_future() for key in texts}
        self._in_flight |= future
        try:
            embedded = await make(list(texts.values()))
            made = {
                key: (vector.copy(), count)
                for key, vector, count in zip(texts, embedded.vectors, embedded.token_counts, strict=True)
            }
            for key, each in made.items():
                each[0].flags.writeable = False
                future[key].set_result(each)
                self._keep(key, each)
            return made
        finally:
            for key, mine in future.items():
                mine.cancel()  # Nothing, where it has its result.
                if self._in_flight.get(key) is mine:
                    del self._in_flight[key]

    def _keep(self, key: Key, found: Found) -> None:
        if key in self._kept:
            return
        self._kept[key] = found
        self._bytes += found[0].nbytes + _ENTRY_BYTES
        while self._bytes > self._bytes_max:
            _, (vector, _) = self._kept.popitem(last=False)
            self._bytes -= vector.nbytes + _ENTRY_BYTES


def _key(fingerprint: str, purpose: Purpose, text: str) -> Key:
    return fingerprint, purpose, hashlib.blake2b(text.encode(), digest_size=16).digest()


async def _outcomes(waited: dict[Key, asyncio.Future[Found]]) -> dict[Key, Found]:
    """What others made; those that failed are left out."""
    if waited:
        await asyncio.wait(waited.values())
    return {key: other.result() for key, other in waited.items() if not other.cancelled()}
