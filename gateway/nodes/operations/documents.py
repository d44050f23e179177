"""Operations on passages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.document import NAME_PATTERN
from gateway.flow_model import InputPort
from gateway.nodes.operations.base import VALUE, Operation, port
from gateway.nodes.template import Template, checked_for
from gateway.values import ACCEPTED_BY, Document, PortType, bounded_join

LISTS_MAX: Final = 16
PASSAGE_VARIABLES: Final = frozenset({"index", "text", "score", "chunk_id", "document_id"})


class FormatDocuments(Operation):
    """Passages as one text, each through a template."""

    operation: Literal["format_documents"]
    template: Annotated[str, AfterValidator(checked_for(PASSAGE_VARIABLES))] = Field(
        default="[{index}] {text}",
        max_length=4096,
        description="Of {index} (from 1), {text}, {score}, {chunk_id}, {document_id}.",
    )
    separator: str = Field(default="\n\n", max_length=256, description="What to put between the passages.")
    accepts = PortType.DOCUMENTS
    gives = PortType.TEXT

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        template = Template(self.template)

        def formatted(inputs: Mapping[str, Any]) -> str:
            passages = [template.render(_passage(index, each)) for index, each in enumerate(inputs[VALUE], start=1)]
            return bounded_join(passages, self.separator)

        return formatted


class FirstDocuments(Operation):
    """The nearest of the passages."""

    operation: Literal["first_documents"]
    count: int = Field(ge=1, le=1000, description="Most passages to keep.")
    accepts = PortType.DOCUMENTS
    gives = PortType.DOCUMENTS

    def apply(self, value: tuple[Document, ...]) -> tuple[Document, ...]:
        return value[: self.count]


class Dedupe(Operation):
    """Passages or texts without those that stood there before, in their order."""

    operation: Literal["dedupe"]
    type: Literal["documents", "list"] = Field(default="documents", description="What is given: passages, or a list of texts.")
    by: Literal["chunk_id", "document_id", "text"] = Field(
        default="chunk_id", description="What makes two passages the same. One that has no id goes by its text, as texts do."
    )

    def input_ports(self) -> tuple[InputPort, ...]:
        return (port(VALUE, self.output_type()),)

    def output_type(self) -> PortType:
        return PortType(self.type)

    def apply(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        first: dict[tuple[str, str], Any] = {}
        for each in value:
            first.setdefault(("text", each) if isinstance(each, str) else _identity(each, self.by), each)
        return tuple(first.values())


class Merge(Operation):
    """Several lists of passages as one, each passage once."""

    operation: Literal["merge"]
    inputs: list[Annotated[str, Field(pattern=NAME_PATTERN)]] = Field(
        default=[],
        max_length=LISTS_MAX,
        description="The input ports, each of passages. One whose branch was not taken counts as empty. Left out: the input "
        "value takes a list of lists of passages, such as a map gives.",
    )
    method: Literal["rrf", "max", "concat"] = Field(
        default="rrf",
        description="rrf: by reciprocal rank fusion, so that scores need not be of one scale; the score is the sum of "
        "weight / (rank_constant + rank). max: by the highest weight * score. Both put the highest first and, of equals, what "
        "stands first. concat: one list behind the other, with the scores as they were.",
    )
    weights: list[Annotated[float, Field(gt=0, le=1000)]] = Field(
        default=[], max_length=LISTS_MAX, description="A weight for each list, in their order. Left out, or too few: 1."
    )
    rank_constant: int = Field(default=60, ge=1, le=1000, description="Of rrf: the higher, the less the first ranks stand out.")
    by: Literal["chunk_id", "document_id", "text"] = Field(
        default="chunk_id", description="What makes two passages the same; of these the one that stands first is kept."
    )
    count: int = Field(default=1000, ge=1, le=1000, description="Most passages to keep.")
    gives = PortType.DOCUMENTS

    @model_validator(mode="after")
    def _names_and_weights(self) -> "Merge":
        if len(set(self.inputs)) < len(self.inputs):
            message = "two inputs have the same name"
            raise ValueError(message)
        if self.inputs and len(self.weights) > len(self.inputs):
            message = f"{len(self.weights)} weights for {len(self.inputs)} inputs"
            raise ValueError(message)
        return self

    def input_ports(self) -> tuple[InputPort, ...]:
        if not self.inputs:
            return (port(VALUE, PortType.DOCUMENT_LISTS),)
        accepts = ACCEPTED_BY[PortType.DOCUMENTS]
        return tuple(InputPort(name=name, accepts=accepts, may_be_absent=True) for name in self.inputs)

    def work(self) -> Callable[[Mapping[str, Any]], Any]:
        def merged(inputs: Mapping[str, Any]) -> tuple[Document, ...]:
            lists = [inputs.get(name, ()) for name in self.inputs] if self.inputs else inputs[VALUE]
            return self._merged(lists)

        return merged

    def _merged(self, lists: Sequence[tuple[Document, ...]]) -> tuple[Document, ...]:
        kept: dict[tuple[str, str], Document] = {}
        scores: dict[tuple[str, str], float] = {}
        for index, found in enumerate(lists):
            weight = self.weights[index] if index < len(self.weights) else 1.0
            seen: set[tuple[str, str]] = set()
            for passage in found:
                key = _identity(passage, self.by)
                if key in seen:
                    continue
                seen.add(key)  # The rank of a passage in a list is that of its first mention among the others' first ones.
                kept.setdefault(key, passage)
                scores[key] = self._score(scores.get(key), weight, len(seen), passage.score)
        if self.method == "concat":
            return tuple(kept.values())[: self.count]
        order = sorted(kept, key=scores.__getitem__, reverse=True)  # Stable: equals stay in the order of `kept`.
        return tuple(replace(kept[key], score=scores[key]) for key in order[: self.count])

    def _score(self, before: float | None, weight: float, rank: int, score: float) -> float:
        if self.method == "rrf":
            return (before or 0.0) + weight / (self.rank_constant + rank)
        return weight * score if before is None else max(before, weight * score)


def _identity(passage: Document, by: str) -> tuple[str, str]:
    """What a passage is the same by. Ids and texts are kept apart, so that no text can pass for another's id."""
    known: str = getattr(passage, by)
    return (by, known) if known else ("text", passage.text)


def _passage(index: int, document: Document) -> Mapping[str, str]:
    return {
        "index": str(index),
        "text": document.text,
        "score": f"{document.score:.4f}",
        "chunk_id": document.chunk_id,
        "document_id": document.document_id,
    }
