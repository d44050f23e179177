"""/api/v1/responses: LangFlow's own reading of OpenAI's Responses API, with its home-made chunks.

OpenAI's API itself is on /v1. Here "model" is a flow, and a response's id is the session to go on with.
"""

import time
from contextlib import aclosing
from typing import Any, Final
from uuid import uuid4

import orjson

from gateway.langflow_api.answers import Telling
from gateway.langflow_api.asking import Asked, Ran, ask, ran
from gateway.langflow_api.calls import RUN, refuse, variables
from gateway.langflow_api.face import Faces
from gateway.langflow_api.frames import spaced
from gateway.langflow_api.history import MessageLog
from gateway.langflow_api.messages import text_json
from gateway.langflow_api.reading import ResponsesRequest, body
from gateway.langflow_api.runs import component_of
from gateway.langflow_api.telling import Begun, Ended, Token, tell
from gateway.langflow_api.wording import Refused, failure_text, is_failure
from penstock.errors import FlowNotFound, PenstockError
from penstock.transcoding.dialect import DialectCall

_DONE: Final = b"data: [DONE]\n\n"


class Responses:
    """The handler."""

    def __init__(self, faces: Faces, log: MessageLog) -> None:
        self._faces = faces
        self._log = log

    async def create(self, call: DialectCall) -> None:
        """POST /api/v1/responses. What can't be done is told with status 200, as LangFlow does."""
        try:
            request = body(call, ResponsesRequest)
            if request.tools is not None:
                raise _error("Tools are not supported yet", "invalid_request_error", "tools_not_supported")
        except Refused as refusal:
            return await refuse(call, refusal)
        try:
            face = await self._faces.find(call, request.model)
        except FlowNotFound:
            raise _error(f"Flow with id '{request.model}' not found", "invalid_request_error", "flow_not_found") from None
        if not any(each.role == "chat_input" for each in face.components):
            message = "Flow must have a ChatInput component to be compatible with OpenAI Responses API"
            return await refuse(call, _error(message, "invalid_request_error", "invalid_flow_request"))
        asked = ask(
            face,
            input_value=request.input,
            input_type="chat",
            variables=variables(call.headers),
            session=request.previous_response_id or str(uuid4()),
        )
        if request.stream:
            return await self._stream(call, request, asked)
        try:
            ended = ran(asked, await call.unary(RUN, asked.request()))
        except PenstockError as error:
            if not is_failure(error):
                raise
            raise _error(failure_text(error, component_of(face, error)), "processing_error", None) from None
        self._log.add(Telling(asked), ended)
        return await call.answer(200, _response(request, asked, ended))

    async def _stream(self, call: DialectCall, request: ResponsesRequest, asked: Asked) -> None:
        telling, created = Telling(asked), int(time.time())
        head = orjson.dumps(
            {"id": asked.session, "object": "response.chunk", "created": created, "model": request.model}
        ).removesuffix(b"}")

        async def write(delta: bytes, ending: bytes = b'"status":null,"finish_reason":null') -> None:
            await call.write(b'data: %s,"delta":%s,%s}\n\n' % (head, delta, ending))

        try:
            async with aclosing(tell(call, telling)) as happenings:
                async for happening in happenings:
                    match happening:
                        case Begun():
                            await call.start_stream()
                            await write(b'{"content":""}')
                        case Token(text=text):
                            await write(b'{"content":%s}' % text_json(text))
                        case Ended(ran=ended):
                            for component in asked.face.outputs:
                                if component.id not in telling.streamed and ended.texts.get(component.id):
                                    await write(b'{"content":%s}' % text_json(ended.texts[component.id]))
                            self._log.add(telling, ended)
                            await write(b"{}", b'"status":"completed","finish_reason":"stop"')
        except PenstockError as error:
            if not call.exchange.started:
                if not is_failure(error):
                    raise
                await call.start_stream()
            said = error.message
            await write(b'{"content":%s}' % text_json(said), b'"status":"failed","finish_reason":"error"')
            await call.write(_DONE)
            return await call.end()
        whole = {"id": asked.session, "object": "response", "created_at": created, "status": "completed"}
        completed = {"type": "response.completed", "response": whole | {"model": request.model, "usage": None}}
        await call.write(b"event: response.completed\ndata: %s\n\n" % spaced(completed))
        await call.write(_DONE)
        return await call.end()


def _response(request: ResponsesRequest, asked: Asked, ended: Ran) -> dict[str, Any]:
    text = next((ended.texts[each.id] for each in asked.face.outputs if each.id in ended.texts), "")
    said = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": f"msg_{asked.session}", "status": "completed", "role": "assistant", "content": [said]}
    return {
        "id": asked.session, "object": "response", "created_at": int(time.time()), "status": "completed", "error": None,
        "incomplete_details": None, "instructions": None, "max_output_tokens": None, "model": request.model,
        "output": [message], "parallel_tool_calls": True, "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": None, "summary": None}, "store": True, "temperature": 1.0, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled",
        "usage": ended.usage, "user": None, "metadata": {},
    }  # fmt: skip


def _error(message: str, kind: str, code: str | None) -> Refused:
    error = {"message": message, "type": kind}
    return Refused(200, {"error": error | {"code": code} if code else error})
