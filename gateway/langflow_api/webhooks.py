"""/api/v1/webhook/{flow}: whatever is posted is given to the flow, which runs when its turn comes. Nobody waits for it."""

from typing import Final

from gateway.langflow_api.answers import Telling
from gateway.langflow_api.asking import Asked, ask, ran
from gateway.langflow_api.calls import RUN, Detached, refuse, variables
from gateway.langflow_api.face import Face, Faces
from gateway.langflow_api.history import MessageLog
from gateway.langflow_api.jobs import Job, Jobs
from gateway.langflow_api.runs import component_of
from gateway.langflow_api.wording import EMPTY_WEBHOOK, Refused, failure_text, refused
from penstock import identity
from penstock.errors import InvalidArgument, PenstockError
from penstock.transcoding.dialect import DialectCall

STARTED: Final = b'{"message":"Task started in the background","status":"in progress"}'


class Webhooks:
    """The handler. `deadline_s` is the longest that a run may take."""

    def __init__(self, faces: Faces, log: MessageLog, jobs: Jobs, *, deadline_s: float) -> None:
        self._faces = faces
        self._log = log
        self._jobs = jobs
        self._deadline_s = deadline_s

    async def start(self, call: DialectCall) -> None:
        """POST /api/v1/webhook/{flow}. Raises Overloaded."""
        face = await self._faces.find(call, call.parts[0], certain=True)
        try:
            asked = _asked(call, face)
        except Refused as refusal:
            return await refuse(call, refusal)
        job = Job(
            owner=identity.current().tenant,
            flow_id=face.flow_id,
            shown_flow_id=face.id,
            session=asked.session,
            id=asked.run,
        )
        background = Detached(call, self._deadline_s)
        self._jobs.start_unkept(job, lambda _: self._work(background, asked))
        await call.exchange.answer(202, STARTED)
        return None

    async def _work(self, background: Detached, asked: Asked) -> None:
        try:
            response = await background.call().unary(RUN, asked.request())
        except PenstockError as error:
            error.message = failure_text(error, component_of(asked.face, error))
            raise
        self._log.add(Telling(asked), ran(asked, response))


def _asked(call: DialectCall, face: Face) -> Asked:
    """The run: the body as text in the flow's webhook components, nothing in its chat."""
    if not call.body:
        raise refused(400, EMPTY_WEBHOOK)
    try:
        text = call.body.decode()
    except UnicodeDecodeError:
        raise refused(400, "The request body is not UTF-8 text.") from None
    asked = ask(face, input_value="", input_type="chat", variables=variables(call.headers))
    given = {each.input: text for each in face.components if each.role == "webhook" and each.input in face.inputs}
    if not given and not face.components:
        raise InvalidArgument("the flow takes nothing")
    return Asked(face=face, inputs={**asked.inputs, **given}, overrides=asked.overrides, session=asked.session, input_value="")
