"""RetrievalService of penstock.retrieval.v1: each method is from proto, call, to proto. Errors are the runtime's business."""

from penstock.dispatcher import CallContext
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc import messages
from retrieval_svc.catalog import Catalog
from retrieval_svc.ingest.writing import Ingest
from retrieval_svc.search.searching import Search


class RetrievalServicer:
    def __init__(self, catalog: Catalog, ingest: Ingest, search: Search) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._search = search
        self._hits = messages.HitEncoder()

    async def CreateCollection(self, request: pb.CreateCollectionRequest, _: CallContext) -> pb.CreateCollectionResponse:
        collection = await self._catalog.create(
            request.collection_id,
            embedding_model=request.collection.embedding_model,
            dimension=request.collection.dimension,
            metric=messages.metric_from(request.collection.metric),
        )
        return pb.CreateCollectionResponse(collection=messages.collection_message(collection))

    async def GetCollection(self, request: pb.GetCollectionRequest, _: CallContext) -> pb.GetCollectionResponse:
        entry = self._catalog.find(request.name)
        return pb.GetCollectionResponse(collection=messages.collection_message(entry.collection))

    async def ListCollections(self, request: pb.ListCollectionsRequest, _: CallContext) -> pb.ListCollectionsResponse:
        collections, following = self._catalog.page(request.page_size, request.page_token)
        return pb.ListCollectionsResponse(collections=map(messages.collection_message, collections), next_page_token=following)

    async def DeleteCollection(self, request: pb.DeleteCollectionRequest, _: CallContext) -> pb.DeleteCollectionResponse:
        await self._catalog.delete(request.name)
        return pb.DeleteCollectionResponse()

    async def IngestDocuments(self, request: pb.IngestDocumentsRequest, _: CallContext) -> pb.IngestDocumentsResponse:
        documents = [messages.document_from(document, at) for at, document in enumerate(request.documents)]
        chunk_count = await self._ingest.ingest_documents(request.collection, documents)
        return pb.IngestDocumentsResponse(document_count=len(documents), chunk_count=chunk_count)

    async def UpsertChunks(self, request: pb.UpsertChunksRequest, _: CallContext) -> pb.UpsertChunksResponse:
        chunks = [messages.chunk_from(chunk, at) for at, chunk in enumerate(request.chunks)]
        return pb.UpsertChunksResponse(chunk_count=await self._ingest.upsert_chunks(request.collection, chunks))

    async def DeleteChunks(self, request: pb.DeleteChunksRequest, _: CallContext) -> pb.DeleteChunksResponse:
        deleted = await self._ingest.delete_chunks(request.collection, request.chunk_ids, request.document_ids)
        return pb.DeleteChunksResponse(deleted_count=deleted)

    async def ListChunks(self, request: pb.ListChunksRequest, _: CallContext) -> pb.ListChunksResponse:
        chunks, following = await self._search.page(request.collection, request.page_size, request.page_token)
        return pb.ListChunksResponse(chunks=map(messages.chunk_message, chunks), next_page_token=following)

    async def Search(self, request: pb.SearchRequest, _: CallContext) -> pb.SearchResponse:
        return self._hits.response(await self._search.search(request.collection, messages.query_from(request)))
