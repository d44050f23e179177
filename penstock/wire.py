"""Errors on the wire: google.rpc.Status with ErrorInfo, and back. The one table between the tree and gRPC.

The reason travels in ErrorInfo; a client rebuilds the same class from it and never from the text. Over gRPC all of it goes
in the call's trailers, of which peers take 8 KiB: what a caller made long (a name, a hundred faults) is cut here, or the peer
would refuse the trailers whole, and the reason with them.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, cast
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from penstock.errors import DOMAIN, INTERNAL_MESSAGE, Internal, MessageTooLarge, PenstockError, Violation, by_reason, from_code

TRAILERS_BYTES_MAX: Final = 7_500
"""Of a peer's 8 KiB, for the message (percent-encoded) and the status (base64); the rest is for other trailers."""

_MESSAGE_BYTES_MAX: Final = 1024
_FACT_BYTES_MAX: Final = 256
_LEFT_OUT: Final = "violations_left_out"

_BY_REASON = by_reason()
_NODE = re.compile(r"nodes\[(?P<id>[^]]+)]\.?(?P<field>.*)")
_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status_code(error: PenstockError) -> grpc.StatusCode:
    """The gRPC status code of an error."""
    return _STATUS_CODES[error.code.grpc_number]


def to_status(error: PenstockError) -> status_pb2.Status:
    """The status that a caller sees, short enough for trailers. Of an Internal it carries nothing but the fixed message."""
    message = _cut(INTERNAL_MESSAGE if isinstance(error, Internal) else error.message, _MESSAGE_BYTES_MAX)
    facts = {key: _cut(value, _FACT_BYTES_MAX) for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts)
    details: list[Message] = [info]
    if error.violations:
        encoded_max = (TRAILERS_BYTES_MAX - len(quote(message))) * 3 // 4
        told = list(_fitting(error.violations, encoded_max - len(message.encode()) - info.ByteSize()))
        if len(told) < len(error.violations):
            info.metadata[_LEFT_OUT] = str(len(error.violations) - len(told))
        details.append(error_details_pb2.BadRequest(field_violations=told))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(code=error.code.grpc_number, message=message, details=[_pack(detail) for detail in details])


def from_status(status: status_pb2.Status) -> PenstockError:
    """The error that the other side raised; by the code alone where it carries no reason of ours."""
    info, violations, retry_after_s = error_details_pb2.ErrorInfo(), [], None
    bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(bad_request):
            violations = [_violation(each) for each in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
        else:
            detail.Unpack(info)
    if info.domain != DOMAIN or info.reason not in _BY_REASON:
        return from_code(status.code, status.message)
    cls = _BY_REASON[info.reason]
    return cls(status.message, metadata=dict(info.metadata), violations=violations, retry_after_s=retry_after_s)


def from_rpc_error(error: grpc.aio.AioRpcError) -> PenstockError:
    """The error behind a failed call, whether a Penstock service, a proxy or gRPC itself refused it."""
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))  # Its aio twin has the same methods.
    except ValueError:  # The trailer contradicts the call's own status: some proxy rewrote one of the two.
        status = None
    if status is not None:
        return from_status(status)
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        # gRPC's own refusal, which has no reason but these words.
        return MessageTooLarge(f"{details}; ask for less at a time, such as a lower top_k, or send it in parts")
    return from_code(error.code().value[0], details)


def status_name(number: int) -> str:
    """The name of a gRPC status number, such as "NOT_FOUND"."""
    return str(code_pb2.Code.Name(number))


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _fitting(violations: Sequence[Violation], bytes_max: int) -> Iterator[error_details_pb2.BadRequest.FieldViolation]:
    """As many of the violations, from the first, as have room; the first always."""
    taken = 0
    for number, violation in enumerate(violations):
        sent = _field_violation(violation)
        taken += sent.ByteSize() + 4
        if number and taken > bytes_max:
            return
        yield sent


def _cut(text: str, bytes_max: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= bytes_max else encoded[: bytes_max - 3].decode(errors="ignore") + "..."


def _field_violation(violation: Violation) -> error_details_pb2.BadRequest.FieldViolation:
    place = ".".join(part for part in (f"nodes[{violation.node_id}]" if violation.node_id else "", violation.field) if part)
    field, description = _cut(place or "document", _FACT_BYTES_MAX), _cut(violation.advice, _MESSAGE_BYTES_MAX)
    return error_details_pb2.BadRequest.FieldViolation(field=field, description=description)


def _violation(sent: error_details_pb2.BadRequest.FieldViolation) -> Violation:
    node = _NODE.match(sent.field)
    if node is None:
        return Violation(field=sent.field, message=sent.description)
    return Violation(node_id=node["id"], field=node["field"], message=sent.description)
