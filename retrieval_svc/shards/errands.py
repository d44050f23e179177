"""What worker processes ask of the one that leads: only that one writes the shards' files.

An errand is a file, "UID-SHARD-KIND-TOKEN.asked" in a folder that all of them share. The leader takes it away when it is done,
and before that writes why, if it could not be done, into "....failed".
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from penstock.errors import PenstockError, Unavailable
from retrieval_svc.shards.follower import ShardKey

_log = logging.getLogger(__name__)

_ASKED: Final = ".asked"
_FAILED: Final = ".failed"
_POLL_S: Final = 0.1
COMPACT: Final = "compact"
SNAPSHOT: Final = "snapshot"
CHECKPOINT: Final = "checkpoint"


class Errands:
    """The folder in which errands lie."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def ask(self, key: ShardKey, kind: str) -> None:
        """Has the leader do it. Raises Unavailable with its reason when it cannot; waits as long as the caller does."""
        asked = self._put(f"{key.uid}-{key.shard}-{kind}-{secrets.token_hex(8)}{_ASKED}")
        try:
            while _is_there(asked):  # noqa: ASYNC110  # Another process answers: there is no event to wait for.
                await asyncio.sleep(_POLL_S)
            reason = _reason(asked)
            if reason:
                raise Unavailable(reason)
        finally:
            _forget(asked)

    def waiting(self) -> list[Path]:
        """Those that nobody has taken yet."""
        return sorted(self._folder.glob(f"*{_ASKED}"))

    async def run(self, errand: Path, do: Callable[[ShardKey, str], Awaitable[None]]) -> None:
        """Does an errand, and says how it went."""
        uid, shard, kind, _ = errand.stem.split("-", 3)
        try:
            await do(ShardKey(uid=int(uid), shard=int(shard)), kind)
            _done(errand, "")
        except PenstockError as error:
            _done(errand, error.message)
        except Exception:  # noqa: BLE001  # Whatever it is, the other process waits for an answer.
            _log.exception("%s could not be done", errand.name)
            _done(errand, "it failed in the process that writes the shards' files, whose log says why")

    def _put(self, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        asked = self._folder / name
        asked.touch()
        return asked


def _is_there(asked: Path) -> bool:
    return asked.exists()


def _reason(asked: Path) -> str:
    failed = asked.with_suffix(_FAILED)
    return failed.read_text() if failed.exists() else ""


def _done(asked: Path, reason: str) -> None:
    if reason:
        asked.with_suffix(_FAILED).write_text(reason)
    asked.unlink(missing_ok=True)


def _forget(asked: Path) -> None:
    asked.unlink(missing_ok=True)
    asked.with_suffix(_FAILED).unlink(missing_ok=True)
