"""Vector stores and knowledge bases: a collection of ours, which embeds by itself. Filling them is not the flow's work."""

from typing import Final

from gateway.langflow.carried import Absorbed, Carried
from gateway.langflow.export import Component
from gateway.langflow.naming import slug
from gateway.langflow.place import Options, Place
from gateway.langflow.rules.models import prompt
from gateway.values import PortType

TOP_K_MAX: Final = 1000
QUERIES: Final = ("search_query", "search_input", "query")
COUNTS: Final = ("number_of_results", "top_k", "k", "n_results")
NAMES: Final = (
    "knowledge_base", "collection_name", "index_name", "table_name", "collection", "namespace", "memory_base", "database_name",
)  # fmt: skip
NAMELESS: Final = "default"


def vector_store(place: Place) -> None:
    """The nearest passages of a collection."""
    query = next((name for name in QUERIES if place.connected(name)), next(filter(place.has, QUERIES), "search_query"))
    if query == "search_query" and not place.has(query):
        place.refuse("the store has no search query", instead="connect what is to be searched for")
        return
    node = place.add("retrieve", retrieving(place, place.component), {"query": prompt(place, query)})
    count = next(filter(place.has, COUNTS), "")
    if count:
        place.tunes(count, f"{node}.top_k")
    if place.connected("lexical_terms"):
        place.note("lexical_terms are not used: hybrid search takes the words of the query")
    place.gives_all(Carried(port=f"{node}.documents", type=PortType.DOCUMENTS))


def retrieving(place: Place, component: Component) -> dict[str, str | int]:
    """The parameters of a retrieve node in a store's place."""
    count = next((value for value in map(component.number, COUNTS) if value is not None), 4)
    name = collection(component, place.options)
    place.note(f"searches our collection {name!r}; fill it with `penstock ingest`")
    params: dict[str, str | int] = {"collection": name, "top_k": min(max(int(count), 1), TOP_K_MAX)}
    if "hybrid" in component.text("search_method").lower():
        params["mode"] = "hybrid"
    return params


def collection(component: Component, options: Options) -> str:
    """The collection that a store means: the one that was chosen, or its own name as ours are written."""
    if options.collection is not None:
        return options.collection
    written = next((text for text in map(component.text, NAMES) if text.strip()), "")
    return slug(written) or NAMELESS


def embedding(place: Place) -> None:
    """Collections embed by themselves, with the model that they were made with."""
    place.note("not needed: a collection embeds with its own model")
    place.gives_all(Absorbed())
