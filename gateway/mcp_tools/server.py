"""The MCP server over the flows. The only importer of mcp, and imported with the first request alone."""

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError

import penstock
from gateway.mcp_tools import tools
from penstock.errors import Code, FlowNotFound, PenstockError
from penstock.transcoding.dialect import DialectCall
from penstock.wire import to_status

CALL: Final = "penstock.call"
"""Where an ASGI scope has the call that it is of."""
_PROTOCOL_CODES: Final = {Code.UNAUTHENTICATED: -32001, Code.PERMISSION_DENIED: -32003}
"""Failures that no model can do anything about; all others are told as the tool's answer."""

Scope = MutableMapping[str, Any]


@asynccontextmanager
async def serving(message_bytes_max: int) -> AsyncIterator[StreamableHTTPSessionManager]:
    """The server, which answers each request by itself and keeps nothing between them."""
    server: Server[Any] = Server(
        "penstock",
        version=penstock.__version__,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        get_tool_input_schema=lambda _: None,  # No parameter of a flow is a header.
    )
    manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=message_bytes_max)
    async with manager.run():
        yield manager


async def _list_tools(context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    try:
        found, following = await tools.list_tools(_call(context), (params.cursor if params else None) or "")
    except PenstockError as error:
        raise _protocol_error(error) from error
    return types.ListToolsResult(tools=[_tool(each) for each in found], next_cursor=following or None)


async def _call_tool(context: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
    try:
        answer = await tools.call_tool(_call(context), params.name, params.arguments or {})
    except PenstockError as error:
        if isinstance(error, FlowNotFound) or error.code in _PROTOCOL_CODES:
            raise _protocol_error(error) from error
        return types.CallToolResult(content=[_text(to_status(error).message)], is_error=True)
    return types.CallToolResult(content=[_text(answer.text)], structured_content=answer.structured)


def _call(context: ServerRequestContext[Any]) -> DialectCall:
    assert context.request is not None  # noqa: S101  # Over HTTP there always is one.
    call: DialectCall = context.request.scope[CALL]
    return call


def _tool(tool: tools.FlowTool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description or None,
        input_schema=dict(tool.input_schema),
        output_schema=dict(tools.OUTPUT_SCHEMA),
    )


def _text(text: str) -> types.TextContent:
    return types.TextContent(text=text)


def _protocol_error(error: PenstockError) -> MCPError:
    code = _PROTOCOL_CODES.get(error.code, types.INVALID_PARAMS if error.code.http_status < 500 else types.INTERNAL_ERROR)
    return MCPError(code, to_status(error).message, {"reason": error.reason})
