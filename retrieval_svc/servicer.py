"""RetrievalService of penstock.retrieval.v1: each method is from proto, call, to proto. Errors are the runtime's business."""

from collections.abc import AsyncIterator

from penstock import identity
from penstock.dispatcher import CallContext
from penstock.encoded import Encoded
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc import chunk_messages, ingest_messages, messages, search_messages
from retrieval_svc.catalog import Catalog
from retrieval_svc.consistency import consistency_token
from retrieval_svc.filter_messages import filter_from
from retrieval_svc.ingest.writing import Ingest
from retrieval_svc.operations import Operations
from retrieval_svc.search.listing import Listing
from retrieval_svc.search.searching import Search
from retrieval_svc.values import Visibility


class RetrievalServicer:
    def __init__(self, catalog: Catalog, ingest: Ingest, search: Search, listing: Listing, operations: Operations) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._search = search
        self._listing = listing
        self._operations = operations

    async def CreateCollection(self, request: pb.CreateCollectionRequest, _: CallContext) -> pb.CreateCollectionResponse:
        collection = await self._catalog.create(messages.wanted_from(request))
        statuses = self._operations.statuses(collection)
        return pb.CreateCollectionResponse(collection=messages.collection_message(collection, statuses))

    async def GetCollection(self, request: pb.GetCollectionRequest, _: CallContext) -> pb.GetCollectionResponse:
        collection = await self._catalog.counted(request.name)
        statuses = self._operations.statuses(collection)
        return pb.GetCollectionResponse(collection=messages.collection_message(collection, statuses))

    async def ListCollections(self, request: pb.ListCollectionsRequest, _: CallContext) -> pb.ListCollectionsResponse:
        collections, following = await self._catalog.page(request.page_size, request.page_token)
        sent = [messages.collection_message(each, self._operations.statuses(each)) for each in collections]
        return pb.ListCollectionsResponse(collections=sent, next_page_token=following)

    async def DeleteCollection(self, request: pb.DeleteCollectionRequest, _: CallContext) -> pb.DeleteCollectionResponse:
        await self._catalog.delete(request.name)
        return pb.DeleteCollectionResponse()

    async def IngestDocuments(self, request: pb.IngestDocumentsRequest, _: CallContext) -> pb.IngestDocumentsResponse:
        collection = await self._catalog.find(request.collection)
        documents = [messages.document_from(document, at) for at, document in enumerate(request.documents)]
        splitting = ingest_messages.splitting_from(request.splitting)
        written = await self._ingest.ingest_documents(request.collection, documents, splitting)
        return ingest_messages.documents_response(written, collection.uid)

    async def IngestStream(self, requests: AsyncIterator[pb.IngestStreamRequest], _: CallContext) -> pb.IngestStreamResponse:
        opened = await ingest_messages.opened_stream(requests)
        collection = await self._catalog.find(opened.collection)
        streamed = await self._ingest.ingest_stream(opened.collection, opened.items, opened.splitting)
        return ingest_messages.stream_response(streamed, collection.uid)

    async def UpsertChunks(self, request: pb.UpsertChunksRequest, _: CallContext) -> pb.UpsertChunksResponse:
        collection = await self._catalog.find(request.collection)
        chunks = [chunk_messages.chunk_from(chunk, at) for at, chunk in enumerate(request.chunks)]
        written = await self._ingest.upsert_chunks(request.collection, chunks)
        token = consistency_token(collection.uid, written.positions)
        return pb.UpsertChunksResponse(chunk_count=written.chunk_count, consistency_token=token)

    async def DeleteChunks(self, request: pb.DeleteChunksRequest, _: CallContext) -> pb.DeleteChunksResponse:
        collection = await self._catalog.find(request.collection)
        filter_ = filter_from(request.filter) if request.HasField("filter") else None
        ids = tuple(request.chunk_ids), tuple(request.document_ids)
        deleted = await self._ingest.delete_chunks(request.collection, *ids, filter_)
        token = consistency_token(collection.uid, deleted.positions)
        return pb.DeleteChunksResponse(deleted_count=deleted.deleted_count, consistency_token=token)

    async def BatchGetChunks(self, request: pb.BatchGetChunksRequest, _: CallContext) -> pb.BatchGetChunksResponse:
        chunk_messages.check_fields(request.fields, also=chunk_messages.STORED_PARTS)
        collection = await self._catalog.find(request.collection)
        listed = await self._listing.by_id(
            collection, tuple(request.chunk_ids), _visibility(), with_vectors="vector" in request.fields
        )
        return pb.BatchGetChunksResponse(
            chunks=[chunk_messages.stored_message(each.chunk, request.fields, each.vector) for each in listed]
        )

    async def ListChunks(self, request: pb.ListChunksRequest, _: CallContext) -> pb.ListChunksResponse:
        collection = await self._catalog.find(request.collection)
        chunks, following = await self._listing.page(collection, request.page_size, request.page_token, _visibility())
        return pb.ListChunksResponse(
            chunks=[chunk_messages.stored_message(chunk) for chunk in chunks], next_page_token=following
        )

    async def Search(self, request: pb.SearchRequest, _: CallContext) -> Encoded[pb.SearchResponse]:
        collection = await self._catalog.find(request.collection)
        call = search_messages.call_from(request, collection.uid, _visibility())
        return search_messages.search_response(await self._search.search(collection, call))

    async def SearchBatch(self, request: pb.SearchBatchRequest, _: CallContext) -> Encoded[pb.SearchBatchResponse]:
        collection = await self._catalog.find(request.collection)
        calls = search_messages.calls_from(request, collection.uid, _visibility())
        return search_messages.batch_response(await self._search.search_many(collection, calls))

    async def Embed(self, request: pb.EmbedRequest, _: CallContext) -> pb.EmbedResponse:
        embedded = await self._operations.embed(
            request.model, request.texts, is_query=ingest_messages.is_query(request.purpose)
        )
        return ingest_messages.embed_response(embedded)

    async def ListModels(self, request: pb.ListModelsRequest, _: CallContext) -> pb.ListModelsResponse:
        models, default, following = self._operations.models(request.page_size, request.page_token)
        sent = [messages.model_message(model, is_default=model.name == default) for model in models]
        return pb.ListModelsResponse(models=sent, next_page_token=following)

    async def GetCollectionStatus(
        self, request: pb.GetCollectionStatusRequest, _: CallContext
    ) -> pb.GetCollectionStatusResponse:
        statuses = self._operations.statuses(await self._catalog.find(request.name))
        return pb.GetCollectionStatusResponse(shards=map(messages.status_message, statuses))

    async def CompactCollection(self, request: pb.CompactCollectionRequest, _: CallContext) -> pb.CompactCollectionResponse:
        statuses = await self._operations.compact(await self._catalog.find(request.name))
        return pb.CompactCollectionResponse(shards=map(messages.status_message, statuses))

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, _: CallContext) -> pb.CreateSnapshotResponse:
        snapshots = await self._operations.snapshot(await self._catalog.find(request.collection))
        return pb.CreateSnapshotResponse(snapshots=map(messages.snapshot_message, snapshots))

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, _: CallContext) -> pb.ListSnapshotsResponse:
        collection = await self._catalog.find(request.collection)
        snapshots, following = await self._operations.snapshots(collection, request.page_size, request.page_token)
        return pb.ListSnapshotsResponse(snapshots=map(messages.snapshot_message, snapshots), next_page_token=following)


def _visibility() -> Visibility:
    """Whose eyes the call has."""
    return Visibility(principals=identity.current().principals)
