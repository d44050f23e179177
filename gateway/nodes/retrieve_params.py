"""What a retrieve node can be told: everything about a search that a flow can decide."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.backends import Diversity, Fusion, Reranking
from gateway.nodes.spec import NodeParams

TOP_K_MAX: Final = 1000
CANDIDATES_MAX: Final = 1000
CONDITIONS_MAX: Final = 256
VALUES_MAX: Final = 10_000
INPUT_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
PORTS_TAKEN: Final = frozenset({"query", "vector"})

_STRICT: Final = ConfigDict(extra="forbid", frozen=True, strict=True)


class FromInput(BaseModel):
    """A value that the node is given by an input port of this name."""

    model_config = _STRICT

    input: str = Field(pattern=INPUT_PATTERN, description="Name of the input port.")


Scalar = str | bool | int | float
Value = Scalar | FromInput


class _Condition(BaseModel):
    """A condition on one field of the metadata; keys of nested objects are joined by dots."""

    model_config = _STRICT

    field: str = Field(
        min_length=1, max_length=1024, description="A key of the metadata, keys of nested objects joined by dots."
    )


class EqualsParams(_Condition):
    """The field has this value."""

    value: Value = Field(description='A text, a number or a boolean, or {"input": NAME}.')


class OneOfParams(_Condition):
    """The field has one of these values."""

    values: Annotated[list[Scalar], Field(min_length=1, max_length=VALUES_MAX)] | FromInput = Field(
        description='Texts, numbers and booleans, or {"input": NAME} with a list.'
    )


class RangeParams(_Condition):
    """The field lies between bounds: numbers, times (texts in RFC 3339), or other texts."""

    gt: Value | None = Field(default=None, description="Greater than.")
    gte: Value | None = Field(default=None, description="Greater than or equal.")
    lt: Value | None = Field(default=None, description="Less than.")
    lte: Value | None = Field(default=None, description="Less than or equal.")

    @model_validator(mode="after")
    def _has_a_bound(self) -> "RangeParams":
        if self.gt is None and self.gte is None and self.lt is None and self.lte is None:
            message = "give at least one of gt, gte, lt, lte"
            raise ValueError(message)
        return self


class ExistsParams(_Condition):
    """The passage has the field, with any value but null."""


class FilterParams(BaseModel):
    """A condition on the metadata of passages: exactly one of these. A value {"input": NAME} comes from a port of the node."""

    model_config = _STRICT

    equals: EqualsParams | None = Field(default=None, description="A field has a value.")
    one_of: OneOfParams | None = Field(default=None, description="A field has one of several values.")
    range: RangeParams | None = Field(default=None, description="A field lies between bounds.")
    exists: ExistsParams | None = Field(default=None, description="A field is there.")
    all_of: list["FilterParams"] | None = Field(default=None, max_length=CONDITIONS_MAX, description="All of these match.")
    any_of: list["FilterParams"] | None = Field(default=None, max_length=CONDITIONS_MAX, description="One of these matches.")
    none_of: list["FilterParams"] | None = Field(default=None, max_length=CONDITIONS_MAX, description="None of these matches.")

    @model_validator(mode="after")
    def _is_one(self) -> "FilterParams":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            message = f"give exactly one of {', '.join(type(self).model_fields)}; found {', '.join(given) or 'none'}"
            raise ValueError(message)
        return self

    def conditions(self) -> int:
        """How many conditions there are, those that combine others among them."""
        combined: list[FilterParams] = [*(self.all_of or ()), *(self.any_of or ()), *(self.none_of or ())]
        counts: list[int] = [each.conditions() for each in combined]
        return 1 + sum(counts)


def input_names(value: Any) -> tuple[str, ...]:
    """The names of the ports that a filter, as JSON, takes values from, each once."""
    return tuple(dict.fromkeys(_names(value)))


def filled(value: Any, inputs: Mapping[str, Any]) -> Any:
    """A filter, as JSON, with the values of the node's inputs in their places."""
    if isinstance(value, dict):
        name = _input_of(value)
        return inputs[name] if name is not None else {key: filled(each, inputs) for key, each in value.items()}
    return [filled(each, inputs) for each in value] if isinstance(value, list) else value


def _names(value: Any) -> Iterator[str]:
    name = _input_of(value) if isinstance(value, dict) else None
    if name is not None:
        yield name
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _names(each)


def _input_of(value: dict[str, Any]) -> str | None:
    return value["input"] if len(value) == 1 and "input" in value else None


