"""The paths of LangFlow's API, and who answers each."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from gateway.backends import Sessions
from gateway.flows import Flows
from gateway.langflow_api.calls import Work, keyed
from gateway.langflow_api.face import Faces
from gateway.langflow_api.history import MessageLog
from gateway.langflow_api.jobs import Jobs
from gateway.langflow_api.keeping import Keeping
from gateway.langflow_api.monitoring import Monitoring
from gateway.langflow_api.openapi import describe
from gateway.langflow_api.pages import Pages
from gateway.langflow_api.responses import Responses
from gateway.langflow_api.runs import Runs
from gateway.langflow_api.webhooks import Webhooks
from gateway.langflow_api.wording import told
from gateway.langflow_api.workflows import Workflows
from penstock.errors import PenstockError
from penstock.transcoding.dialect import DialectCall, DialectRoute
from penstock.transcoding.exchange import Exchange
from penstock.transcoding.rendering import dump

_ALONE: Final = frozenset({"/health", "/health_check", "/healthz"})


class LangflowApi:
    """The dialect. `faces_max` flows are known ready; `deadline_s` is the longest run; `body_bytes_max` the largest body."""

    def __init__(
        self, flows: Flows, sessions: Sessions, jobs: Jobs, *, faces_max: int, deadline_s: float, body_bytes_max: int
    ) -> None:
        self._routes: dict[str, dict[str, DialectRoute]] = {}
        faces, log = Faces(flows, faces_max), MessageLog()
        runs, responses = Runs(faces, log), Responses(faces, log)
        self._add("POST", "/api/v1/run/{}", runs.run)
        self._add("POST", "/api/v1/run/session/{}", runs.run)
        self._add("POST", "/api/v1/run/advanced/{}", runs.advanced)
        self._add("POST", "/api/v1/webhook/{}", Webhooks(faces, log, jobs, deadline_s=deadline_s).start)
        self._add("POST", "/api/v1/responses", responses.create)
        workflows = Workflows(faces, log, jobs, deadline_s=deadline_s)
        self._add("POST", "/api/v2/workflows", workflows.execute)
        self._add("GET", "/api/v2/workflows", workflows.status)
        self._add("POST", "/api/v2/workflows/stop", workflows.stop)
        self._add("GET", "/api/v2/workflows/{}/events", workflows.events)
        self._add_what_is_kept(faces, Monitoring(faces, log, sessions), Pages(flows, body_bytes_max))

    def _add_what_is_kept(self, faces: Faces, monitoring: Monitoring, pages: Pages) -> None:
        keeping = Keeping(faces)
        self._add("GET", "/api/v1/flows", keeping.list)
        self._add("POST", "/api/v1/flows", keeping.create)
        self._add("POST", "/api/v1/flows/upload", keeping.upload)
        self._add("GET", "/api/v1/flows/{}", keeping.get)
        self._add("DELETE", "/api/v1/flows/{}", keeping.delete)
        self._add("GET", "/api/v1/monitor/messages", monitoring.messages)
        self._add("DELETE", "/api/v1/monitor/messages", monitoring.forget_messages)
        self._add("GET", "/api/v1/monitor/messages/sessions", monitoring.sessions)
        self._add("DELETE", "/api/v1/monitor/messages/sessions", monitoring.forget_sessions)
        self._add("DELETE", "/api/v1/monitor/messages/session/{}", monitoring.forget_session)
        self._add("GET", "/health", pages.health)
        self._add("GET", "/health_check", pages.health_check)
        self._add("GET", "/healthz", pages.healthz)
        self._add("GET", "/api/v1/version", pages.version)
        self._add("GET", "/api/v1/config", pages.config)

    def find(self, http_method: str, path: str) -> DialectRoute | None:
        """The route; of a path that takes other methods, one that says so."""
        if not path.startswith("/api/") and path not in _ALONE:
            return None
        methods, part = self._match(path.removesuffix("/"))
        if methods is None:
            return None
        route = methods.get("GET" if http_method == "HEAD" else http_method)
        if route is None:
            return DialectRoute(handler=_wrong_method, fail=fail, parts=tuple(methods))
        return DialectRoute(handler=route.handler, fail=fail, parts=(unquote(part),)) if part else route

    def describe(self) -> Mapping[str, Any]:
        """The paths in OpenAPI."""
        return describe()

    def _match(self, path: str) -> tuple[dict[str, DialectRoute] | None, str]:
        """The methods of a path, and its variable segment: the last one, or the one before it."""
        exact = self._routes.get(path)
        if exact is not None:
            return exact, ""
        head, _, last = path.rpartition("/")
        found, part = self._routes.get(f"{head}/{{}}"), last
        if found is None:
            head, _, part = head.rpartition("/")
            found = self._routes.get(f"{head}/{{}}/{last}")
        return (found, part) if part else (None, "")

    def _add(self, http_method: str, path: str, work: Work) -> None:
        """`path` may have one variable segment, {}."""
        self._routes.setdefault(path, {})[http_method] = DialectRoute(handler=keyed(work), fail=fail)


async def fail(exchange: Exchange, error: PenstockError) -> None:
    """What is wrong with a request that could not even be read, or a defect of ours."""
    if exchange.started:
        await exchange.fail(error)
    else:
        refusal = told(error, has_key=True)
        await exchange.answer(refusal.status, dump(refusal.body))


async def _wrong_method(call: DialectCall) -> None:
    allowed = ", ".join(call.parts).encode()
    await call.answer(405, {"detail": "Method Not Allowed"}, ((b"allow", allowed),))
