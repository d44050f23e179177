"""/api/v1/flows: which flows there are, in LangFlow's words; and keeping those that are sent here as LangFlow exports them."""

from typing import Any, Final

from gateway.langflow_api.calls import DELETE, LIST, known_flow
from gateway.langflow_api.face import Faces
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall

PAGE_SIZE: Final = 1000
FLOWS_MAX: Final = 10_000


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

    async def get(self, call: DialectCall) -> None:
        """GET /api/v1/flows/{flow}."""
        face = await self._faces.find(call, call.parts[0], certain=True)
        await call.answer(200, header(await known_flow(call, face.flow_id)))

    async def delete(self, call: DialectCall) -> None:
        """DELETE /api/v1/flows/{flow}."""
        face = await self._faces.find(call, call.parts[0], certain=True)
        await call.unary(DELETE, flow_pb2.DeleteFlowRequest(name=f"flows/{face.flow_id}"))
        await call.answer(200, {"message": "Flow deleted successfully"})


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
