"""Where a flow begins and ends: messages, texts, files and webhooks in, messages and texts out."""

from gateway.langflow.carried import TEXT_NAMES, Carried
from gateway.langflow.place import Place
from gateway.langflow.rendering import as_text
from gateway.values import PortType

FILE_NAMES = frozenset({"text", "content"})
USERS = frozenset({"", "User"})


def chat_input(place: Place) -> None:
    """The message that a run is given; added to the session where the component stores it."""
    if place.connected("input_value"):
        text_input(place)
        return
    port = _taken(place, "chat_input", place.draft.claim("input_value", place.component.id))
    if place.component.flag("should_store_message", default=True):
        port = _stored(place, port, "user" if place.written("sender") in USERS else "assistant")
    place.note("a message's files and images are not taken: our models read text")
    place.gives_all(Carried(port=port, type=PortType.TEXT, names=TEXT_NAMES))


def text_input(place: Place) -> None:
    """A text that a run may be given, or what another component gives."""
    value = place.value("input_value")
    if value is not None:
        place.gives_all(Carried(port=as_text(place, value), type=PortType.TEXT))
        return
    name = place.draft.claim("", place.component.id)
    place.gives_all(Carried(port=_taken(place, "text_input", name), type=PortType.TEXT))


def file(place: Place) -> None:
    """A file's text, which a run is given in the file's place."""
    name = place.draft.claim("", place.component.id)
    port = place.input(name, {"type": "text", "required": False, "default": ""})
    place.entry.input = name
    place.note(f"the file itself stays where it is: give its text as the input {name!r} of a run")
    place.gives_all(Carried(port=port, type=PortType.TEXT, names=FILE_NAMES))


def webhook(place: Place) -> None:
    """The body of a webhook's call."""
    name = place.draft.claim("data", place.component.id)
    port = place.input(name, {"type": "json", "required": False})
    place.entry.role, place.entry.input = "webhook", name
    place.tunes("data", f"input:{name}")
    place.gives_all(Carried(port=port, type=PortType.JSON, shape="any"))


def chat_output(place: Place) -> None:
    """The answer of a run; added to the session where the component stores it."""
    port = _answer(place)
    if place.component.flag("should_store_message", default=True):
        _stored(place, port, "assistant" if place.written("sender", "Machine") != "User" else "user")
    _returned(place, port, "chat_output")


def text_output(place: Place) -> None:
    """A text that a run returns."""
    _returned(place, _answer(place), "text_output")


def _taken(place: Place, role: str, name: str) -> str:
    variable = place.variable("input_value")
    default = {"variable": variable} if variable else {"default": place.written("input_value")}
    port = place.input(name, {"type": "text", "required": False, **default})
    if place.outermost:
        place.entry.role, place.entry.input = role, name
        place.tunes("input_value", f"input:{name}")
    return port


def _stored(place: Place, port: str, role: str) -> str:
    return f"{place.add('history', {'operation': 'append', 'role': role}, {'text': port}, part='stored')}.text"


def _answer(place: Place) -> str:
    value = place.value("input_value")
    return as_text(place, value) if value is not None else place.constant("input_value", place.written("input_value"))


def _returned(place: Place, port: str, role: str) -> None:
    if not place.outermost:
        place.refuse("an output inside a loop", instead="connect it to the loop's done output")
        return
    name = place.draft.claim("message" if place.alone else "", place.component.id)
    place.add("output", {"name": name}, {"value": port})
    place.entry.role, place.entry.output = role, name
    sources = place.sources.get("input_value", ())
    place.entry.source = sources[-1] if sources else None
    place.gives_all(Carried(port=port, type=PortType.TEXT))
