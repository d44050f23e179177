"""retrieve: the passages of a collection that are nearest to a text."""

from typing import Final

from pydantic import Field

from gateway.backends import Backends
from gateway.execution import Run, SourcesFound
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, Outputs, Work
from gateway.values import ACCEPTED_BY, PortType

TOP_K_MAX: Final = 1000

_PORTS: Final = Ports(
    inputs=(InputPort(name="query", accepts=ACCEPTED_BY[PortType.TEXT]),),
    outputs=(OutputPort(name="documents", type=PortType.DOCUMENTS),),
)


class RetrieveParams(NodeParams):
    """Parameters of a retrieve node."""

    collection: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="Name of the collection, without the leading collections/."
    )
    top_k: int = Field(default=4, ge=1, le=TOP_K_MAX, description="Most passages to find.")


def _ports(params: RetrieveParams) -> Ports:  # noqa: ARG001  # They are always the same.
    return _PORTS


def _work(params: RetrieveParams, node_id: str, backends: Backends) -> Work:
    search, collection, top_k = backends.retriever.search, params.collection, params.top_k

    async def find(inputs: Inputs, run: Run) -> Outputs:
        run.meter.retrieve()
        documents = await search(collection, inputs["query"], top_k)
        run.found(node_id, documents)
        if run.emit is not None:
            await run.emit(SourcesFound(node_id=node_id, documents=documents))
        return {"documents": documents}

    return Effect(find)


RETRIEVE: Final = NodeSpec(
    summary="The passages of a collection that are nearest to a text.", params=RetrieveParams, ports=_ports, work=_work
)
