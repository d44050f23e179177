"""Every way in which Penstock fails, and what each is on the wire.

    PenstockError
      InvalidArgument          INVALID_ARGUMENT     the request can never succeed as it is
        MalformedRequest       not JSON, or not the message that the method takes
        UnknownField           a field that the message does not have
        EmptyText              a text with nothing in it
        TopKOutOfRange
        DimensionMismatch      a vector that does not fit its collection
        PromptTooLong          prompt and answer do not fit the model's window
        UnsupportedFeature     what the model's engine can't do
        InvalidFlow            a flow document with faults, each with its node
        InvalidInputs          inputs that the flow does not take
        UnreadableDocument     a file out of which no text can be had: broken, encrypted, or too much for its limits
      NotFound
        RouteNotFound  FlowNotFound  CollectionNotFound  ModelNotFound  AdapterNotFound
      AlreadyExists
      FailedPrecondition       right in itself, but not in the state that things are in
        FlowMisconfigured      a node asks a backend for what it does not have or refuses
        EmbeddingMismatch      the loaded embedding model is not the one that made the vectors
        CannotPrepare          a model that a backend cannot run
      MethodNotAllowed         the HTTP path exists, the verb does not
      MessageTooLarge          413 over HTTP; never worth a retry
      Overloaded               429 over HTTP; carries when to try again; never retried automatically
        DeadlineTooShort       the caller's time would be up before its turn came
      BudgetExceeded           429 over HTTP; a run would take more than its budget, so the same run again fails as well
      Unavailable              may be retried on another replica
        NotReady               loading or draining
        BackendUnavailable     a service behind this one cannot be reached
        EngineFailed           the engine died under the request
      DeadlineExceeded  Cancelled  Unauthenticated  PermissionDenied
      Internal                 a defect of ours: a fixed message outside, everything in the log

Raise these in the core; translate foreign exceptions at one boundary. Nothing here knows gRPC: a code's number is a fact about
the wire, kept beside its HTTP status so that the two can't drift apart. The mapping of codes to HTTP is google.rpc.Code's, but
for MESSAGE_TOO_LARGE, which shares RESOURCE_EXHAUSTED's number and answers 413.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final

DOMAIN: Final = "penstock"
"""The `domain` of every google.rpc.ErrorInfo that Penstock sends."""


class Code(Enum):
    """A class of failure: (gRPC status number, HTTP status)."""

    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 403)
    RESOURCE_EXHAUSTED = (8, 429)
    MESSAGE_TOO_LARGE = (8, 413)
    FAILED_PRECONDITION = (9, 400)
    ABORTED = (10, 409)
    OUT_OF_RANGE = (11, 400)
    UNIMPLEMENTED = (12, 501)
    METHOD_NOT_ALLOWED = (12, 405)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    DATA_LOSS = (15, 500)
    UNAUTHENTICATED = (16, 401)

    @property
    def grpc_number(self) -> int:
        """The number of the gRPC status."""
        return self.value[0]

    @property
    def http_status(self) -> int:
        """The HTTP status."""
        return self.value[1]

    @property
    def grpc_name(self) -> str:
        """The name of the gRPC status, which two of ours share with another."""
        return {Code.MESSAGE_TOO_LARGE: "RESOURCE_EXHAUSTED", Code.METHOD_NOT_ALLOWED: "UNIMPLEMENTED"}.get(self, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One fault of a document: where it is, what it is, what to do about it."""

    message: str
    node_id: str = ""
    field: str = ""
    suggestion: str = ""

    @property
    def advice(self) -> str:
        """What is wrong and what to do about it."""
        return f"{self.message} ({self.suggestion})" if self.suggestion else self.message

    def __str__(self) -> str:
        place = " ".join(part for part in (f"node {self.node_id!r}" if self.node_id else "", self.field) if part)
        return f"{place}: {self.advice}" if place else self.advice


class PenstockError(Exception):
    """Base of the tree. `code` and `reason` are the class's; message, metadata and the rest are the instance's.

    `reason` is stable and for machines; `message` is for people and says what to do. `metadata` holds short facts (the limit,
    the name, the node). `retry_after_s`, where given, says when another try may succeed.
    """

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s

    def located(self, **metadata: str) -> "PenstockError":
        """The same error with more metadata, such as the node in which it happened. What is there already stays."""
        self.metadata = {**metadata, **self.metadata}
        return self


class InvalidArgument(PenstockError):
    """The request can never succeed as it is."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class MalformedRequest(InvalidArgument):
    """The bytes are not JSON, or not the message that the method takes."""

    reason = "MALFORMED_REQUEST"


class UnknownField(InvalidArgument):
    """A field that the message does not have."""

    reason = "UNKNOWN_FIELD"


class EmptyText(InvalidArgument):
    """A text with nothing in it."""

    reason = "EMPTY_TEXT"


class TopKOutOfRange(InvalidArgument):
    """top_k below 1 or over the limit."""

    reason = "TOP_K_OUT_OF_RANGE"


class DimensionMismatch(InvalidArgument):
    """A vector that does not fit its collection."""

    reason = "DIMENSION_MISMATCH"


class PromptTooLong(InvalidArgument):
    """Prompt and answer do not fit the model's window."""

    reason = "PROMPT_TOO_LONG"


