"""Typed async clients of the three services; penstock.clients.sync has retrieval's for code without an event loop.

penstock.clients.langchain has the same as LangChain components, of which `Retriever` can be had from here too. What a service
raises, its client raises: the classes are those of penstock.errors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock.clients.flows import (
    Done,
    Flow,
    FlowEvent,
    FlowInput,
    NodeFinished,
    NodeStarted,
    Penstock,
    RunResult,
    Source,
    Sources,
    Token,
    ToolCall,
    Validation,
)
from penstock.clients.generation import (
    Alternative,
    Answer,
    Delta,
    Finished,
    GenerationClient,
    Load,
    LogprobOptions,
    Message,
    Model,
    Sampling,
    StructuredOutput,
    Timings,
    TokenLogprob,
    Usage,
)
from penstock.clients.retrieval import RetrievalClient
from penstock.clients.retrieval_values import (
    Chunk,
    Collection,
    Diversity,
    Document,
    EmbeddingModel,
    Embeddings,
    Fusion,
    Grouping,
    Hit,
    Hits,
    Index,
    Ingested,
    ItemError,
    Lexical,
    Query,
    Reranking,
    SearchOptions,
    ShardStatus,
    Snapshot,
    Splitting,
    StreamIngested,
    Written,
)
from penstock.clients.sync import RetrievalClientSync

if TYPE_CHECKING:
    from penstock.clients.langchain import PenstockRetriever as Retriever

__all__ = [
    "Alternative",
    "Answer",
    "Chunk",
    "Collection",
    "Delta",
    "Diversity",
    "Document",
    "Done",
    "EmbeddingModel",
    "Embeddings",
    "Finished",
    "Flow",
    "FlowEvent",
    "FlowInput",
    "Fusion",
    "GenerationClient",
    "Grouping",
    "Hit",
    "Hits",
    "Index",
    "Ingested",
    "ItemError",
    "Lexical",
    "Load",
    "LogprobOptions",
    "Message",
    "Model",
    "NodeFinished",
    "NodeStarted",
    "Penstock",
    "Query",
    "Reranking",
    "RetrievalClient",
    "RetrievalClientSync",
    "Retriever",
    "RunResult",
    "Sampling",
    "SearchOptions",
    "ShardStatus",
    "Snapshot",
    "Source",
    "Sources",
    "Splitting",
    "StreamIngested",
    "StructuredOutput",
    "Timings",
    "Token",
    "TokenLogprob",
    "ToolCall",
    "Usage",
    "Validation",
    "Written",
]


def __getattr__(name: str) -> Any:
    """`Retriever`, imported when it is asked for: it needs langchain-core, and says so where that is missing."""
    if name == "Retriever":
        return import_module("penstock.clients.langchain").PenstockRetriever
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
