"""/api/v1/run/{flow}, with and without a stream, /api/v1/run/session/{flow} and /api/v1/run/advanced/{flow}."""

from contextlib import aclosing
from typing import Final

from gateway.langflow_api.answers import Telling, run_answer, run_outputs
from gateway.langflow_api.asking import Asked, Ran, ask, chosen_outputs, ran
from gateway.langflow_api.calls import RUN, refuse, variables
from gateway.langflow_api.face import Face, Faces
from gateway.langflow_api.history import MessageLog
from gateway.langflow_api.messages import COMPLETE, PARTIAL, template, text_json
from gateway.langflow_api.reading import AdvancedRequest, RunRequest, body, flag, run_request
from gateway.langflow_api.telling import Begun, Ended, Happening, Said, Token, tell
from gateway.langflow_api.tweaks import check_twice
from gateway.langflow_api.wording import Refused, failure_text, is_failure
from gateway.origin import Component
from penstock.errors import BackendUnavailable, PenstockError
from penstock.transcoding.dialect import DialectCall

NODE: Final = "node"


class Runs:
    """Handlers of runs."""

    def __init__(self, faces: Faces, log: MessageLog) -> None:
        self._faces = faces
        self._log = log

    async def run(self, call: DialectCall) -> None:
        """POST /api/v1/run/{flow}."""
        try:
            request, streams = run_request(call), flag(call.query, "stream")
        except Refused as refusal:
            return await refuse(call, refusal)
        face = await self._faces.find(call, call.parts[0])
        if streams:
            return await self._stream(call, face, request)
        try:
            asked = _asked(call, face, request)
        except Refused as refusal:
            return await refuse(call, refusal)
        chosen = _chosen(face, request)
        telling = Telling(asked)
        ended = await ended_run(call, telling, chosen)
        outputs = run_outputs(telling, ended, chosen)
        self._log.add(telling, ended)
        await call.exchange.answer(200, run_answer(asked.session, [outputs]))
        return None

    async def advanced(self, call: DialectCall) -> None:
        """POST /api/v1/run/advanced/{flow}: one run after the other."""
        try:
            request = body(call, AdvancedRequest)
        except Refused as refusal:
            return await refuse(call, refusal)
        face = await self._faces.find(call, call.parts[0])
        try:
            every = [
                ask(
                    face,
                    input_value=each.input_value or "",
                    input_type=each.type,
                    components=each.components or (),
                    tweaks=request.tweaks,
                    variables=variables(call.headers),
                    session=request.session_id,
                )
                for each in request.inputs or _NO_INPUT
            ]
        except Refused as refusal:
            return await refuse(call, refusal)
        chosen = chosen_outputs(face, "any", request.outputs or ())
        outputs = []
        for asked in every:
            telling = Telling(asked)
            ended = await ended_run(call, telling, chosen)
            outputs.append(run_outputs(telling, ended, chosen))
            self._log.add(telling, ended)
        await call.exchange.answer(200, run_answer(every[0].session, outputs))
        return None

    async def _stream(self, call: DialectCall, face: Face, request: RunRequest) -> None:
        """Every event is a JSON object and an empty line, without the "data:" of server-sent events.

        What fails before the run has begun is an answer with its status, unless the run's own words are to blame: then it is
        an event, as it is in LangFlow.
        """
        try:
            asked = _asked(call, face, request)
        except Refused as refusal:
            try:
                await refuse(call, refusal)
            except Refused:
                await call.start_stream()
                await call.write(_error(_told(refusal)))
                return await call.end()
        telling = Telling(asked)
        chosen = _chosen(face, request)
        try:
            async with aclosing(tell(call, telling, node_outputs=_needs_nodes(face, chosen))) as happenings:
                async for happening in happenings:
                    await self._write(call, telling, happening, chosen)
        except PenstockError as error:
            if not call.exchange.started and not is_failure(error):
                raise
            if not call.exchange.started:
                await call.start_stream()
            await call.write(_error(failure_text(error, component_of(face, error))))
        return await call.end()

    async def _write(self, call: DialectCall, telling: Telling, happening: Happening, chosen: tuple[Component, ...]) -> None:
        if isinstance(happening, Token):
            said = b'{"chunk": %s, "id": "%s"}' % (text_json(happening.text), telling.id_of(happening.component).encode())
            await call.write(_event("token", said))
        elif isinstance(happening, Said):
            state = PARTIAL if happening.partial else COMPLETE
            values = telling.values(happening.component, happening.text, usage=happening.usage, state=state)
            rendered = template(telling.asked.face, "event", happening.component).render(values)
            await call.write(_event("add_message", rendered))
        elif isinstance(happening, Begun):
            await call.start_stream()
        elif isinstance(happening, Ended):
            outputs = run_outputs(telling, happening.ran, chosen, spaced=True)
            self._log.add(telling, happening.ran)
            await call.write(_event("end", b'{"result": %s}' % run_answer(telling.asked.session, [outputs], spaced=True)))


def component_of(face: Face, error: PenstockError) -> str:
    """The name of the component in which an error happened; empty where it is none's."""
    node = error.metadata.get(NODE, "").partition("/")[0]
    component = face.part_of.get(node)
    return component.display_name if component else node


def _asked(call: DialectCall, face: Face, request: RunRequest) -> Asked:
    check_twice(request.tweaks or {}, request.input_value, request.input_type)
    return ask(
        face,
        input_value=request.input_value,
        input_type=request.input_type,
        tweaks=request.tweaks,
        variables=variables(call.headers),
        session=request.session_id,
    )


def _chosen(face: Face, request: RunRequest) -> tuple[Component, ...]:
    return chosen_outputs(face, request.output_type, (request.output_component,) if request.output_component else ())


def _needs_nodes(face: Face, chosen: tuple[Component, ...]) -> bool:
    return any(each.id not in face.output_ids for each in chosen)


async def ended_run(call: DialectCall, telling: Telling, chosen: tuple[Component, ...]) -> Ran:
    """Runs to the end. Raises PenstockError, which names the component that it is of.

    What components gave that are no outputs is told by the events of a stream alone.
    """
    face = telling.asked.face
    try:
        if not _needs_nodes(face, chosen):
            return ran(telling.asked, await call.unary(RUN, telling.asked.request()))
        return await streamed_to_the_end(call, telling)
    except PenstockError as error:
        error.located(component=component_of(face, error))
        raise


async def streamed_to_the_end(call: DialectCall, telling: Telling) -> Ran:
    """Runs as a stream that nobody sees, for what its components gave. Raises PenstockError."""
    ended: Ran | None = None
    async with aclosing(tell(call, telling, node_outputs=True)) as happenings:
        async for happening in happenings:
            if isinstance(happening, Ended):
                ended = happening.ran
    telling.streamed.clear()
    if ended is None:
        raise BackendUnavailable("the run broke off: its stream ended without saying that it was done")
    return ended


def _event(name: str, data: bytes) -> bytes:
    return b'{"event": "%s", "data": %s}\n\n' % (name.encode(), data)


def _error(message: str) -> bytes:
    return _event("error", b'{"error": %s}' % text_json(message))


def _told(refusal: Refused) -> str:
    """A refusal in one line, as LangFlow tells it where there is no status to tell it by."""
    detail = refusal.body.get("detail")
    if isinstance(detail, dict):
        return f"Refused tweak keys {detail['fields']}: {detail['message']}"
    return str(detail)


_NO_INPUT: Final = AdvancedRequest.model_validate({"inputs": [{"input_value": "", "components": []}]}).inputs or []
