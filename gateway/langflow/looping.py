"""LangFlow's loop as our map: what is between its items and the way back is the body, run for each item."""

from dataclasses import dataclass, field
from typing import Final

from gateway.langflow.carried import Broken, Carried, Given
from gateway.langflow.draft import Draft
from gateway.langflow.place import NOWHERE, Place
from gateway.langflow.rendering import computed
from gateway.values import PortType

ITEMS_MAX: Final = 1000
ITEM: Final = "item"


@dataclass(slots=True)
class Body:
    """The body while it is converted. `captured` are the ports outside that it takes values from, by its names for them."""

    draft: Draft = field(default_factory=Draft)
    captured: dict[str, str] = field(default_factory=dict)
    _inside: dict[str, Carried] = field(default_factory=dict)

    def capture(self, value: Given) -> Given:
        """A value from outside as the body has it."""
        if not isinstance(value, Carried) or value is NOWHERE:
            return value
        if value.port not in self._inside:
            name = self.draft.claim(f"given{len(self.captured) + 1}", "given")
            node = self.draft.add(name, "input", {"name": name, "type": value.type.value})
            self.captured[name] = value.port
            self._inside[value.port] = Carried(port=f"{node}.value", type=value.type, names=value.names, shape=value.shape)
        return self._inside[value.port]

    def item(self, items: Carried) -> Carried:
        """The item, which is of what the list is made of."""
        kind = {PortType.LIST: PortType.TEXT, PortType.DOCUMENTS: PortType.DOCUMENTS}.get(items.type, PortType.JSON)
        self.draft.claim(ITEM, ITEM)
        node = self.draft.add(ITEM, "input", {"name": ITEM, "type": kind.value})
        return Carried(port=f"{node}.value", type=kind, names=items.names, shape="one")


def listed(place: Place) -> Carried | None:
    """What the loop goes over, as a list."""
    items = place.value("data")
    if items is None:
        place.refuse("nothing is connected to it", field="data", instead="connect the list that it is to go over")
        return None
    if items.type is PortType.TEXT:
        port = computed(place, "[text]", PortType.LIST, {"text": items.port}, part="items")
        return Carried(port=port, type=PortType.LIST, names=items.names)
    if items.type is PortType.JSON and items.shape != "rows":
        port = computed(place, "flatten([rows])", PortType.JSON, {"rows": items.port}, part="items")
        return Carried(port=port, type=PortType.JSON, shape="rows")
    return items


def closed(place: Place, body: Body, items: Carried, result: Given) -> None:
    """The map node, and what the loop's outputs carry."""
    if not isinstance(result, Carried):
        if not isinstance(result, Broken):
            place.refuse("what comes back to it is not a value", field=ITEM)
        return
    body.draft.add("result", "output", {"name": "result"}, {"value": result.port})
    params = {"item": ITEM, "items_max": ITEMS_MAX, "flatten": True, "body": body.draft.document()}
    node = place.add("map", params, {"items": items.port, **body.captured})
    place.note("runs its body for each item, several at a time; the results stand in the items' order")
    kinds = {PortType.TEXT: PortType.LIST, PortType.LIST: PortType.LIST, PortType.DOCUMENTS: PortType.DOCUMENTS}
    kind = kinds.get(result.type, PortType.JSON)
    place.gives("done", Carried(port=f"{node}.result", type=kind, names=result.names, shape="rows"))
