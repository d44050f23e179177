"""The flow protos' two services: from proto, call, to proto. Errors and their status are the runtime's affair."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import cache

from google.protobuf import struct_pb2

from gateway import conversion
from gateway.flows import Flows
from gateway.schema import flow_schema
from gateway.structs import from_struct, to_struct
from penstock.dispatcher import CallContext
from penstock.flow.v1 import flow_pb2, flow_pb2_grpc


@cache
def _schema() -> struct_pb2.Struct:
    return to_struct(flow_schema())


class FlowServicer(flow_pb2_grpc.FlowServiceServicer):
    """Keeping flows."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    async def CreateFlow(self, request: flow_pb2.CreateFlowRequest, context: CallContext) -> flow_pb2.CreateFlowResponse:
        kept = await self._flows.create(request.flow_id, request.document, replace=request.replace)
        return flow_pb2.CreateFlowResponse(flow=conversion.flow(kept))

    async def GetFlow(self, request: flow_pb2.GetFlowRequest, context: CallContext) -> flow_pb2.GetFlowResponse:
        kept = await self._flows.get(await self._flows.resolve(conversion.flow_id(request.name)))
        return flow_pb2.GetFlowResponse(flow=conversion.flow(kept))

    async def ListFlows(self, request: flow_pb2.ListFlowsRequest, context: CallContext) -> flow_pb2.ListFlowsResponse:
        page = await self._flows.page(request.page_size, conversion.after(request.page_token))
        return flow_pb2.ListFlowsResponse(
            flows=[conversion.flow(kept) for kept in page.flows], next_page_token=conversion.page_token(page.next_after)
        )

    async def DeleteFlow(self, request: flow_pb2.DeleteFlowRequest, context: CallContext) -> flow_pb2.DeleteFlowResponse:
        await self._flows.delete(conversion.flow_id(request.name))
        return flow_pb2.DeleteFlowResponse()

    async def ValidateFlow(self, request: flow_pb2.ValidateFlowRequest, context: CallContext) -> flow_pb2.ValidateFlowResponse:
        flow, faults = await self._flows.check(request.document)
        return flow_pb2.ValidateFlowResponse(
            valid=flow is not None,
            violations=[conversion.violation(fault) for fault in faults],
            content_hash=flow.content_hash if flow else "",
            nodes=[conversion.ports(node) for node in flow.nodes] if flow else (),
        )

    async def GetFlowSchema(
        self, request: flow_pb2.GetFlowSchemaRequest, context: CallContext
    ) -> flow_pb2.GetFlowSchemaResponse:
        return flow_pb2.GetFlowSchemaResponse(schema=_schema())


class RunServicer(flow_pb2_grpc.RunServiceServicer):
    """Running flows."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    async def RunFlow(self, request: flow_pb2.RunFlowRequest, context: CallContext) -> flow_pb2.RunFlowResponse:
        name = await self._flows.resolve(conversion.flow_id(request.name))
        compiled = await self._flows.varied(name, from_struct(request.overrides) if request.HasField("overrides") else {})
        call = conversion.call(request, compiled.flow)
        return conversion.result(await compiled.run(from_struct(request.inputs), name=name, call=call))

    async def StreamFlow(
        self,
        request: flow_pb2.StreamFlowRequest,
        context: CallContext,
    ) -> AsyncIterator[flow_pb2.StreamFlowResponse]:
        name = await self._flows.resolve(conversion.flow_id(request.name))
        compiled = await self._flows.varied(name, from_struct(request.overrides) if request.HasField("overrides") else {})
        call = conversion.call(request, compiled.flow)
        async with aclosing(compiled.events(from_struct(request.inputs), name=name, call=call)) as events:
            async for event in events:
                yield conversion.event(event)
