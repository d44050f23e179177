"""Which components of an export make up the flow: those that lead to an output. What fills a store is ingestion, and apart.

LangFlow runs every component of a file. What leads to no output and changes nothing can be left out; what changes something
elsewhere and is not known here is refused.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Final

from gateway.langflow.export import Component, Export
from gateway.langflow.handles import Ends

OUTPUTS: Final = frozenset({"ChatOutput", "TextOutput"})
EFFECTS: Final = frozenset({"StoreMessage"})
STORES: Final = frozenset({"VectorStore", "Knowledge", "KnowledgeIngestion"})
INGESTED: Final = frozenset({"ingest_data", "input_df", "vector_store_inputs", "add_documents"})
"""The fields through which stores are filled."""
BROADCAST: Final = "broadcast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop: the components that are run for each item, and the link that brings the result back."""

    body: frozenset[str]
    back: Ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The flow's components in an order in which each comes after what feeds it, and why others are not among them."""

    order: tuple[str, ...]
    links: tuple[Ends, ...]
    loops: Mapping[str, Loop]
    ingestion: frozenset[str]
    idle: frozenset[str]
    loose: frozenset[str]
    circle: tuple[str, ...] = ()


def selected(export: Export) -> Selection:
    """The components that make up the flow."""
    components = export.components
    links = [*export.links, *_broadcasts(components)]
    back = {link.target: link for link in links if link.back and components[link.target].kind == "Loop"}
    ahead = [link for link in links if not link.back]
    kept = [link for link in ahead if not _fills_a_store(link, components)]
    linked = {each for link in links for each in (link.source, link.target)}
    live = _ancestors(_ends(components, kept, linked), kept, back)
    loops = {loop: Loop(body=_body(loop, link, kept), back=link) for loop, link in back.items() if loop in live}
    order, circle = _ordered(live, kept, loops)
    filling = {link.source for link in ahead if _fills_a_store(link, components)}
    stores = {link.target for link in ahead if _fills_a_store(link, components)} - live
    ingestion = (_ancestors(filling | stores, ahead, {}) | stores) - live
    return Selection(
        order=order,
        links=tuple(link for link in kept if link.source in live and link.target in live),
        loops=loops,
        ingestion=frozenset(ingestion),
        idle=frozenset(linked - live - ingestion),
        loose=frozenset(set(components) - linked - live),
        circle=circle,
    )


def _fills_a_store(link: Ends, components: Mapping[str, Component]) -> bool:
    target = components[link.target]
    return target.kind in STORES and (link.field in INGESTED or target.kind == "KnowledgeIngestion")


def _broadcasts(components: Mapping[str, Component]) -> Iterable[Ends]:
    """Links between those who notify and those who listen, which have a key in common."""
    notifying = [each for each in components.values() if each.kind == "Notify"]
    for listener in (each for each in components.values() if each.kind == "Listen"):
        for each in notifying:
            if each.text("context_key", each.text("name")) == listener.text("context_key", listener.text("name")):
                yield Ends(source=each.id, output="result", target=listener.id, field=BROADCAST)


def _ends(components: Mapping[str, Component], links: Iterable[Ends], linked: frozenset[str] | set[str]) -> set[str]:
    """Where the flow ends: at its outputs, and where it has none at what nothing else takes from."""
    effects = {each.id for each in components.values() if each.kind in EFFECTS or _stores_messages(each)}
    outputs = {each.id for each in components.values() if each.kind in OUTPUTS}
    if outputs:
        return outputs | (effects & linked)
    sources = {link.source for link in links}
    kinds = STORES | {"SplitText", "Embedding"}
    return {each.id for each in components.values() if each.id not in sources and each.kind not in kinds} | effects


def _stores_messages(component: Component) -> bool:
    return component.kind == "Memory" and component.text("mode") == "Store"


def _ancestors(ends: Iterable[str], links: Iterable[Ends], back: Mapping[str, Ends]) -> set[str]:
    """These and all that leads to them. What is in a loop leads to it."""
    feeding: defaultdict[str, set[str]] = defaultdict(set)
    for link in (*links, *back.values()):
        feeding[link.target].add(link.source)
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += feeding[each]
    return found


def _body(loop: str, back: Ends, links: Iterable[Ends]) -> frozenset[str]:
    """What is between a loop's items and the link that brings the result back."""
    follows: defaultdict[str, set[str]] = defaultdict(set)
    for link in links:
        if link.source != loop or link.output == "item":
            follows[link.source].add(link.target)
    after: set[str] = set()
    waiting = list(follows[loop])
    while waiting:
        each = waiting.pop()
        if each not in after and each != loop:
            after.add(each)
            waiting += follows[each]
    return frozenset(after & _ancestors([back.source], [link for link in links if link.source != loop], {}))


def _ordered(
    live: frozenset[str] | set[str], links: Iterable[Ends], loops: Mapping[str, Loop]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The order, or some order and the components that go in a circle. What a loop's body takes comes before the loop."""
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(sorted(live), ()))
    for link in links:
        if link.source in live and link.target in live:
            sorter.add(link.target, link.source)
            for loop, inside in loops.items():
                if link.target in inside.body and link.source not in inside.body and link.source != loop:
                    sorter.add(loop, link.source)
    try:
        return tuple(sorter.static_order()), ()
    except CycleError as error:
        return tuple(sorted(live)), tuple(error.args[1])
