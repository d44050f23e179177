"""What a mapping rule works with: one component, what arrives at it, and the document that is being written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.faults import Faults
from gateway.langflow.carried import AsTool, Broken, Carried, Given, Model
from gateway.langflow.draft import Draft
from gateway.langflow.export import Component
from gateway.langflow.naming import plain_id
from gateway.values import PortType

NOWHERE: Final = Carried(port="nowhere.value", type=PortType.TEXT)
"""Stands for the value of a component that has a fault; the document is then never made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a LangFlow flow leaves open: which of our models, collections and connections are meant.

    `collection` None: the store's own name, and "default" where it has none.
    """

    model: str = "default"
    collection: str | None = None
    connection: str = "default"


DEFAULTS: Final = Options()


@dataclass(slots=True, kw_only=True)
class Entry:
    """What becomes of one component, for the origin of the document and for --explain.

    `became` are its nodes with their types; `ports` the ports that give what its outputs carry, "*" for all the others.
    """

    component: Component
    role: str = ""
    input: str = ""
    output: str = ""
    source: Component | None = None
    nodes: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    became: list[str] = field(default_factory=list)
    ports: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Place:
    """One component and everything around it. Rules read its fields, add nodes, and say what its outputs carry.

    `arriving` are what its fields are fed, in the order of the links, by the components of `sources`; `used` the outputs that
    something is made of. `branches`: the flow has a router. `outermost`: the component is not in a loop. `alone`: the
    flow has one output. `answers`: the component feeds an output itself.
    """

    entry: Entry
    draft: Draft
    options: Options
    faults: Faults
    arriving: Mapping[str, Sequence[Given]]
    sources: Mapping[str, Sequence[Component]]
    used: frozenset[str]
    branches: bool
    outermost: bool
    alone: bool
    answers: bool
    given: dict[str, Given] = field(default_factory=dict)
    everything: Given | None = None

    @property
    def component(self) -> Component:
        return self.entry.component

    # What is written in the component.

    def written(self, name: str, default: str = "") -> str:
        """The text of a field."""
        return self.component.text(name, default)

    def has(self, name: str) -> bool:
        """Whether the component has the field."""
        return name in self.component.fields

    def connected(self, name: str) -> bool:
        """Whether a field is fed by another component."""
        return bool(self.arriving.get(name))

    def wants(self, *outputs: str) -> bool:
        """Whether any of these outputs is used. An edge of the oldest releases names none, and means any."""
        return bool(self.used & {*outputs, ""})

    # What arrives.

    @property
    def is_fed_broken(self) -> bool:
        """Whether it is fed by a component that has a fault."""
        return any(isinstance(value, Broken) for values in self.arriving.values() for value in values)

    def value(self, name: str) -> Carried | None:
        """What a field is fed. Of several, the last, as in LangFlow; below a router, whichever branch ran."""
        found = [each for each in self.arriving.get(name, ()) if not isinstance(each, Broken)]
        values = [each for each in found if isinstance(each, Carried)]
        if len(found) < len(self.arriving.get(name, ())):
            return NOWHERE
        if len(values) < len(found):
            self.refuse(f"the field {name!r} is connected to something that is not a value", field=name)
            return NOWHERE
        if len(values) > 1 and self.branches and len({each.type for each in values}) == 1:
            return self._whichever(values[::-1])
        return values[-1] if values else None

    def values(self, name: str) -> list[Carried]:
        """All that a field is fed, which takes a list."""
        return [each if isinstance(each, Carried) else NOWHERE for each in self.arriving.get(name, ())]

    def model(self, *names: str) -> Model:
        """The model that one of these fields is connected to, or else the component itself."""
        models = (each for name in names for each in self.arriving.get(name, ()) if isinstance(each, Model))
        return next(models, Model(component=self.component, fields=self.entry.fields if self.outermost else {}))

    def tools(self, name: str) -> list[Component]:
        """The components that an agent may call."""
        return [each.component for each in self.arriving.get(name, ()) if isinstance(each, AsTool)]

    def _whichever(self, values: Sequence[Carried]) -> Carried:
        names = [f"branch{number}" for number in range(1, len(values) + 1)]
        params = {"type": values[0].type.value, "inputs": names}
        node = self.add("join", params, dict(zip(names, (each.port for each in values), strict=True)), part="join")
        return Carried(port=f"{node}.value", type=values[0].type, shape=values[0].shape)

    # What it becomes.

    def add(self, kind: str, params: dict[str, Any], inputs: Mapping[str, str] | None = None, *, part: str = "") -> str:
        """A node: its id. The main one has the component's id, others end in what `part` they are."""
        wanted = plain_id(self.component.id)
        ending = f"-{part}" if part else ""
        node_id = self.draft.add(f"{wanted[: 64 - len(ending)]}{ending}", kind, params, dict(inputs or {}))
        self.entry.nodes.append(node_id)
        self.entry.became.append(f"{node_id} ({kind})")
        return node_id

    def gives(self, output: str, value: Given) -> None:
        """What one of the outputs carries."""
        self.given[output] = value

    def gives_all(self, value: Given) -> None:
        """What every output carries that is not said by itself."""
        self.everything = value

    def tunes(self, name: str, target: str) -> None:
        """A field that callers may set, and what of ours it is: "node.param" or "input:name". What is in a loop stays."""
        if self.outermost:
            self.entry.fields[name] = target

    def note(self, text: str) -> None:
        """What --explain says of the component."""
        self.entry.notes.append(text)

    def refuse(self, message: str, *, field: str = "", instead: str = "") -> None:
        """A fault of the component."""
        self.faults.add(message, node_id=self.component.id, field=field, suggestion=instead)

    def input(self, name: str, params: dict[str, Any], *, part: str = "") -> str:
        """An input of the flow: its port. Inside a body it is the body's, and always has its default."""
        node = self.add("input", {"name": name, **params}, part=part)
        return f"{node}.value"

    def constant(self, name: str, text: str) -> str:
        """A field's own value as a port: an input of the flow that has it for its default, so that callers may set it."""
        params: dict[str, Any] = {"type": "text", "required": False, "default": text}
        variable = self.variable(name)
        if variable:
            params = {"type": "text", "required": False, "variable": variable}
        wanted = f"{self.component.id}-{name}"
        chosen = self.draft.claim(plain_id(wanted), wanted)
        port = self.input(chosen, params, part=name)
        self.tunes(name, f"input:{chosen}")
        return port

    def variable(self, name: str) -> str:
        """The global variable that a field takes its value from, empty where it has its own."""
        found = self.component.fields.get(name)
        return found.value if found is not None and found.variable and isinstance(found.value, str) else ""


Rule = Callable[[Place], None]
