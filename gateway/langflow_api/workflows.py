"""/api/v2/workflows: runs that answer whole, as server-sent events, or later."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from gateway.langflow_api.answers import Telling
from gateway.langflow_api.asking import Asked, Ran, ask, ran
from gateway.langflow_api.calls import LIST, RUN, Detached, refuse, variables
from gateway.langflow_api.face import Face, Faces
from gateway.langflow_api.frames import PROTOCOLS, frames_of, output_entry
from gateway.langflow_api.history import MessageLog
from gateway.langflow_api.jobs import Job, Jobs, Status, id_for
from gateway.langflow_api.reading import StopRequest, WorkflowRequest, body
from gateway.langflow_api.runs import component_of
from gateway.langflow_api.telling import Ended, tell
from gateway.langflow_api.wording import Refused, failure_text, is_failure, refused
from penstock import identity
from penstock.errors import BackendUnavailable, DeadlineExceeded, FlowNotFound, Overloaded, PenstockError
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall

_NOT_SYNC: Final = ("data", "files", "start_component_id", "stop_component_id")
_NO_UUID: Final = {"type": "value_error", "msg": "Value error, Invalid job_id, must be a UUID"}
_HEARTBEAT_S: Final = 15.0
_KEEPALIVE: Final = b": keepalive\n\n"


class Workflows:
    """Handlers of workflows. `deadline_s` is the longest that a job may run."""

    def __init__(self, faces: Faces, log: MessageLog, jobs: Jobs, *, deadline_s: float) -> None:
        self._faces = faces
        self._log = log
        self._jobs = jobs
        self._deadline_s = deadline_s

    async def execute(self, call: DialectCall) -> None:
        """POST /api/v2/workflows."""
        try:
            request = body(call, WorkflowRequest)
            _check(request)
        except Refused as refusal:
            return await refuse(call, refusal)
        try:
            face = await self._faces.find(call, request.flow_id, certain=request.mode == "background")
        except FlowNotFound:
            raise _no_flow(request.flow_id) from None
        try:
            _check_outputs(face, request)
            given = variables(call.headers) | {name.upper(): value for name, value in request.globals.items()}
            asked = ask(
                face,
                input_value=request.input_value,
                input_type="chat",
                tweaks=request.tweaks,
                variables=given,
                session=request.session_id,
            )
        except Refused as refusal:
            return await refuse(call, refusal)
        if request.mode == "background":
            return await self._start(call, request, asked)
        if request.mode == "stream":
            return await self._stream(call, request, asked)
        return await self._sync(call, request, asked)

    async def status(self, call: DialectCall) -> None:
        """GET /api/v2/workflows?job_id=."""
        job_id = call.query.get("job_id", "")
        if not job_id:
            missing = {"error": "Missing required parameter", "code": "MISSING_PARAMETER", "message": "Job ID must be provided"}
            return await refuse(call, refused(400, missing))
        if not _is_uuid(job_id):
            return await refuse(call, refused(422, [_NO_UUID | {"loc": ["query", "job_id"]}]))
        job = await self._job(call, job_id, "Workflow job not found", f"Workflow job {job_id} not found")
        if job.status is Status.COMPLETED:
            return await call.exchange.answer(200, job.result)
        if job.status is Status.FAILED:
            message = f"Job {job.id} has failed execution."
            failed = {"error": "Job failed", "code": "JOB_FAILED", "message": message, "job_id": job.id}
            raise refused(500, failed | {"error_detail": job.error})
        if job.status is Status.TIMED_OUT:
            late = {"error": "Execution timeout", "code": "EXECUTION_TIMEOUT", "message": "Workflow execution timed out"}
            raise refused(408, late | {"job_id": job.id, "flow_id": job.shown_flow_id})
        return await call.answer(200, _job_entry(job))

    async def events(self, call: DialectCall) -> None:
        """GET /api/v2/workflows/{job}/events: those so far, after Last-Event-ID, then the others as they come."""
        job = await self._job(
            call, call.parts[0], "Background run not found", f"No background run for job {call.parts[0][:64]}."
        )
        last = call.headers.get("last-event-id", "")
        told = int(last) if last.isascii() and last.isdecimal() and len(last) < 10 else 0
        await call.start_stream()
        written_at = time.monotonic()
        while True:
            ends, fresh = job.status.is_final, job.frames[told:]
            for number, frame in enumerate(fresh, start=told + 1):
                await call.write(_sse(frame, number))
            told += len(fresh)
            if fresh:
                written_at = time.monotonic()
                continue  # There may be more by now.
            if ends:
                return await call.end()
            if time.monotonic() - written_at >= _HEARTBEAT_S:
                await call.write(_KEEPALIVE)
                written_at = time.monotonic()
            job = await self._jobs.later(job, _HEARTBEAT_S)

    async def stop(self, call: DialectCall) -> None:
        """POST /api/v2/workflows/stop."""
        try:
            job_id = body(call, StopRequest).job_id
            if not _is_uuid(job_id):
                raise refused(422, [_NO_UUID | {"loc": ["body", "job_id"]}])
        except Refused as refusal:
            return await refuse(call, refusal)
        job = await self._job(call, job_id, "Job not found", f"Job {job_id} not found")
        if job.status.is_final:
            words = "is already cancelled." if job.status is Status.CANCELLED else f"already finished ({job.status.value})."
            return await call.answer(200, {"job_id": job.id, "message": f"Job {job.id} {words}"})
        job = await self._jobs.stop(job)
        words = "cancelled successfully." if job.status is Status.CANCELLED else "is asked to stop."
        return await call.answer(200, {"job_id": job.id, "message": f"Job {job.id} {words}"})

    async def _sync(self, call: DialectCall, request: WorkflowRequest, asked: Asked) -> None:
        telling = Telling(asked)
        try:
            ended = ran(asked, await call.unary(RUN, asked.request()))
        except DeadlineExceeded as error:
            late = {"error": "Execution timeout", "code": "EXECUTION_TIMEOUT", "message": error.message}
            raise refused(408, late | {"job_id": asked.run, "flow_id": asked.face.id}) from None
        except PenstockError as error:
            if not is_failure(error):
                raise
            await call.answer(200, _failed(request, asked, error))
            return
        self._log.add(telling, ended)
        await call.exchange.answer(200, _whole(request, asked, ended))

    async def _stream(self, call: DialectCall, request: WorkflowRequest, asked: Asked) -> None:
        telling = Telling(asked)
        frames = frames_of(request.stream_protocol, telling, graph=request.expose_graph_state)
        number = 0

        async def write(made: Iterator[tuple[bool, bytes]]) -> None:
            nonlocal number
            for _, frame in made:
                if not call.exchange.started:
                    await call.start_stream()
                await call.write(_sse(frame, number))
                number += 1

        try:
            async with aclosing(tell(call, telling, node_outputs=request.stream_protocol == "langflow")) as happenings:
                async for happening in happenings:
                    if isinstance(happening, Ended):
                        self._log.add(telling, happening.ran)
                    await write(frames.of(happening))
        except PenstockError as error:
            if not call.exchange.started and not is_failure(error):
                raise
            await write(frames.failed(error.message))
        await call.end()

    async def _start(self, call: DialectCall, request: WorkflowRequest, asked: Asked) -> None:
        owner = identity.current().tenant
        if request.idempotency_key:
            asked = replace(asked, run=id_for(owner, request.idempotency_key))
        face = asked.face
        job = Job(owner=owner, flow_id=face.flow_id, shown_flow_id=face.id, session=asked.session, id=asked.run)
        background = Detached(call, self._deadline_s)
        try:
            job = await self._jobs.start(job, lambda started: self._work(started, background, request, asked))
        except Overloaded:
            busy = "The service is currently unable to handle the request due to resource limits."
            said = {"error": "Service busy", "code": "SERVICE_BUSY", "message": busy, "flow_id": face.id}
            raise refused(503, said) from None
        await call.answer(200, _job_entry(job, Status.QUEUED))

    async def _work(self, job: Job, background: Detached, request: WorkflowRequest, asked: Asked) -> None:
        telling = Telling(asked)
        frames = frames_of(request.stream_protocol, telling, graph=request.expose_graph_state)
        ended: Ran | None = None
        try:
            call = background.call()
            async with aclosing(tell(call, telling, node_outputs=request.stream_protocol == "langflow")) as happenings:
                async for happening in happenings:
                    _keep(job, frames.of(happening))
                    if isinstance(happening, Ended):
                        ended = happening.ran
            if ended is None:
                raise BackendUnavailable("the run broke off: its stream ended without saying that it was done")
            self._log.add(telling, ended)
            job.result = _whole(request, asked, ended)
        except asyncio.CancelledError:
            _keep(job, frames.cancelled("stopped"))
            raise
        except PenstockError as error:
            job.error = failure_text(error, component_of(asked.face, error))
            job.status = Status.TIMED_OUT if isinstance(error, DeadlineExceeded) else Status.FAILED
            _keep(job, frames.failed(error.message))

    async def _job(self, call: DialectCall, job_id: str, error: str, message: str) -> Job:
        """The caller's job, after what its key deserves. Raises Refused."""
        await call.unary(LIST, flow_pb2.ListFlowsRequest(page_size=1))
        job = await self._jobs.get(str(UUID(job_id)), identity.current().tenant) if _is_uuid(job_id) else None
        if job is None:
            raise refused(404, {"error": error, "code": "JOB_NOT_FOUND", "message": message, "job_id": job_id[:64]})
        return job


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _check(request: WorkflowRequest) -> None:
    if request.stream_protocol not in PROTOCOLS:
        message = f"Unknown stream_protocol {request.stream_protocol!r}."
        said = {"error": "Unknown stream_protocol", "code": "UNKNOWN_STREAM_PROTOCOL", "message": message}
        raise refused(422, said | {"available": list(PROTOCOLS)})
    fields = [name for name in _NOT_SYNC if getattr(request, name)]
    if fields:
        # LangFlow runs a part of a flow, or another one than was asked for, for its own editor; there is none here.
        message = f"mode={request.mode!r} does not support request fields: {', '.join(fields)}."
        said = {"error": "Unsupported request fields for mode", "code": "MODE_UNSUPPORTED_FIELDS", "message": message}
        raise refused(422, said | {"fields": fields})
    if request.mode != "sync" and request.output_ids:
        message = (
            f"mode={request.mode!r} does not support request fields: output_ids. "
            "Output selection via output_ids only applies to mode='sync'."
        )
        said = {"error": "Unsupported request fields for mode", "code": "MODE_UNSUPPORTED_FIELDS", "message": message}
        raise refused(422, said | {"fields": ["output_ids"]})


