"""The answers of /api/v1/run: {"session_id", "outputs": [{"inputs", "outputs": [a result for each component]}]}."""

from collections.abc import Iterable, Sequence

from gateway.langflow_api.asking import Asked, Ran
from gateway.langflow_api.messages import COMPLETE, NO_USAGE, Values, joined, now, template, text_json
from gateway.langflow_api.new_id import new_id
from gateway.origin import Component


class Telling:
    """What of a run is the same wherever it is told: the ids and times of its messages.

    `streamed` are the components whose messages were told as tokens.
    """

    __slots__ = ("_begun", "_ids", "_run", "_session", "_timestamps", "asked", "streamed")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.streamed: set[str] = set()
        self._begun = now()
        self._session = text_json(asked.session)
        self._run = f'"{asked.run}"'.encode()
        self._ids: dict[str, str] = {}
        self._timestamps: dict[str, str] = {}

    def id_of(self, component: Component) -> str:
        """The id of the component's message."""
        known = self._ids.get(component.id)
        if known is None:
            known = self._ids[component.id] = new_id()
        return known

    def time_of(self, component: Component) -> str:
        """When the component's message was first told; a user's, when the run began."""
        if component.role == "chat_input":
            return self._begun
        known = self._timestamps.get(component.id)
        if known is None:
            known = self._timestamps[component.id] = now()
        return known

    def values(self, component: Component, text: str, *, usage: bytes = NO_USAGE, state: bytes = COMPLETE) -> Values:
        """What stands in the slots of the component's message."""
        return {
            "session": self._session,
            "text": text_json(text),
            "timestamp": f'"{self.time_of(component)}"'.encode(),
            "run": self._run,
            "id": f'"{self.id_of(component)}"'.encode(),
            "usage": usage,
            "state": state,
            "icon": self._icon(component),
        }

    def _icon(self, component: Component) -> bytes:
        """LangFlow shows the icon of what made a message where it streamed it."""
        if component.id not in self.streamed or component.source is None or component.source.icon is None:
            return b"null"
        return text_json(component.source.icon)

    def usage_of(self, component: Component, ended: Ran) -> bytes:
        """The tokens that LangFlow counts for a message: those of an answer that it did not stream."""
        counted = component.role == "chat_output" and component.id not in self.streamed
        return ended.usage_json if counted else NO_USAGE


def run_outputs(telling: Telling, ended: Ran, chosen: Iterable[Component], *, spaced: bool = False) -> bytes:
    """One entry of "outputs", as JSON."""
    asked, kind = telling.asked, "spaced_result" if spaced else "result"
    results = []
    for component in chosen:
        text = ended.texts.get(component.id)
        if text is not None:  # Not of a branch that was not taken.
            values = telling.values(component, text, usage=telling.usage_of(component, ended))
            results.append(template(asked.face, kind, component).render(values))
    colon, comma = (b": ", b", ") if spaced else (b":", b",")
    inputs = b"{}" if asked.input_value is None else b'{"input_value"%s%s}' % (colon, text_json(asked.input_value))
    return b'{"inputs"%s%s%s"outputs"%s%s}' % (colon, inputs, comma, colon, joined(results, spaced=spaced))


def run_answer(session: str, outputs: Sequence[bytes], *, spaced: bool = False) -> bytes:
    """The whole answer, as JSON."""
    if spaced:
        return b'{"session_id": %s, "outputs": %s}' % (text_json(session), joined(outputs, spaced=True))
    return b'{"session_id":%s,"outputs":%s}' % (text_json(session), joined(outputs))
