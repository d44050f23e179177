"""The routes of OpenAI's API on the gateway."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

from gateway.backends import Sessions
from gateway.flows import Flows
from gateway.openai_api import models
from gateway.openai_api.chat import ChatCompletions
from gateway.openai_api.conversations import Conversations
from gateway.openai_api.description import described
from gateway.openai_api.failures import fail
from gateway.openai_api.responses import Responses
from gateway.openai_api.running import FlowsAsModels
from penstock.errors import MethodNotAllowed
from penstock.transcoding.dialect import DialectCall, DialectRoute, Handler

_MODELS: Final = "/v1/models"
_MODEL: Final = "/v1/models/"


class OpenAiDialect:
    """A Dialect (penstock.transcoding.dialect)."""

    def __init__(self, flows: Flows, sessions: Sessions) -> None:
        known = FlowsAsModels(flows)
        responses = Responses(known, Conversations(sessions))
        self._routes: Mapping[str, tuple[str, DialectRoute, DialectRoute]] = {
            "/v1/chat/completions": _routes("POST", ChatCompletions(known).handle, said="messages"),
            "/v1/responses": _routes("POST", responses.handle, said="input"),
            _MODELS: _routes("GET", models.list_models),
        }

    def find(self, http_method: str, path: str) -> DialectRoute | None:
        found = self._routes.get(path)
        if found is None:
            return _model_route(http_method, path) if path.startswith(_MODEL) else None
        taken, route, refusal = found
        return route if http_method == taken or (taken == "GET" and http_method == "HEAD") else refusal

    def describe(self) -> Mapping[str, Any]:
        return described()


def _routes(http_method: str, handler: Handler, *, said: str = "messages") -> tuple[str, DialectRoute, DialectRoute]:
    """The verb of a path, its route, and the one of every other verb."""
    failing = partial(fail, said=said)
    allowed = "GET, HEAD" if http_method == "GET" else http_method
    refusal = DialectRoute(handler=partial(_refuse, allowed=allowed), fail=failing)
    return http_method, DialectRoute(handler=handler, fail=failing), refusal


def _model_route(http_method: str, path: str) -> DialectRoute:
    if http_method not in {"GET", "HEAD"}:
        return DialectRoute(handler=partial(_refuse, allowed="GET, HEAD"), fail=fail)
    return DialectRoute(handler=models.get_model, fail=fail, parts=(unquote(path.removeprefix(_MODEL)),))


async def _refuse(call: DialectCall, *, allowed: str) -> None:
    raise MethodNotAllowed(f"{call.exchange.path} takes {allowed}", metadata={"allow": allowed})