class UnsupportedFeature(InvalidArgument):
    """The model's engine can't do what is asked; the metadata name the feature and the engine."""

    reason = "UNSUPPORTED_FEATURE"


class InvalidFlow(InvalidArgument):
    """A flow document with faults: `violations` has each with its node."""

    reason = "INVALID_FLOW"


class InvalidInputs(InvalidArgument):
    """Inputs that the flow does not take."""

    reason = "INVALID_INPUTS"


class UnreadableDocument(InvalidArgument):
    """A file out of which no text can be had: broken, encrypted, not what it is said to be, or too much for its limits."""

    reason = "UNREADABLE_DOCUMENT"


class NotFound(PenstockError):
    """The named thing does not exist."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"


class RouteNotFound(NotFound):
    """No method has this HTTP path."""

    reason = "ROUTE_NOT_FOUND"


class FlowNotFound(NotFound):
    """No such flow."""

    reason = "FLOW_NOT_FOUND"


class CollectionNotFound(NotFound):
    """No such collection."""

    reason = "COLLECTION_NOT_FOUND"


class ModelNotFound(NotFound):
    """No such model is served."""

    reason = "MODEL_NOT_FOUND"


class AdapterNotFound(NotFound):
    """The model has no such LoRA adapter."""

    reason = "ADAPTER_NOT_FOUND"


class AlreadyExists(PenstockError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPrecondition(PenstockError):
    """Right in itself, but not in the state that things are in."""

    code = Code.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class FlowMisconfigured(FailedPrecondition):
    """A node asks a backend, or another flow, for what it does not have or refuses."""

    reason = "FLOW_MISCONFIGURED"


class EmbeddingMismatch(FailedPrecondition):
    """The loaded embedding model is not the one that made the collection's vectors."""

    reason = "EMBEDDING_MISMATCH"


class CannotPrepare(FailedPrecondition):
    """The model cannot be brought to a backend; the message says why and what to set."""

    reason = "CANNOT_PREPARE"


class MethodNotAllowed(PenstockError):
    """The HTTP path exists, the verb does not."""

    code = Code.METHOD_NOT_ALLOWED
    reason = "METHOD_NOT_ALLOWED"


class MessageTooLarge(PenstockError):
    """A message over the limit. Never worth a retry."""

    code = Code.MESSAGE_TOO_LARGE
    reason = "MESSAGE_TOO_LARGE"


class Overloaded(PenstockError):
    """More than can be served now. `retry_after_s` says when to try again; never retried automatically."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class DeadlineTooShort(Overloaded):
    """The caller's time would be up before its turn came, so that it is told at once. More time, or another moment, helps."""

    reason = "DEADLINE_TOO_SHORT"


class BudgetExceeded(PenstockError):
    """A run would take more than its budget allows: model calls, tokens, retrievals. The metadata name which, and the bound."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "BUDGET_EXCEEDED"


class Unavailable(PenstockError):
    """Not here, not now; another replica may serve it."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"


class NotReady(Unavailable):
    """Loading or draining."""

    reason = "NOT_READY"


class BackendUnavailable(Unavailable):
    """A service behind this one cannot be reached."""

    reason = "BACKEND_UNAVAILABLE"


class EngineFailed(Unavailable):
    """The engine died under the request."""

    reason = "ENGINE_FAILED"


class DeadlineExceeded(PenstockError):
    """The caller's time is up."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Cancelled(PenstockError):
    """The caller left."""

    code = Code.CANCELLED
    reason = "CANCELLED"


class Unauthenticated(PenstockError):
    """Who the caller is, is not known."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(PenstockError):
    """The caller may not."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Internal(PenstockError):
    """A defect of ours. What a server sends of it is INTERNAL_MESSAGE and nothing of the inside."""


INTERNAL_MESSAGE: Final = "internal error; the service's log has the whole of it under this request's trace id"


def error_classes(root: type[PenstockError] = PenstockError) -> Iterator[type[PenstockError]]:
    """The tree below `root`, itself included, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from error_classes(child)


def by_reason() -> dict[str, type[PenstockError]]:
    """The class of each reason, by which a client rebuilds what a server raised."""
    return {cls.reason: cls for cls in error_classes() if cls is not PenstockError}


def from_code(number: int, message: str) -> PenstockError:
    """The error of a status that carries no reason of ours, as a proxy or gRPC itself sends."""
    fallback: dict[int, type[PenstockError]] = {
        1: Cancelled, 3: InvalidArgument, 4: DeadlineExceeded, 5: NotFound, 6: AlreadyExists, 7: PermissionDenied,
        8: Overloaded, 9: FailedPrecondition, 14: Unavailable, 16: Unauthenticated,
    }  # fmt: skip
    return fallback.get(number, Internal)(message)
