"""One way through a service for every call, whatever it came in on.

    gRPC server ──┐
                  ├─> Dispatcher ─> around (trace, metrics, errors, access, admission, deadline) ─> servicer method
    HTTP front  ──┘

Generated `add_XServicer_to_server(servicer, dispatcher)` functions mount servicers here as they would on a grpc server. The
transports call `unary` and `stream`, which raise nothing but PenstockError (and asyncio's CancelledError).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from google.protobuf.message import Message

from penstock.encoded import serialiser
from penstock.errors import Internal, NotReady, PenstockError, RouteNotFound
from penstock.transcoding.dialect import Dialect


class CallContext(Protocol):
    """What a servicer may know of the call that it serves."""

    def metadata(self) -> Mapping[str, str]:
        """Metadata or HTTP headers, keys in lower case."""
        ...

    def time_remaining(self) -> float:
        """Seconds until the caller's deadline, or the service's own where the caller gave none."""
        ...


@dataclass(frozen=True, slots=True)
class LateRequest:
    """A request that is made once the interceptors have let the call in: where something must be looked up to make it, nobody
    without a key shall cause or see that. What `make` raises is the call's failure.
    """

    make: Callable[[], Awaitable[Message]]


# A transport that could not read a request hands over the error in the request's place, so that it is traced like any other.
# A method that takes a stream gets an iterator of messages, which raises such an error where its message would stand.
Request = Message | PenstockError | LateRequest | AsyncIterator[Message]
UnaryHandler = Callable[[Any, CallContext], Awaitable[Any]]
StreamHandler = Callable[[Any, CallContext], AsyncIterator[Any]]
Around = Callable[[CallContext], AbstractContextManager[Any] | None]
"""Makes what stands around a call; None: it has done what there was to do, and nothing stands."""


class Interceptor:
    """Does its part around every call: entered before the servicer, left after it, however the call ends.

    A context manager and not a handler around a handler, so that a call is one coroutine. It may raise when it is entered, may
    raise another error when it is left, and never swallows one.
    """

    def around(self, method: str, *, streams: bool) -> Around:
        """What makes the context manager of each call of a method; asked once, when it is mounted."""
        raise NotImplementedError

    def messages(self, method: str, handler: StreamHandler) -> StreamHandler:  # noqa: ARG002  # For those who override it.
        """A server stream whose single messages matter to this interceptor. Whoever iterates it closes it."""
        return handler


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A mounted method: what serves it, and how to read and write its messages."""

    call: UnaryHandler | StreamHandler
    takes_stream: bool
    streams: bool
    parse: Callable[[bytes], Message]
    serialise: Callable[[Any], bytes]


class _Nested:
    """`with first, second, ...:` of all that stands around a call. contextlib.ExitStack costs three times as much."""

    __slots__ = ("_arounds", "_context", "_entered")

    def __init__(self, arounds: Sequence[Around], context: CallContext) -> None:
        self._arounds = arounds
        self._context = context
        self._entered: list[AbstractContextManager[Any]] = []

    def __enter__(self) -> None:
        try:
            for around in self._arounds:
                manager = around(self._context)
                if manager is not None:
                    manager.__enter__()
                    self._entered.append(manager)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        last = error
        for manager in reversed(self._entered):
            try:
                manager.__exit__(None if last is None else type(last), last, None if last is None else last.__traceback__)
            except BaseException as other:  # noqa: BLE001  # Raised below, when all have been left.
                last = other
        if last is not error and last is not None:
            raise last


class Dispatcher:
    """Mounted servicers behind one chain of interceptors, the first outermost."""

    def __init__(self, services: Sequence[str], interceptors: Sequence[Interceptor]) -> None:
        self.services = tuple(services)
        self._interceptors = tuple(interceptors)
        self._methods: dict[str, Method] = {}
        self.dialects: list[Dialect] = []
        self.ready = False

    def unary(self, method: str, request: Request, context: CallContext) -> Awaitable[Any]:
        """Calls a method that gives one answer. `method` is "/package.Service/Method"."""
        return self._find(method).call(request, context)  # type: ignore[return-value]  # unary() of a stream is a defect.

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
            self._methods[f"/{service}/{name}"] = self._mounted(f"/{service}/{name}", handler)

    def _mounted(self, method: str, handler: Any) -> Method:
        if handler.request_streaming and handler.response_streaming:
            message = f"{method} streams both ways, which no transport here does yet"
            raise Internal(message)
        call = self._streaming(method, handler) if handler.response_streaming else self._answering(method, handler)
        return Method(
            call=call,
            takes_stream=handler.request_streaming,
            streams=handler.response_streaming,
            parse=handler.request_deserializer,
            serialise=serialiser(handler.response_serializer),
        )

    def _answering(self, method: str, handler: Any) -> UnaryHandler:
        answer: UnaryHandler = handler.stream_unary if handler.request_streaming else handler.unary_unary
        arounds = [interceptor.around(method, streams=False) for interceptor in self._interceptors]

        async def served(request: Any, context: CallContext) -> Any:
            with _Nested(arounds, context):
                return await answer(await _ready(request), context)

        return served

    def _streaming(self, method: str, handler: Any) -> StreamHandler:
        stream: StreamHandler = handler.unary_stream
        for interceptor in reversed(self._interceptors):
            stream = interceptor.messages(method, stream)
        arounds = [interceptor.around(method, streams=True) for interceptor in self._interceptors]

        async def served(request: Any, context: CallContext) -> AsyncIterator[Any]:
            with _Nested(arounds, context):
                async with aclosing(stream(await _ready(request), context)) as messages:  # type: ignore[type-var]
                    async for message in messages:
                        yield message

        return served

    def _find(self, method: str) -> Method:
        if not self.ready:
            raise NotReady("the service is still loading, or leaving; try again in a moment", retry_after_s=1.0)
        found = self._methods.get(method)
        if found is None:
            message = f"no method {method!r}"
            raise RouteNotFound(message)
        return found


async def _ready(request: Any) -> Any:
    if isinstance(request, LateRequest):
        return await request.make()
    if isinstance(request, PenstockError):
        raise request
    return request
