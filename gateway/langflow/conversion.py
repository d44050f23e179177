"""From an export to a document of ours, or to everything that is wrong with it.

    convert -> export.load, export.read -> selection.selected -> a rule for each component, in the order of the links

A component with a fault gives a Broken value, so that what comes after it is still looked at and no fault is told twice.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.document import SCHEMA_NAME
from gateway.faults import Faults
from gateway.langflow import refusals
from gateway.langflow.carried import Absorbed, AsTool, Broken, Carried, Given
from gateway.langflow.draft import Draft
from gateway.langflow.explanation import Line
from gateway.langflow.export import Component, Export, load, read
from gateway.langflow.handles import Ends
from gateway.langflow.looping import ITEM, Body, closed, listed
from gateway.langflow.origin import origin
from gateway.langflow.place import DEFAULTS, Entry, Options, Place
from gateway.langflow.rules import RULES
from gateway.langflow.rules.agents import TOOLS
from gateway.langflow.selection import OUTPUTS, Selection, selected
from gateway.langflow.stock import is_stock_of
from gateway.validation import refusal
from penstock.errors import Violation

LOOP: Final = "Loop"
ROUTERS: Final = frozenset({"ConditionalRouter", "SmartRouter"})
EVERYTHING: Final = "*"
"""Stands for every output that nothing else is said of."""

TOOL_OUTPUT: Final = "component_as_tool"
TOOL_TYPE: Final = "Tool"
DESCRIPTION_CHARS_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A converted export: the document, and what became of every component."""

    name: str
    document: dict[str, Any]
    lines: tuple[Line, ...]


def convert(text: str | bytes, options: Options = DEFAULTS) -> Imported:
    """The document that an export becomes. Raises InvalidFlow with its faults."""
    imported, faults = attempt(text, options)
    if imported is None:
        raise refusal(faults)
    return imported


def attempt(text: str | bytes, options: Options = DEFAULTS) -> tuple[Imported | None, tuple[Violation, ...]]:
    """The document, or every fault of the export."""
    faults = Faults()
    value = load(text, faults)
    if value is None:
        return None, faults.told()
    export = read(value, faults)
    chosen = selected(export)
    conversion = Conversion(export=export, selection=chosen, options=options, faults=faults)
    draft = Draft()
    conversion.run([each for each in chosen.order if not conversion.is_inside_a_loop(each)], draft)
    conversion.finish(draft)
    if faults:
        return None, faults.told()
    document: dict[str, Any] = {
        "schema": SCHEMA_NAME,
        "description": export.description[:DESCRIPTION_CHARS_MAX],
        "overrides": "all",
        "origin": origin(export, conversion.entries.values(), options),
        **draft.document(),
    }
    return Imported(name=export.name, document=document, lines=tuple(conversion.lines())), ()


