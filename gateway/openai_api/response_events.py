"""A streamed response: events that each say their type, number and what has changed.

response.created, response.in_progress
response.output_item.added, response.content_part.added, response.output_text.delta ..., response.output_text.done,
response.content_part.done, response.output_item.done
response.completed, or response.incomplete, or response.failed
"""

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.openai_api.failures import error_object
from gateway.openai_api.response_object import ResponseObject, call_item, message_id, message_item, text_part
from gateway.openai_api.running import Answer
from penstock.errors import Code, PenstockError


class ResponseEvents:
    """The events of one response, framed; each method gives what is to be sent next."""

    def __init__(self, about: ResponseObject) -> None:
        self.about = about
        self._next = 0
        self._said: list[str] = []
        self._message_id = ""
        self._delta = b""
        self._items: list[Mapping[str, Any]] = []

    def text(self, text: str) -> bytes:
        """More of the answer's text."""
        begin = b"" if self._message_id else self._begin() + self._begin_message()
        self._said.append(text)
        number = self._next
        self._next += 1
        return b'%b%b%d,"delta":%b}\n\n' % (begin, self._delta, number, orjson.dumps(text))

    def rest(self, answer: Answer) -> bytes:
        """What is still to say once the run has ended."""
        pieces = [] if self._next else [self._begin()]
        said = "".join(self._said)
        is_silent = not self._message_id and not answer.calls
        if answer.text.startswith(said) and (len(answer.text) > len(said) or is_silent):
            pieces.append(self.text(answer.text[len(said) :]))
        if self._message_id:
            pieces.append(self._end_message(cut=answer.finish_reason == "length"))
        pieces += [self._call(call_item(*each)) for each in answer.calls]
        response = self.about.ended(answer, self._items)
        pieces.append(self._event(f"response.{response['status']}", response=response))
        return b"".join(pieces)

    def failed(self, error: PenstockError) -> bytes:
        """That the rest will not come."""
        begin = b"" if self._next else self._begin()
        told = error_object(error, "input")
        # The one field of the event that is an enumeration: every failure that is not among its few is the server's.
        code = "rate_limit_exceeded" if error.code is Code.RESOURCE_EXHAUSTED else "server_error"
        response = self.about.failed({"code": code, "message": told["message"]}, self._items)
        return begin + self._event("response.failed", response=response)

    def _begin(self) -> bytes:
        response = self.about.begun()
        return self._event("response.created", response=response) + self._event("response.in_progress", response=response)

    def _begin_message(self) -> bytes:
        self._message_id = message_id()
        item = {"type": "message", "id": self._message_id, "status": "in_progress", "role": "assistant", "content": []}
        common = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        delta = orjson.dumps({"type": "response.output_text.delta", **common, "logprobs": []})[:-1]
        self._delta = b'event: response.output_text.delta\ndata: %b,"sequence_number":' % delta
        added = self._event("response.output_item.added", output_index=0, item=item)
        return added + self._event("response.content_part.added", **common, part=text_part(""))

    def _end_message(self, *, cut: bool) -> bytes:
        text = "".join(self._said)
        common = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        item = message_item(self._message_id, text, cut=cut)
        self._items.append(item)
        return (
            self._event("response.output_text.done", **common, text=text, logprobs=[])
            + self._event("response.content_part.done", **common, part=text_part(text))
            + self._event("response.output_item.done", output_index=0, item=item)
        )

    def _call(self, item: dict[str, Any]) -> bytes:
        index, common = len(self._items), {"item_id": item["id"], "output_index": len(self._items)}
        self._items.append(item)
        added = {**item, "arguments": "", "status": "in_progress"}
        told = {"arguments": item["arguments"], "name": item["name"]}
        return (
            self._event("response.output_item.added", output_index=index, item=added)
            + self._event("response.function_call_arguments.delta", **common, delta=item["arguments"])
            + self._event("response.function_call_arguments.done", **common, **told)
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._next, **fields})
        self._next += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
