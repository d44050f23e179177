"""The conversation: what is read of it, and what is added."""

from typing import Any, Final

from gateway.langflow.carried import Carried
from gateway.langflow.export import Component
from gateway.langflow.place import Place
from gateway.langflow.rendering import as_text
from gateway.langflow.rules.models import prompt
from gateway.langflow.templates import format_string
from gateway.values import PortType

TURNS_MAX: Final = 1000
NAMES: Final = {"text": "content", "sender_name": "role", "sender": "role"}
CALLED: Final = {"sender_name": {"user": "User", "assistant": "AI"}, "sender": {"user": "User", "assistant": "Machine"}}
ROLES: Final = {"Machine": ["assistant"], "User": ["user"]}
ROW_NAMES: Final = frozenset({"text", "sender", "sender_name"})


def memory(place: Place) -> None:
    """The turns of the session; or, in the mode Store, a turn that is added to them."""
    if place.written("mode") == "Store":
        store_message(place)
        return
    if place.connected("memory"):
        place.refuse("an external memory", field="memory", instead="the gateway's sessions: remove the connection")
    node = place.add("history", reading(place, place.component))
    place.tunes("n_messages", f"{node}.messages_max")
    place.gives_all(Carried(port=f"{node}.text", type=PortType.TEXT))
    for output in ("messages", "dataframe"):
        if place.wants(output) and not place.wants("messages_text"):
            place.gives(output, Carried(port=f"{node}.messages", type=PortType.JSON, shape="rows"))


def reading(place: Place, component: Component) -> dict[str, Any]:
    """The parameters of a history node in the component's place."""
    count = component.number("n_messages")
    params: dict[str, Any] = {"operation": "read", "messages_max": min(max(int(count or 100), 1), TURNS_MAX)}
    pattern = component.text("template") or "{sender_name}: {text}"
    params |= _template(place, pattern)
    roles = ROLES.get(component.text("sender_type", component.text("sender")))
    if roles:
        params["roles"] = roles
    if component.text("order").lower().startswith("desc"):
        params["newest_first"] = True
    return params


def _template(place: Place, pattern: str) -> dict[str, Any]:
    try:
        template = format_string(pattern)
        unknown = [name for name in template.variables if name not in NAMES]
        problem = f"{{{unknown[0]}}} is unknown" if unknown else ""
    except ValueError as error:
        problem = str(error)
    if problem:
        hint = f"of a turn there are {', '.join(NAMES)}"
        place.refuse(f"the template cannot be used: {problem}", field="template", instead=hint)
        return {}
    called = next((names for name, names in CALLED.items() if name in template.variables), {})
    return {"template": template.ours(lambda name: NAMES[name]), **({"role_names": called} if called else {})}


def store_message(place: Place) -> None:
    """Adds a text to the session and gives it on."""
    sender = place.written("sender_type") if place.has("sender_type") else place.written("sender", "AI")
    role = "user" if "user" in f"{place.written('sender')} {sender}".lower() else "assistant"
    value = place.value("message")
    port = as_text(place, value) if value is not None else prompt(place, "message")
    node = place.add("history", {"operation": "append", "role": role}, {"text": port})
    place.gives_all(Carried(port=f"{node}.text", type=PortType.TEXT))
