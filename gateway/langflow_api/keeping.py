"""/api/v1/flows: which flows there are, in LangFlow's words; and keeping those that are sent here as LangFlow exports them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import orjson

from gateway.langflow import is_export
from gateway.langflow.naming import slug
from gateway.langflow_api import multipart
from gateway.langflow_api.calls import CREATE, DELETE, LIST, check_form, check_json, known_flow, refuse
from gateway.langflow_api.face import Face, Faces
from gateway.langflow_api.reading import loads
from gateway.langflow_api.wording import Refused, refused
from penstock.errors import AlreadyExists, FlowNotFound, InvalidFlow
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall

PAGE_SIZE: Final = 1000
FLOWS_MAX: Final = 10_000
UPLOAD_MAX: Final = 100
"""Most flows in one file."""
NAMES_MAX: Final = 50
"""Names that are tried for a flow whose own is taken."""
_NOT_FLOWS: Final = "Invalid JSON: expected an object with 'flows' or a single flow object"


class Keeping:
    """Handlers of flows."""

    def __init__(self, faces: Faces) -> None:
        self._faces = faces

    async def list(self, call: DialectCall) -> None:
        """GET /api/v1/flows/: the headers of all flows."""
        flows: list[dict[str, Any]] = []
        token = ""
        while len(flows) < FLOWS_MAX:
            page = await call.unary(LIST, flow_pb2.ListFlowsRequest(page_size=PAGE_SIZE, page_token=token))
            flows += [header(flow) for flow in page.flows]
            token = page.next_page_token
            if not token:
                break
        await call.answer(200, flows)

    async def create(self, call: DialectCall) -> None:
        """POST /api/v1/flows/: imports a flow and keeps it under a name of its own."""
        try:
            check_json(call)
            export = _export(loads(call.body))
        except Refused as refusal:
            return await refuse(call, refusal)
        kept = await self._create(call, export)
        return await call.answer(201, whole(kept))

    async def upload(self, call: DialectCall) -> None:
        """POST /api/v1/flows/upload/: imports the flows of a file, each in place of the one that has its id."""
        try:
            exports = [_export(each) for each in _uploaded(call)]
        except Refused as refusal:
            return await refuse(call, refusal)
        kept = []
        for export in exports:
            before = await self._before(call, export)
            kept.append(
                header(await (self._create(call, export) if before is None else _put(call, before, export, replace=True)))
            )
        return await call.answer(201, kept)

    async def _before(self, call: DialectCall, export: Mapping[str, Any]) -> str | None:
        """The flow that was imported with this id."""
        with suppress(FlowNotFound):
            if isinstance(export.get("id"), str):
                return (await self._faces.find(call, export["id"], certain=True)).flow_id
        return None

    async def _create(self, call: DialectCall, export: Mapping[str, Any]) -> flow_pb2.Flow:
        """Keeps a flow under its name there, or the next that is free. Raises AlreadyExists, Refused."""
        wanted = slug(str(export.get("endpoint_name") or export.get("name") or "")) or "flow"
        error: AlreadyExists | None = None
        for number in range(1, NAMES_MAX + 1):
            try:
                return await _put(call, wanted if number == 1 else f"{wanted[:60]}-{number}", export, replace=False)
            except AlreadyExists as taken:
                error = taken
        assert error is not None  # noqa: S101  # It was tried at least once.
        raise error

    async def get(self, call: DialectCall) -> None:
        """GET /api/v1/flows/{flow}."""
        face = await self._found(call)
        await call.answer(200, whole(await known_flow(call, face.flow_id)))

    async def delete(self, call: DialectCall) -> None:
        """DELETE /api/v1/flows/{flow}."""
        face = await self._found(call)
        await call.unary(DELETE, flow_pb2.DeleteFlowRequest(name=f"flows/{face.flow_id}"))
        await call.answer(200, {"message": "Flow deleted successfully"})

    async def _found(self, call: DialectCall) -> Face:
        try:
            return await self._faces.find(call, call.parts[0], certain=True)
        except FlowNotFound:
            raise refused(404, "Flow not found") from None


async def _put(call: DialectCall, flow_id: str, export: Mapping[str, Any], *, replace: bool) -> flow_pb2.Flow:
    """Keeps a flow. Raises Refused with what can't be imported of it, AlreadyExists."""
    request = flow_pb2.CreateFlowRequest(flow_id=flow_id, document=orjson.dumps(export).decode(), replace=replace)
    try:
        kept: flow_pb2.Flow = (await call.unary(CREATE, request)).flow
    except InvalidFlow as error:
        raise refused(400, "\n".join(str(each) for each in error.violations) or error.message) from None
    return kept


def _export(value: object) -> dict[str, Any]:
    """A flow as LangFlow sends one, with an id. Raises Refused."""
    if isinstance(value, dict) and "data" not in value and "nodes" not in value:
        missing = [name for name in ("name", "data") if name not in value]
        raise refused(422, [{"type": "missing", "loc": ["body", name], "msg": "Field required"} for name in missing])
    if not isinstance(value, dict) or not is_export(value):
        raise refused(422, 'Not a flow of LangFlow\'s: its nodes and edges stand in "data".')
    return value if value.get("id") else value | {"id": str(uuid4())}


def _uploaded(call: DialectCall) -> list[Any]:
    """The flows of a file, which is a field of a form or the body itself. Raises Refused, MalformedRequest."""
    text, kind = call.body, call.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        check_form(call)
        file = multipart.fields(call.body, kind).get("file")
        if file is None:
            raise refused(400, "No file provided")
        text = file.data
    else:
        check_json(call)
    if not text:
        raise refused(400, "The uploaded file is empty")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise refused(400, f"Invalid JSON file: {error}") from None
    flows = value.get("flows", [value]) if isinstance(value, dict) else None
    if not isinstance(flows, list) or len(flows) > UPLOAD_MAX:
        raise refused(422, _NOT_FLOWS)
    return flows


def header(flow: flow_pb2.Flow) -> dict[str, Any]:
    """A flow as LangFlow lists it. Its drawing is not kept: "data" is null."""
    flow_id = flow.name.removeprefix("flows/")
    kept = flow.create_time.ToDatetime().replace(microsecond=0)
    return {
        "id": flow.origin.id or flow_id, "name": flow.origin.name or flow_id, "folder_id": None, "is_component": False,
        "endpoint_name": flow.origin.endpoint_name or None, "description": flow.description or None, "data": None,
        "access_type": "PRIVATE", "tags": None, "mcp_enabled": False, "flow_type": "workflow", "a2a_enabled": False,
        "a2a_card_overrides": None, "action_name": None, "action_description": None, "updated_at": f"{kept.isoformat()}+00:00",
    }  # fmt: skip


def whole(flow: flow_pb2.Flow) -> dict[str, Any]:
    """A flow as LangFlow shows it alone."""
    return header(flow) | {
        "icon": None, "icon_bg_color": None, "gradient": None, "webhook": False, "locked": False, "user_id": None,
        "workspace_id": None, "name_key": None, "version_token": None,
    }  # fmt: skip
