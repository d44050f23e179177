"""A Penstock collection as a LangChain retriever."""

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, field_validator

from penstock.clients.background import BACKGROUND
from penstock.clients.langchain.connected import CONFIG, Connected
from penstock.clients.retrieval import RetrievalClient
from penstock.clients.retrieval_values import Hit, SearchOptions
from penstock.clients.search_messages import search_message


class PenstockRetriever(Connected, BaseRetriever):
    """The `top_k` chunks of `collection` best for a text, best first.

    `options` are those of RetrievalClient.search, such as {"mode": "hybrid", "filter": equals("lang", "en")}; a call may say
    others: `invoke("towers", top_k=3)`. One that a search does not have is a TypeError. A document's id is its chunk's; its
    metadata is what was stored, and over that `document_id` and `score` (higher is better). Raises CollectionNotFound,
    EmptyText, TopKOutOfRange, BackendUnavailable.
    """

    model_config = CONFIG
    client_class = RetrievalClient

    target: str = "127.0.0.1:50051"
    collection: str
    top_k: int = Field(default=10, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _known(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Tells of a misspelt option where it is written, and not at the first search."""
        search_message("", "", cast("SearchOptions", options))
        return options

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # The base reports the run.
        **options: Any,
    ) -> list[Document]:
        return BACKGROUND.run(self._search(query, options))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002  # The base reports the run.
        **options: Any,
    ) -> list[Document]:
        return await self._search(query, options)

    async def _search(self, query: str, options: Mapping[str, Any]) -> list[Document]:
        client: RetrievalClient = self._here()
        said = {name: value for name, value in options.items() if value is not None}
        wanted: Any = {"timeout_s": self.timeout_s, "top_k": self.top_k, **self.options, **said}
        hits = await client.search(self.collection, query, **wanted)
        return [_document(hit) for hit in hits]

    def _get_ls_params(self, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(**kwargs), "ls_vector_store_provider": "penstock"}


def _document(hit: Hit) -> Document:
    metadata = {**hit.metadata, "document_id": hit.document_id, "score": hit.score}
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=metadata)
