"""GET /v1/models and /v1/models/{model}: the flows that take a text."""

from typing import Any, Final

from gateway import conversion
from gateway.flows import FLOW_ID
from gateway.openai_api.asking import EXTENSION
from gateway.openai_api.fields import refused
from gateway.openai_api.flow_as_model import question
from penstock.errors import FlowNotFound, PenstockError
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall

LIST: Final = "/penstock.flow.v1.FlowService/ListFlows"
GET: Final = "/penstock.flow.v1.FlowService/GetFlow"
MODELS_MAX: Final = 1000


async def list_models(call: DialectCall) -> None:
    """Lists flows in the order of their ids: at most `limit` of them, 1 to 1000 (the default), that come `after` an id."""
    page = await call.unary(LIST, _listing(call.query.get("limit", str(MODELS_MAX)), call.query.get("after", "")))
    found = [_model(flow) for flow in page.flows if _is_model(flow)]
    ends = {"first_id": found[0]["id"], "last_id": _id(page.flows[-1])} if found else {"first_id": None, "last_id": None}
    await call.answer(200, {"object": "list", "data": found, "has_more": bool(page.next_page_token), **ends})


def _listing(limit: str, after: str) -> flow_pb2.ListFlowsRequest | PenstockError:
    if not limit.isdecimal() or len(limit) > 4 or not 1 <= int(limit) <= MODELS_MAX:
        return refused("limit", f"is a whole number from 1 to {MODELS_MAX}")
    if after and not FLOW_ID.fullmatch(after):
        return refused("after", "is the id of a model")
    return flow_pb2.ListFlowsRequest(page_size=int(limit), page_token=conversion.page_token(after))


async def get_model(call: DialectCall) -> None:
    """Reads one."""
    name = call.parts[0]
    request = flow_pb2.GetFlowRequest(name=f"flows/{name}")
    found = await call.unary(GET, request if FLOW_ID.fullmatch(name) else FlowNotFound(f"there is no model {name[:80]!r}"))
    if not _is_model(found.flow):
        raise FlowNotFound(f"the flow {name!r} takes no text, so it is no model")
    await call.answer(200, _model(found.flow))


def _is_model(flow: flow_pb2.Flow) -> bool:
    return bool(question([(each.name, each.type, each.required) for each in flow.inputs]))


def _model(flow: flow_pb2.Flow) -> dict[str, Any]:
    return {
        "id": _id(flow),
        "object": "model",
        "created": flow.create_time.seconds,
        "owned_by": "penstock",
        EXTENSION: {
            "description": flow.description,
            "inputs": [{"name": each.name, "type": each.type, "required": each.required} for each in flow.inputs],
            "outputs": list(flow.outputs),
        },
    }


def _id(flow: flow_pb2.Flow) -> str:
    return flow.name.removeprefix("flows/")
