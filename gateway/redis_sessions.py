"""Conversations in Redis: shared by every gateway that is given the same URL, and forgotten by Redis itself.

A session is a list of JSON texts, {"role": ..., "content": ...}, under "penstock:session:TENANT:NAME". An append adds, trims
and sets the expiry in one transaction and one round trip, so several gateways may write to a session at once.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar, cast
from urllib.parse import quote

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from gateway.execution import ChatMessage
from penstock.deadline import remaining_s
from penstock.errors import BackendUnavailable

CONNECTIONS_MAX: Final = 64
SERVICE: Final = "sessions"

T = TypeVar("T")


class RedisSessions:
    """The Sessions port. Of each session the newest `messages_max`, until `expiry_s` after its last message.

    `tenant` says whose a session is. A call takes at most `timeout_s`, and no more than the caller has left. One that failed
    may have been done all the same: it is not tried again, or its messages could stand there twice.
    """

    def __init__(
        self, redis: Redis, *, messages_max: int, expiry_s: float, timeout_s: float, tenant: Callable[[], str] = lambda: ""
    ) -> None:
        self._redis = redis
        self._messages_max = messages_max
        self._expiry_ms = max(1, round(expiry_s * 1000))
        self._timeout_s = timeout_s
        self._tenant = tenant

    async def read(self, session: str, messages_max: int) -> tuple[ChatMessage, ...]:
        if messages_max <= 0:
            return ()
        # The client's type says a list, for those who do not await it, or one that can be awaited.
        reading = cast("Awaitable[list[bytes]]", self._redis.lrange(self._key(session), -messages_max, -1))
        return tuple(_message(text) for text in await self._within(reading))

    async def append(self, session: str, messages: Sequence[ChatMessage]) -> None:
        if messages:
            await self._within(self._append(self._key(session), messages[-self._messages_max :]))

    async def forget(self, session: str) -> None:
        await self._within(self._redis.delete(self._key(session)))

    async def _append(self, key: str, messages: Sequence[ChatMessage]) -> None:
        async with self._redis.pipeline(transaction=True) as transaction:
            transaction.rpush(key, *map(_text, messages))
            transaction.ltrim(key, -self._messages_max, -1)
            transaction.pexpire(key, self._expiry_ms)
            await transaction.execute()

    def _key(self, session: str) -> str:
        """A quoted tenant has no colon, so that no two pairs of tenant and session have one key."""
        return f"penstock:session:{quote(self._tenant(), safe='')}:{session}"

    async def _within(self, call: Awaitable[T]) -> T:
        limit_s = remaining_s(self._timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                return await call
        except TimeoutError as error:
            raise _unavailable(f"did not answer within {limit_s:.3g} s") from error
        except (RedisError, OSError) as error:
            raise _unavailable(f"failed: {error}") from error


@asynccontextmanager
async def redis_sessions(
    url: str, *, messages_max: int, expiry_s: float, timeout_s: float, tenant: Callable[[], str] = lambda: ""
) -> AsyncIterator[RedisSessions]:
    """Sessions in the Redis at `url`, which need not be there yet. Its connections are made when they are needed."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        # Only a pool without these looks whether a connection still stands before it gives it out.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    redis = Redis.from_pool(pool)
    try:
        yield RedisSessions(redis, messages_max=messages_max, expiry_s=expiry_s, timeout_s=timeout_s, tenant=tenant)
    finally:
        await redis.aclose()


def _text(message: ChatMessage) -> bytes:
    return orjson.dumps({"role": message.role, "content": message.content})


def _message(text: bytes) -> ChatMessage:
    value = orjson.loads(text)
    return ChatMessage(role=value["role"], content=value["content"])


def _unavailable(problem: str) -> BackendUnavailable:
    return BackendUnavailable(f"the Redis that keeps sessions {problem}", metadata={"service": SERVICE}, retry_after_s=1.0)