@dataclass(slots=True, kw_only=True)
class Conversion:
    """One export being converted. `region` is the loop whose body is at hand."""

    export: Export
    selection: Selection
    options: Options
    faults: Faults
    entries: dict[str, Entry] = field(default_factory=dict)
    values: dict[tuple[str, str], Given] = field(default_factory=dict)

    def run(self, order: list[str], draft: Draft, body: Body | None = None, members: frozenset[str] = frozenset()) -> None:
        """Applies the rules to components, each after what feeds it. In a body, `members` are its components."""
        for component_id in order:
            component = self.export.components[component_id]
            entry = Entry(component=component)
            self.entries[component_id] = entry
            place = self._place(entry, draft, body, members)
            if self._is_usable(component):
                self._apply(place)
            self._take(place)

    def is_inside_a_loop(self, component_id: str) -> bool:
        """Whether a component is part of a loop's body, and converted with the loop."""
        return any(component_id in loop.body for loop in self.selection.loops.values())

    def _apply(self, place: Place) -> None:
        component = place.component
        if component.kind == LOOP:
            self._loop(place)
        elif place.used and place.used <= _tool_outputs(component):
            self._tool(place)
        elif component.kind in RULES:
            RULES[component.kind](place)
        else:
            message, hint = refusals.unmapped_tool(component, TOOLS)
            place.refuse(message, field="type", instead=hint)

    def _tool(self, place: Place) -> None:
        component = place.component
        if component.kind in TOOLS:
            place.note("a tool of the agent that it is connected to")
            place.gives_all(AsTool(component=component))
            return
        message, hint = refusals.unmapped_tool(component, TOOLS)
        place.refuse(message, field="type", instead=hint)

    def _is_usable(self, component: Component) -> bool:
        """Whether the component is one that we know, and its code a stock one's."""
        if not component.kind:
            message, hint = refusals.unknown(component)
            self.faults.add(message, node_id=component.id, field="type", suggestion=hint)
            return False
        if component.edited or (component.code_hash and not is_stock_of(component.code_hash, component.kind)):
            message, hint = refusals.edited(component)
            self.faults.add(message, node_id=component.id, field="code", suggestion=hint)
            return False
        return True

    def _place(self, entry: Entry, draft: Draft, body: Body | None, members: frozenset[str]) -> Place:
        arriving: defaultdict[str, list[Given]] = defaultdict(list)
        sources: defaultdict[str, list[Component]] = defaultdict(list)
        for link in self.selection.links:
            if link.target == entry.component.id:
                value = self._given(link)
                if body is not None and link.source not in members:
                    value = body.capture(value)
                arriving[link.field].append(value)
                sources[link.field].append(self.export.components[link.source])
        return Place(
            entry=entry,
            draft=draft,
            options=self.options,
            faults=self.faults,
            arriving=arriving,
            sources=sources,
            used=self._used(entry.component.id),
            branches=any(each.kind in ROUTERS for each in self.export.components.values()),
            outermost=body is None,
            answers=any(self.export.components[each].kind in OUTPUTS for each in self._fed(entry.component.id)),
            alone=sum(each.kind in OUTPUTS for each in self.export.components.values()) == 1,
        )

    def _fed(self, component_id: str) -> list[str]:
        return [link.target for link in self.selection.links if link.source == component_id]

    def _used(self, component_id: str) -> frozenset[str]:
        back = [loop.back for loop in self.selection.loops.values()]
        return frozenset(link.output for link in (*self.selection.links, *back) if link.source == component_id)

    def _given(self, link: Ends) -> Given:
        """What a link carries: what its output was said to, or what all outputs of its component were."""
        found = self.values.get((link.source, link.output))
        return found if found is not None else self.values.get((link.source, EVERYTHING), Broken())

    def _take(self, place: Place) -> None:
        """Keeps what a component's outputs carry; of what came from a broken one, nothing can be said."""
        given = dict(place.given)
        if place.everything is not None:
            given[EVERYTHING] = place.everything
        if place.is_fed_broken:
            given = {output: Broken() if isinstance(value, Carried) else value for output, value in given.items()}
        for output, value in given.items():
            self.values[place.component.id, output] = value
            if isinstance(value, Carried) and place.outermost:
                place.entry.ports[output] = value.port

    def _loop(self, place: Place) -> None:
        loop, items = self.selection.loops.get(place.component.id), listed(place)
        if loop is None or not loop.body:
            hint = "connect its item to the first component of the loop, and the last one's output back to it"
            place.refuse("a loop that nothing comes back to", field=ITEM, instead=hint)
            return
        if items is None:
            return
        body = Body()
        item = Broken() if place.is_fed_broken else body.item(items)
        self.values[place.component.id, ITEM] = item
        inner = [each for each in self.selection.order if each in loop.body and not self._is_deeper(each, loop.body)]
        members = loop.body | {place.component.id}
        self._check_closed(place, loop.body)
        self.run(inner, body.draft, body, members)
        closed(place, body, items, self._given(loop.back))

    def _is_deeper(self, component_id: str, body: frozenset[str]) -> bool:
        """Whether a component of a loop's body is part of the body of a loop within it."""
        return any(loop.body < body and component_id in loop.body for loop in self.selection.loops.values())

    def _check_closed(self, place: Place, body: frozenset[str]) -> None:
        for link in self.selection.links:
            if link.source in body and link.target not in body and link.target != place.component.id:
                hint = "take it from the loop's done output, which has the result of every item"
                place.refuse(
                    f"{link.source} is inside the loop and feeds {link.target}, which is not", field=ITEM, instead=hint
                )

    def finish(self, draft: Draft) -> None:
        """What can only be said of the whole: circles, ends without an output, what is left out but may not be."""
        if self.selection.circle:
            path = " -> ".join(self.selection.circle[:12])
            hint = "a Loop component, or a loop node of ours, which has a bound"
            self.faults.add(
                f"the edges go in a circle: {path}", node_id=self.selection.circle[0], field="edges", suggestion=hint
            )
        for component_id in sorted(self.selection.idle):
            component = self.export.components[component_id]
            if not component.kind:
                message, hint = refusals.unknown(component)
                self.faults.add(message, node_id=component_id, field="type", suggestion=hint)
        if not any(entry.output for entry in self.entries.values()):
            self._end(draft)
        if not any(node["type"] == "output" for node in draft.nodes.values()) and not self.faults:
            hint = "`penstock ingest` fills a collection" if self.selection.ingestion else "add a Chat Output"
            self.faults.add("nothing of it gives an answer", field="data.nodes", suggestion=hint)

    def _end(self, draft: Draft) -> None:
        """Outputs for what nothing takes from, in a flow that has none."""
        sources = {link.source for link in self.selection.links}
        for component_id, entry in self.entries.items():
            value = self._last_value(component_id)
            if component_id not in sources and isinstance(value, Carried) and not self.is_inside_a_loop(component_id):
                name = draft.claim("", component_id)
                node = draft.add(f"{component_id}-output", "output", {"name": name}, {"value": value.port})
                entry.nodes.append(node)
                entry.became.append(f"{node} (output)")
                entry.role, entry.output = "data_output", name

    def _last_value(self, component_id: str) -> Given:
        found = [value for (source, _), value in self.values.items() if source == component_id]
        return found[-1] if found else Absorbed()

    def lines(self) -> list[Line]:
        """What became of every component, in the order of the file."""
        return [self._line(component) for component in self.export.components.values()]

    def _line(self, component: Component) -> Line:
        entry = self.entries.get(component.id)
        if entry is not None:
            notes = entry.notes or ([] if entry.became else ["gives on what it is given"])
            return _line(component, tuple(entry.became), tuple(notes))
        reasons: Mapping[bool, str] = {
            component.id in self.selection.loose: "not connected to anything",
            component.id in self.selection.ingestion: "fills a store, which is not the flow's work: use `penstock ingest`",
            component.id in self.selection.idle: "leads to no output, so nothing is made of it",
        }
        return _line(component, (), (reasons.get(True, "not part of the flow"),))


def _tool_outputs(component: Component) -> set[str]:
    """The outputs that give the component as a tool: one that any has in the tool mode, or one of the older tools' own."""
    return {TOOL_OUTPUT} | {output.name for output in component.outputs if TOOL_TYPE in output.types}


def _line(component: Component, became: tuple[str, ...], notes: tuple[str, ...]) -> Line:
    return Line(
        component=component.id, display_name=component.display_name, type=component.type, became=became, notes=notes
    )  # fmt: skip
