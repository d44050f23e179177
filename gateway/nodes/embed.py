"""embed: the vectors of texts."""

from typing import Final, Literal

from pydantic import Field

from gateway.backends import Backends, Vectors
from gateway.execution import Run
from gateway.flow_model import InputPort, OutputPort, Ports
from gateway.nodes.spec import Effect, Inputs, NodeParams, NodeSpec, Outputs, Work
from gateway.values import ACCEPTED_BY, PortType
from penstock.errors import FailedPrecondition

BATCH_MAX: Final = 256
TEXTS_MAX: Final = 1024

_ONE: Final = Ports(
    inputs=(InputPort(name="text", accepts=ACCEPTED_BY[PortType.TEXT]),),
    outputs=(OutputPort(name="vector", type=PortType.JSON),),
)
_SEVERAL: Final = Ports(
    inputs=(InputPort(name="texts", accepts=ACCEPTED_BY[PortType.LIST]),),
    outputs=(OutputPort(name="vectors", type=PortType.JSON),),
)


class EmbedParams(NodeParams):
    """Parameters of an embed node."""

    service: Literal["retrieval", "generation"] = Field(
        default="retrieval",
        description="Whose model: one that the retrieval service has loaded, as for its collections, or one of generation's.",
    )
    model: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._/-]{0,128}$",
        description="Name of the model. Left out: the service's own choice.",
    )
    purpose: Literal["query", "document"] = Field(
        default="query", description="What the texts are to a model of retrieval: searched for, or stored."
    )
    several: bool = Field(
        default=False, description="Takes a list as texts and gives its vectors, in place of one text and its vector."
    )


def _ports(params: EmbedParams) -> Ports:
    return _SEVERAL if params.several else _ONE


def _work(params: EmbedParams, node_id: str, backends: Backends) -> Work:  # noqa: ARG001  # It tells nothing.
    retriever, embedder = backends.retriever, backends.embedder

    async def made(texts: tuple[str, ...]) -> Vectors:
        if params.service == "generation":
            return await embedder.embed(params.model or "default", texts)
        return await retriever.embed(params.model, texts, params.purpose)

    async def vectors_of(texts: tuple[str, ...], run: Run) -> list[list[float]]:
        if len(texts) > TEXTS_MAX:
            raise FailedPrecondition(f"there are {len(texts)} texts to embed; at most {TEXTS_MAX} are taken")
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH_MAX):
            run.meter.ask_model()
            found = await made(texts[start : start + BATCH_MAX])
            run.meter.answered(found.input_tokens, 0)
            vectors += map(list, found.vectors)
        return vectors

    async def embed(inputs: Inputs, run: Run) -> Outputs:
        if params.several:
            return {"vectors": await vectors_of(inputs["texts"], run)}
        (vector,) = await vectors_of((inputs["text"],), run)
        return {"vector": vector}

    return Effect(embed)


EMBED: Final = NodeSpec(summary="The vectors of texts.", params=EmbedParams, ports=_ports, work=_work)
