"""A Penstock collection as a LangChain retriever."""

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from penstock.clients.background import BACKGROUND
from penstock.clients.langchain.connected import CONFIG, Connected
from penstock.clients.retrieval import RetrievalClient
from penstock.clients.retrieval_values import Hit, SearchOptions


class PenstockRetriever(Connected, BaseRetriever):
    """The `top_k` chunks of `collection` best for a text, best first. A call may say another top_k.

    `options` are those of RetrievalClient.search, such as {"mode": "hybrid", "filter": equals("lang", "en")}. A document's id
    is its chunk's; its metadata is what was stored, and over that `document_id` and `score` (higher is better). Raises
    CollectionNotFound, EmptyText, TopKOutOfRange, BackendUnavailable.
    """

    model_config = CONFIG
    client_class = RetrievalClient

    target: str = "127.0.0.1:50051"
    collection: str
    top_k: int = Field(default=10, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # The base reports the run.
        top_k: int | None = None,
    ) -> list[Document]:
        return BACKGROUND.run(self._search(query, top_k))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002  # The base reports the run.
        top_k: int | None = None,
    ) -> list[Document]:
        return await self._search(query, top_k)

    async def _search(self, query: str, top_k: int | None) -> list[Document]:
        client: RetrievalClient = self._here()
        wanted = self.top_k if top_k is None else top_k
        options: SearchOptions = {**self.options, "top_k": wanted}  # type: ignore[typeddict-item]  # The client's own words.
        hits = await client.search(self.collection, query, timeout_s=self.timeout_s, **options)
        return [_document(hit) for hit in hits]

    def _get_ls_params(self, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(**kwargs), "ls_vector_store_provider": "penstock"}


def _document(hit: Hit) -> Document:
    metadata = {**hit.metadata, "document_id": hit.document_id, "score": hit.score}
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=metadata)
