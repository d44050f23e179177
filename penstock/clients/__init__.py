"""Typed async clients of the three services. penstock.clients.langchain has the same as LangChain components.

What a service raises, its client raises: the classes are those of penstock.errors.
"""

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
    Validation,
)
from penstock.clients.generation import Answer, Delta, Finished, GenerationClient, Message, Model, Sampling, Usage
from penstock.clients.retrieval import Chunk, Collection, Document, Hit, Ingested, RetrievalClient

__all__ = [
    "Answer",
    "Chunk",
    "Collection",
    "Delta",
    "Document",
    "Done",
    "Finished",
    "Flow",
    "FlowEvent",
    "FlowInput",
    "GenerationClient",
    "Hit",
    "Ingested",
    "Message",
    "Model",
    "NodeFinished",
    "NodeStarted",
    "Penstock",
    "RetrievalClient",
    "RunResult",
    "Sampling",
    "Source",
    "Sources",
    "Token",
    "Usage",
    "Validation",
]
