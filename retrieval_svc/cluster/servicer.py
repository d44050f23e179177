"""ShardService: what other nodes ask of this one's shards. From proto, call, to proto."""

from penstock.dispatcher import CallContext
from penstock.retrieval.v1 import shard_pb2 as pb
from penstock.retrieval.v1.shard_pb2_grpc import ShardServiceServicer
from retrieval_svc.cluster.shard_messages import (
    fetched_to,
    matched_to,
    positions_from,
    query_from,
    search_response_to,
    sequences_from,
    visibility_from,
)
from retrieval_svc.cluster.shard_node import ShardNode
from retrieval_svc.filter_messages import filter_from


class ShardServicer(ShardServiceServicer):
    """Serves the shards of `node`, and never another node's: a search that came from a coordinator goes no further."""

    def __init__(self, node: ShardNode) -> None:
        self._node = node

    async def SearchShards(self, request: pb.SearchShardsRequest, context: CallContext) -> pb.SearchShardsResponse:
        queries = [query_from(query) for query in request.queries]
        return search_response_to(await self._node.search(request.collection_uid, positions_from(request.shards), queries))

    async def FetchRows(self, request: pb.FetchRowsRequest, context: CallContext) -> pb.FetchRowsResponse:
        shard, sequences = request.shard, sequences_from(request.sequences)
        rows = await self._node.fetch(
            request.collection_uid, shard.shard, shard.sequence, sequences, with_vectors=request.with_vectors
        )
        return fetched_to(rows)

    async def MatchRows(self, request: pb.MatchRowsRequest, context: CallContext) -> pb.MatchRowsResponse:
        shard, filter_ = request.shard, filter_from(request.filter)
        visibility = visibility_from(request.principals, sees_everything=request.sees_everything)
        return matched_to(await self._node.match(request.collection_uid, shard.shard, shard.sequence, filter_, visibility))
