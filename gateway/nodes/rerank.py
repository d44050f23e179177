"""rerank: passages in the order in which a model that reads query and passage together puts them."""

from dataclasses import replace
from typing import Final

from pydantic import Field

from gateway.backends import Backends
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.generate_params import MODEL_PATTERN
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, Outputs, Work
from gateway.values import ACCEPTED_BY, Document, PortType
from penstock.errors import FailedPrecondition

BATCH_MAX: Final = 256
DOCUMENTS_MAX: Final = 4096

_PORTS: Final = Ports(
    inputs=(
        InputPort(name="query", accepts=ACCEPTED_BY[PortType.TEXT]),
        InputPort(name="documents", accepts=ACCEPTED_BY[PortType.DOCUMENTS]),
    ),
    outputs=(OutputPort(name="documents", type=PortType.DOCUMENTS),),
)


class RerankNodeParams(NodeParams):
    """Parameters of a rerank node."""

    model: str = Field(
        default="default", pattern=MODEL_PATTERN, description="Name of the reranking model, without the leading models/."
    )
    top_k: int | None = Field(default=None, ge=1, le=1000, description="Most passages to keep. Left out: all.")
    score_min: float | None = Field(
        default=None, allow_inf_nan=False, description="Passages that the model scores lower are left out."
    )


def _ports(params: RerankNodeParams) -> Ports:  # noqa: ARG001  # They are always the same.
    return _PORTS


def _work(params: RerankNodeParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It tells nothing.
    rerank, model = backends.reranker.rerank, params.model

    async def order(inputs: Inputs, run: Run) -> Outputs:
        documents: tuple[Document, ...] = inputs["documents"]
        if len(documents) > DOCUMENTS_MAX:
            raise FailedPrecondition(f"there are {len(documents)} passages to rerank; at most {DOCUMENTS_MAX} are taken")
        scored: list[Document] = []
        for start in range(0, len(documents), BATCH_MAX):
            batch = documents[start : start + BATCH_MAX]
            run.meter.ask_model()
            found = await rerank(model, inputs["query"], tuple(each.text for each in batch))
            run.meter.answered(found.input_tokens, 0)
            scored += (replace(each, score=score) for each, score in zip(batch, found.scores, strict=True))
        kept = (each for each in scored if params.score_min is None or each.score >= params.score_min)
        return {"documents": tuple(sorted(kept, key=lambda each: -each.score)[: params.top_k])}

    return Effect(order)


RERANK: Final = NodeSpec(
    summary="Passages, best first, as a model that reads query and passage together scores them.",
    params=RerankNodeParams,
    ports=_ports,
    work=_work,
)