def _check_outputs(face: Face, request: WorkflowRequest) -> None:
    unknown = [name for name in request.output_ids or () if name not in face.output_ids]
    if unknown:
        message = f"output_ids not produced by this flow: {unknown}."
        said = {"error": "Unknown output_ids", "code": "UNKNOWN_OUTPUT_IDS", "message": message}
        raise refused(422, said | {"available": sorted(face.output_ids)})


def _no_flow(name: str) -> Refused:
    message = f"Flow '{name}' does not exist. Verify the flow_id and try again."
    return refused(404, {"error": "Flow not found", "code": "FLOW_NOT_FOUND", "message": message, "flow_id": name})


def _whole(request: WorkflowRequest, asked: Asked, ended: Ran) -> bytes:
    outputs = {each.id: output_entry(each, ended.texts[each.id]) for each in asked.face.outputs if each.id in ended.texts}
    return orjson.dumps(
        _entry(asked, asked.session)
        | {"status": "completed", "output": _answer(outputs, request.output_ids), "errors": [], "warnings": []}
        | _echo(request, outputs)
    )


def _failed(request: WorkflowRequest, asked: Asked, error: PenstockError) -> Mapping[str, Any]:
    details = {"flow_id": asked.face.id, "error_type": error.reason}
    said = {"error": failure_text(error, component_of(asked.face, error)), "code": "EXECUTION_ERROR", "details": details}
    none = {"reason": "failed", "text": None, "source": None}
    return (
        _entry(asked, None)
        | {"status": "failed", "output": none, "errors": [said], "warnings": []}
        | _echo(request, {})
        | {"has_errors": True}
    )


