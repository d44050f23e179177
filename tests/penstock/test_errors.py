"""The error tree is whole: every class has its reason, its code, and survives the wire."""

from http import HTTPStatus

import grpc
import pytest

from penstock.errors import (
    INTERNAL_MESSAGE,
    Code,
    Internal,
    InvalidFlow,
    NotReady,
    Overloaded,
    PenstockError,
    Violation,
    error_classes,
    from_code,
)
from penstock.wire import from_status, status_code, status_name, to_status

CLASSES = [cls for cls in error_classes() if cls is not PenstockError]

# google.rpc.Code's own mapping, written out: the table in errors.py is held against it.
HTTP_OF_GRPC = {
    "CANCELLED": {499}, "UNKNOWN": {500}, "INVALID_ARGUMENT": {400}, "DEADLINE_EXCEEDED": {504}, "NOT_FOUND": {404},
    "ALREADY_EXISTS": {409}, "PERMISSION_DENIED": {403}, "RESOURCE_EXHAUSTED": {429, 413}, "FAILED_PRECONDITION": {400},
    "ABORTED": {409}, "OUT_OF_RANGE": {400}, "UNIMPLEMENTED": {501, 405}, "INTERNAL": {500}, "UNAVAILABLE": {503},
    "DATA_LOSS": {500}, "UNAUTHENTICATED": {401},
}  # fmt: skip


@pytest.mark.parametrize("code", Code)
def test_every_code_has_the_grpc_number_and_the_http_status_of_google_rpc_code(code: Code) -> None:
    assert status_name(code.grpc_number) == code.grpc_name
    assert code.http_status in HTTP_OF_GRPC[code.grpc_name]


def test_every_grpc_status_but_ok_has_a_code() -> None:
    assert {code.grpc_name for code in Code} == {status.name for status in grpc.StatusCode} - {"OK"}


def test_every_error_has_a_reason_of_its_own() -> None:
    reasons = [cls.reason for cls in CLASSES]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("_", "").isupper() for reason in reasons)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_the_wire(cls: type[PenstockError]) -> None:
    sent = cls("what to do", metadata={"limit": "7"}, retry_after_s=1.5)
    received = from_status(to_status(sent))
    assert type(received) is cls
    assert received.message == (INTERNAL_MESSAGE if cls is Internal else "what to do")
    assert received.metadata == {"limit": "7"}
    assert received.retry_after_s == 1.5
    assert status_code(sent).value[0] == cls.code.grpc_number


def test_violations_name_their_node_on_the_wire() -> None:
    fault = Violation(node_id="docs", field="params.top_k", message="is 0", suggestion="use 4")
    (violation,) = from_status(to_status(InvalidFlow("1 fault", violations=[fault]))).violations
    assert (violation.node_id, violation.field, violation.message) == ("docs", "params.top_k", "is 0 (use 4)")
    assert str(violation) == str(fault)


def test_the_inside_of_an_internal_error_stays_inside() -> None:
    assert "secret" not in to_status(Internal("secret table name")).message


@pytest.mark.parametrize(("number", "cls"), [(8, Overloaded), (14, PenstockError), (2, Internal), (99, Internal)])
def test_a_status_without_a_reason_of_ours_is_read_by_its_code(number: int, cls: type[PenstockError]) -> None:
    assert isinstance(from_code(number, "from a proxy"), cls)


def test_what_an_error_knows_of_its_place_is_not_overwritten_further_out() -> None:
    error = NotReady("later", metadata={"node": "inner"}).located(node="outer", service="retrieval")
    assert error.metadata == {"node": "inner", "service": "retrieval"}


def test_codes_map_to_real_http_statuses() -> None:
    known = {status.value for status in HTTPStatus} | {499}  # 499 is the de facto "client closed request".
    assert all(code.http_status in known for code in Code)
