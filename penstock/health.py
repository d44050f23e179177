"""grpc.health.v1: whether a service can answer. SERVING only between "assembled" and "asked to leave".

Our own because the published servicer's Watch never ends: whoever watched held the drain for the whole of its grace.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # Generated without types.
    """The health of the services `names` and of the process ("")."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset({"", *names})
        self._status: Any = _Status.NOT_SERVING
        self._leaving = False
        self._changed = asyncio.Event()

    def serve(self) -> None:
        """SERVING from now on."""
        self._turn(_Status.SERVING)

    def leave(self) -> None:
        """NOT_SERVING from now on; every Watch ends with it."""
        self._leaving = True
        self._turn(_Status.NOT_SERVING)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802  # Named by the proto.
        """The status now. NOT_FOUND for a name that is not served here."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:200]!r} is here")
        return _Status(status=self._status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802  # Named by the proto.
        """The status now and at each change, until the service leaves. SERVICE_UNKNOWN for a name that is not served here."""
        told = None
        while True:
            changed = self._changed
            status = self._status if request.service in self._names else _Status.SERVICE_UNKNOWN
            if status != told:
                await context.write(_Status(status=status))
                told = status
            if self._leaving:
                return
            await changed.wait()

    def _turn(self, status: Any) -> None:
        self._status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
