"""retrieve: the passages of a collection that are nearest to a text or a vector."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.backends import Backends, SearchRequest
from gateway.execution import Run, SourcesFound
from gateway.faults import quoted
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.retrieve_params import RetrieveParams, filled, input_names
from gateway.nodes.spec import Effect, Inputs, NodeSpec, Outputs, Work
from gateway.values import ACCEPTED_BY, PortType, as_json
from penstock.errors import FailedPrecondition

DIMENSION_MAX: Final = 65_536

_QUERY: Final = InputPort(name="query", accepts=ACCEPTED_BY[PortType.TEXT])
_VECTOR: Final = InputPort(name="vector", accepts=frozenset({PortType.JSON}))
_QUERIES: Final[Mapping[str, tuple[InputPort, ...]]] = {
    "text": (_QUERY,),
    "vector": (_VECTOR,),
    "both": (_QUERY, _VECTOR),
}
_GIVEN: Final = (OutputPort(name="documents", type=PortType.DOCUMENTS),)


def _ports(params: RetrieveParams) -> Ports:
    names = input_names(params.filter_json())
    values = tuple(InputPort(name=name, accepts=ACCEPTED_BY[PortType.JSON]) for name in names)
    return Ports(inputs=(*_QUERIES[params.search_by], *values), outputs=_GIVEN)


def _work(params: RetrieveParams, node_id: str, backends: Backends) -> Work:
    search, own, takes_vector = backends.retriever.search, _request(params), params.search_by != "text"
    filter_names = input_names(own.filter)

    async def find(inputs: Inputs, run: Run) -> Outputs:
        request = replace(own, text=inputs.get("query"))
        if takes_vector:
            request = replace(request, vector=as_vector(inputs["vector"]))
        if filter_names:
            values = {name: _filter_value(name, inputs[name]) for name in filter_names}
            request = replace(request, filter=filled(own.filter, values))
        run.meter.retrieve()
        documents = await search(request)
        run.found(node_id, documents)
        if run.emit is not None:
            await run.emit(SourcesFound(node_id=node_id, documents=documents))
        return {"documents": documents}

    return Effect(find)


def as_vector(value: Any) -> tuple[float, ...]:
    """A JSON value as a vector. Raises FailedPrecondition."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= DIMENSION_MAX:
        raise FailedPrecondition(f"a vector must be a list of 1 to {DIMENSION_MAX} numbers; found {quoted(as_json(value))}")
    wrong = next((each for each in value if isinstance(each, bool) or not isinstance(each, int | float)), None)
    if wrong is not None:
        raise FailedPrecondition(f"a vector must have numbers alone; found {quoted(wrong)}")
    return tuple(map(float, value))


def _filter_value(name: str, value: Any) -> Any:
    """A scalar or a list of them: never a condition, whatever a caller gives."""
    plain = as_json(value)
    items = plain if isinstance(plain, list) else [plain]
    if items and all(isinstance(each, str | bool | int | float) for each in items):
        return plain
    raise FailedPrecondition(
        f"the filter takes a text, a number, a boolean or a list of these from its input {name!r}; found {quoted(plain)}"
    )


def _request(params: RetrieveParams) -> SearchRequest:
    return SearchRequest(
        collection=params.collection,
        top_k=params.top_k,
        mode=params.mode,
        filter=params.filter_json(),
        fusion=params.fusion.fusion() if params.fusion else None,
        score_min=params.score_min,
        diversity=params.diversity.diversity() if params.diversity else None,
        hits_per_document_max=params.hits_per_document_max,
        reranking=params.rerank.reranking() if params.rerank else None,
        ef_search=params.ef_search,
        nprobe=params.nprobe,
        exact=params.exact,
        fields=tuple(params.fields),
    )


RETRIEVE: Final = NodeSpec(
    summary="The passages of a collection that are nearest to a text or a vector.",
    params=RetrieveParams,
    ports=_ports,
    work=_work,
)
