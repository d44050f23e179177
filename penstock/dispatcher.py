"""One way through a service for every call, whatever it came in on.

    gRPC server ──┐
                  ├─> Dispatcher ─> interceptors (trace, errors, admission, deadline) ─> servicer method
    HTTP front  ──┘

Generated `add_XServicer_to_server(servicer, dispatcher)` functions mount servicers here as they would on a grpc server. The
transports call `unary` and `stream`, which raise nothing but PenstockError (and asyncio's CancelledError).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message

from penstock.errors import Internal, NotReady, PenstockError, RouteNotFound


class CallContext(Protocol):
    """What a servicer may know of the call that it serves."""

    def metadata(self) -> Mapping[str, str]:
        """Metadata or HTTP headers, keys in lower case."""
        ...

    def time_remaining(self) -> float:
        """Seconds until the caller's deadline, or the service's own where the caller gave none."""
        ...


# A transport that could not read a request hands over the error in the request's place, so that it is traced like any other.
Request = Message | PenstockError
UnaryHandler = Callable[[Any, CallContext], Awaitable[Any]]
StreamHandler = Callable[[Any, CallContext], AsyncIterator[Any]]


class Interceptor(Protocol):
    """Wraps every handler once, when it is mounted."""

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """A handler that does its part around `handler`."""
        ...

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        """The same for a server stream. Whoever iterates it closes it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A mounted method: its two halves are the interceptors' handler and how to read and write its messages."""

    call: UnaryHandler | StreamHandler
    streams: bool
    parse: Callable[[bytes], Message]
    serialise: Callable[[Message], bytes]


class Dispatcher:
    """Mounted servicers behind one chain of interceptors, the first outermost."""

    def __init__(self, services: Sequence[str], interceptors: Sequence[Interceptor]) -> None:
        self.services = tuple(services)
        self._interceptors = tuple(interceptors)
        self._methods: dict[str, Method] = {}
        self.ready = False

    async def unary(self, method: str, request: Request, context: CallContext) -> Any:
        """Calls a unary method. `method` is "/package.Service/Method"."""
        return await self._find(method).call(request, context)  # type: ignore[misc]  # unary() of a stream is a defect.

    def stream(self, method: str, request: Request, context: CallContext) -> AsyncIterator[Any]:
        """Calls a server-streaming method. The caller closes the iterator (contextlib.aclosing)."""
        return self._find(method).call(request, context)  # type: ignore[return-value]

    def find(self, method: str) -> Method | None:
        """The mounted method, if there is one."""
        return self._methods.get(method)

    def serves(self, method: str) -> bool:
        """Whether the method is of a service that is, or will be, mounted here."""
        return method.strip("/").rpartition("/")[0] in self.services

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Part of what generated code expects of a server. The registered handlers below say the same."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """What generated code calls to mount a servicer: handlers are grpc.RpcMethodHandler."""
        for name, handler in handlers.items():
            self._methods[f"/{service}/{name}"] = self._wrapped(f"/{service}/{name}", handler)

    def _wrapped(self, method: str, handler: Any) -> Method:
        if handler.request_streaming:
            message = f"{method} streams requests, which no transport here does yet"
            raise Internal(message)
        call = handler.unary_stream if handler.response_streaming else handler.unary_unary
        for interceptor in reversed(self._interceptors):
            wrap = interceptor.stream if handler.response_streaming else interceptor.unary
            call = wrap(method, call)
        return Method(
            call=call,
            streams=handler.response_streaming,
            parse=handler.request_deserializer,
            serialise=handler.response_serializer,
        )

    def _find(self, method: str) -> Method:
        if not self.ready:
            raise NotReady("the service is still loading, or leaving; try again in a moment", retry_after_s=1.0)
        found = self._methods.get(method)
        if found is None:
            message = f"no method {method!r}"
            raise RouteNotFound(message)
        return found
