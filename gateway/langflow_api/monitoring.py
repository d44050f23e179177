"""/api/v1/monitor/messages and its sessions: what was said, read and forgotten. Each caller has its own tenant's."""

from typing import Final
from urllib.parse import unquote

import orjson

from gateway.backends import Sessions
from gateway.langflow_api.asking import memory
from gateway.langflow_api.calls import LIST, check_json, refuse
from gateway.langflow_api.face import Faces
from gateway.langflow_api.history import MessageLog, Row
from gateway.langflow_api.messages import joined
from gateway.langflow_api.reading import loads, number
from gateway.langflow_api.wording import Refused, refused
from penstock import identity
from penstock.errors import FlowNotFound
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall

LIMIT: Final = 100
LIMIT_MAX: Final = 200
OFFSET_MAX: Final = 1_000_000
IDS_MAX: Final = 500
_ORDERED_BY: Final = frozenset({"timestamp", "sender", "sender_name", "session_id", "text", "id", "flow_id"})


class Monitoring:
    """Handlers of messages."""

    def __init__(self, faces: Faces, log: MessageLog, sessions: Sessions) -> None:
        self._faces = faces
        self._log = log
        self._sessions = sessions

    async def messages(self, call: DialectCall) -> None:
        """GET /api/v1/monitor/messages: the newest window, oldest first unless another order is asked for."""
        query = call.query
        try:
            limit, offset = number(query, "limit", LIMIT, LIMIT_MAX), number(query, "offset", 0, OFFSET_MAX)
            order, by = query.get("order", "ASC"), query.get("order_by", "timestamp")
            if order.upper() not in ("ASC", "DESC"):
                raise refused(400, f"Invalid order direction: {order[:80]}")
            if by not in _ORDERED_BY:
                raise refused(400, f"Invalid order_by field: {by[:80]}")
        except Refused as refusal:
            return await refuse(call, refusal)
        flow = await self._flow(call)
        if flow == "":
            return await call.answer(200, [])
        session = query.get("session_id")
        rows = [
            row
            for row in self._log.rows(identity.current().tenant, flow, None if session is None else unquote(session))
            if query.get("sender") in (None, row.sender) and query.get("sender_name") in (None, row.sender_name)
        ]
        window = rows[::-1][offset : offset + limit]
        await call.exchange.answer(200, joined(_ordered(window, by, descending=order.upper() == "DESC")))
        return None

    async def sessions(self, call: DialectCall) -> None:
        """GET /api/v1/monitor/messages/sessions: those written last first."""
        try:
            limit = number(call.query, "limit", LIMIT, LIMIT_MAX)
            offset = number(call.query, "offset", 0, OFFSET_MAX)
        except Refused as refusal:
            return await refuse(call, refusal)
        flow = await self._flow(call)
        known = [] if flow == "" else self._log.sessions(identity.current().tenant, flow)
        await call.answer(200, known[offset : offset + limit])
        return None

    async def forget_messages(self, call: DialectCall) -> None:
        """DELETE /api/v1/monitor/messages, the ids in the body."""
        ids = await self._names(call)
        self._log.forget_messages(identity.current().tenant, ids)
        await call.exchange.answer(204, b"")

    async def forget_session(self, call: DialectCall) -> None:
        """DELETE /api/v1/monitor/messages/session/{session}: its messages, and what flows remember of it."""
        await self._admit(call)
        await self._forget([call.parts[0]])
        await call.exchange.answer(204, b"")

    async def forget_sessions(self, call: DialectCall) -> None:
        """DELETE /api/v1/monitor/messages/sessions, their ids in the body."""
        gone = await self._forget(await self._names(call))
        message = "Messages deleted successfully" if gone else "No sessions to delete"
        await call.answer(200, {"message": message, "deleted_count": gone})

    async def _forget(self, sessions: list[str]) -> int:
        gone = self._log.forget_sessions(identity.current().tenant, sessions)
        # A session that was given no name has its flow's, and may be remembered for longer than its messages are listed.
        for flow, session in {*gone, *((session, session) for session in sessions)}:
            await self._sessions.forget(memory(flow, session))
        return len({session for _, session in gone})

    async def _names(self, call: DialectCall) -> list[str]:
        """The list of texts in the body, after what the key deserves. Raises Refused."""
        check_json(call)
        try:
            value: list[str] = loads(call.body)
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise refused(422, [{"type": "list_type", "loc": ["body"], "msg": "Input should be a valid list of strings"}])
            if len(value) > IDS_MAX:
                raise refused(400, f"Cannot delete more than {IDS_MAX} at once. Please batch your requests.")
        except Refused as refusal:
            await refuse(call, refusal)
        await self._admit(call)
        return value

    async def _flow(self, call: DialectCall) -> str | None:
        """The id of the flow that is asked about, None where none is, "" where there is none, after what the key deserves."""
        name = call.query.get("flow_id")
        if not name:
            await self._admit(call)
            return None
        try:
            return (await self._faces.find(call, name, certain=True)).id
        except FlowNotFound:
            return ""

    async def _admit(self, call: DialectCall) -> None:
        """Lets in who may read. Raises what the key deserves."""
        await call.unary(LIST, flow_pb2.ListFlowsRequest(page_size=1))


def _ordered(rows: list[Row], by: str, *, descending: bool) -> list[bytes]:
    """The messages as JSON. `rows` are the newest first."""
    if by == "timestamp":
        return [row.render() for row in (rows if descending else rows[::-1])]
    rendered = [(str(orjson.loads(text)[by]), text) for text in (row.render() for row in rows)]
    return [text for _, text in sorted(rendered, key=_first, reverse=descending)]


def _first(pair: tuple[str, bytes]) -> str:
    return pair[0]