def _entry(asked: Asked, session: str | None) -> dict[str, Any]:
    return {
        "flow_id": asked.face.id,
        "session_id": session,
        "job_id": asked.run,
        "object": "response",
        "created_timestamp": _instant(),
    }


def _echo(request: WorkflowRequest, outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "inputs": request.tweaks, "globals": request.globals, "outputs": outputs, "human_request": None, "has_errors": False
    }  # fmt: skip


def _answer(outputs: Mapping[str, Mapping[str, Any]], wanted: list[str] | None) -> dict[str, Any]:
    """The one text that is the answer, or why there is none."""
    texts = [name for name, each in outputs.items() if each["type"] == "message" and (not wanted or name in wanted)]
    if len(texts) == 1:
        return {"reason": "single", "text": outputs[texts[0]]["content"], "source": texts[0]}
    return {"reason": "multiple" if texts else "none", "text": None, "source": None}


def _job_entry(job: Job, status: Status | None = None) -> dict[str, Any]:
    links = {
        "status": f"/api/v2/workflows?job_id={job.id}",
        "events": f"/api/v2/workflows/{job.id}/events",
        "stop": "/api/v2/workflows/stop",
    }
    return {
        "job_id": job.id, "flow_id": job.shown_flow_id, "object": "job", "created_timestamp": job.created.isoformat(),
        "status": (status or job.status).value, "links": links, "errors": [], "globals": {},
    }  # fmt: skip


def _keep(job: Job, made: Iterator[tuple[bool, bytes]]) -> None:
    for is_kept, frame in made:
        if is_kept:
            job.add(frame)


def _sse(frame: bytes, number: int) -> bytes:
    return b"data: %s\nid: %d\n\n" % (frame, number)


def _instant() -> str:
    return datetime.now(UTC).isoformat()
