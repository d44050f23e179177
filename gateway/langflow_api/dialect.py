"""The paths of LangFlow's API, and who answers each."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from gateway.langflow_api.calls import Work, keyed
from gateway.langflow_api.face import Faces
from gateway.langflow_api.history import MessageLog
from gateway.langflow_api.openapi import describe
from gateway.langflow_api.runs import Runs
from gateway.langflow_api.wording import told
from penstock.errors import PenstockError
from penstock.transcoding.dialect import DialectCall, DialectRoute
from penstock.transcoding.exchange import Exchange

_ALONE: Final = frozenset({"/health", "/health_check", "/healthz"})


class LangflowApi:
    """The dialect. A path ends in a variable segment or in none; "{}" stands for it."""

    def __init__(self, faces: Faces, log: MessageLog) -> None:
        runs = Runs(faces, log)
        self._routes: dict[str, dict[str, DialectRoute]] = {}
        self._add("POST", "/api/v1/run/{}", runs.run)
        self._add("POST", "/api/v1/run/session/{}", runs.run)
        self._add("POST", "/api/v1/run/advanced/{}", runs.advanced)

    def find(self, http_method: str, path: str) -> DialectRoute | None:
        """The route; of a path that takes other methods, one that says so."""
        if not path.startswith("/api/") and path not in _ALONE:
            return None
        path = path.removesuffix("/")
        methods, part = self._routes.get(path), ""
        if methods is None:
            head, _, part = path.rpartition("/")
            methods = self._routes.get(f"{head}/{{}}")
        if methods is None:
            head, _, part, last = ("", *path.rsplit("/", 2))[-4:] if path.count("/") > 2 else ("", "", "", "")
            methods = self._routes.get(f"{_}/{{}}/{last}")
        if methods is None:
            return None
        route = methods.get("GET" if http_method == "HEAD" else http_method)
        if route is None:
            return DialectRoute(handler=_wrong_method, fail=fail, parts=tuple(methods))
        return DialectRoute(handler=route.handler, fail=fail, parts=(unquote(part),)) if part else route

    def describe(self) -> Mapping[str, Any]:
        """The paths in OpenAPI."""
        return describe()

    def _add(self, http_method: str, path: str, work: Work) -> None:
        self._routes.setdefault(path, {})[http_method] = DialectRoute(handler=keyed(work), fail=fail)


async def fail(exchange: Exchange, error: PenstockError) -> None:
    """What is wrong with a request that could not even be read."""
    if exchange.started:
        await exchange.fail(error)
        return
    refusal = told(error, has_key=True)
    await answer_refusal(exchange, refusal)