class FusionParams(BaseModel):
    """How a hybrid search makes one ranking of two."""

    model_config = _STRICT

    method: Literal["convex", "reciprocal_rank"] = Field(
        default="convex", description="A weighted sum of scores, or the sum of weight / (rrf_k + rank)."
    )
    dense_weight: float | None = Field(default=None, ge=0, le=1, description="Weight of the dense side. Left out: 0.5.")
    rrf_k: int | None = Field(default=None, ge=1, le=1000, description="The constant of reciprocal_rank. Left out: 60.")
    candidates: int | None = Field(default=None, ge=1, le=10_000, description="Candidates of each side. Left out: 100.")

    def fusion(self) -> Fusion:
        return Fusion(**self.model_dump())


class DiversityParams(BaseModel):
    """Maximal marginal relevance: passages near to the query and far from one another."""

    model_config = _STRICT

    relevance_weight: float | None = Field(
        default=None, ge=0, le=1, description="Weight of nearness against newness. Left out: 0.5."
    )
    candidates: int | None = Field(
        default=None, ge=1, le=CANDIDATES_MAX, description="Candidates to choose from. Left out: 4 times top_k."
    )

    def diversity(self) -> Diversity:
        return Diversity(**self.model_dump())


class RerankParams(BaseModel):
    """Reranking by a cross-encoder of the retrieval service."""

    model_config = _STRICT

    model: str = Field(default="", max_length=256, description="Name of the reranker. Left out: the only one.")
    candidates: int | None = Field(
        default=None, ge=1, le=CANDIDATES_MAX, description="Candidates that are reranked. Left out: 5 times top_k."
    )

    def reranking(self) -> Reranking:
        return Reranking(**self.model_dump())


class RetrieveParams(NodeParams):
    """Parameters of a retrieve node."""

    protected: ClassVar[frozenset[str]] = frozenset({"filter"})  # It may be what keeps a caller from other passages.

    collection: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="Name of the collection, without the leading collections/."
    )
    top_k: int = Field(default=4, ge=1, le=TOP_K_MAX, description="Most passages to find.")
    search_by: Literal["text", "vector", "both"] = Field(
        default="text",
        description="What is searched for: the input query, the input vector, or both (in a hybrid or reranked search).",
    )
    mode: Literal["dense", "lexical", "hybrid"] = Field(
        default="dense", description="What is searched: vectors, words by BM25, or both, fused."
    )
    filter: FilterParams | None = Field(default=None, description="Only passages whose metadata match are found.")
    fusion: FusionParams | None = Field(default=None, description="How a hybrid search is fused.")
    score_min: float | None = Field(default=None, allow_inf_nan=False, description="Passages with a lower score are left out.")
    diversity: DiversityParams | None = Field(default=None, description="Finds passages that differ from one another.")
    hits_per_document_max: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Groups by document: top_k counts documents, each with at most so many passages.",
    )
    rerank: RerankParams | None = Field(default=None, description="Has the candidates reranked by the retrieval service.")
    ef_search: int | None = Field(default=None, ge=1, le=10_000, description="Candidates looked at in a graph (HNSW).")
    nprobe: int | None = Field(default=None, ge=1, le=65_536, description="Lists looked at (IVF).")
    exact: bool = Field(default=False, description="Compares the query with every vector.")
    fields: list[Annotated[str, Field(pattern=r"^(text|document_id|metadata(\..{1,256})?)$")]] = Field(
        default=[], max_length=64, description='Parts to return: "text", "document_id", "metadata", "metadata.KEY". Empty: all.'
    )

    @model_validator(mode="after")
    def _goes_together(self) -> "RetrieveParams":
        problem = next(_problems(self), None)
        if problem is not None:
            raise ValueError(problem)
        return self

    def filter_json(self) -> dict[str, Any] | None:
        """The filter as JSON, with what was given alone."""
        return None if self.filter is None else self.filter.model_dump(exclude_none=True)


def _problems(params: RetrieveParams) -> Iterator[str]:
    by, mode = params.search_by, params.mode
    if params.fusion is not None and mode != "hybrid":
        yield f'a {mode} search has nothing to fuse: say "mode": "hybrid", or leave fusion out'
    if by != "text" and mode == "lexical":
        yield 'a lexical search takes no vector: say "mode": "hybrid", or "search_by": "text"'
    if by == "vector" and (mode == "hybrid" or params.rerank is not None):
        yield 'a hybrid or reranked search needs a text: say "search_by": "both"'
    if by == "both" and mode == "dense" and params.rerank is None:
        yield "a dense search is by a text or by a vector; both only in a hybrid or a reranked search"
    if params.filter is None:
        return
    if (count := params.filter.conditions()) > CONDITIONS_MAX:
        yield f"the filter has {count} conditions; at most {CONDITIONS_MAX}"
    taken = PORTS_TAKEN.intersection(input_names(params.filter_json()))
    if taken:
        yield f"the filter's input {min(taken)!r} has the name of another input of the node"
