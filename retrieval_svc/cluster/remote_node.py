"""Another node's shards, over gRPC."""

from collections.abc import Mapping, Sequence

from opentelemetry import trace

from penstock.channel import open_channel, rpc_errors
from penstock.deadline import remaining_s
from penstock.errors import Unavailable
from penstock.retrieval.v1 import shard_pb2 as pb
from penstock.retrieval.v1.shard_pb2_grpc import ShardServiceStub
from retrieval_svc.cluster.shard_messages import (
    answers_from,
    fetch_request_to,
    fetched_from,
    matched_from,
    search_request_to,
)
from retrieval_svc.filter_messages import filter_message
from retrieval_svc.filters import Filter
from retrieval_svc.values import FetchedRows, MatchedRows, Sequences, ShardAnswer, ShardQuery, Visibility


class RemoteNode:
    """A ShardNode at `address` ("10.0.0.7:50051"). A call takes at most `timeout_s`, and never beyond the caller's deadline.

    `metadata` goes with every call, such as the key by which nodes know one another.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float,
        message_bytes_max: int,
        tracer_provider: trace.TracerProvider,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._metadata = tuple(metadata)
        self._channel = open_channel(
            address, tracer_provider=tracer_provider, message_bytes_max=message_bytes_max, retries=False
        )
        self._stub = ShardServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.

    async def search(self, uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery], /) -> list[ShardAnswer]:
        """The port's search. Raises Unavailable for an answer that is not about what was asked."""
        request = search_request_to(uid, shards, queries)
        with rpc_errors("retrieval"):
            response: pb.SearchShardsResponse = await self._stub.SearchShards(
                request, timeout=remaining_s(self._timeout_s), metadata=self._metadata
            )
        answers = answers_from(response)
        if not _is_about(answers, shards, len(queries)):
            message = f"{self.address} did not answer for the shards that it was asked for; do the nodes' versions differ?"
            raise Unavailable(message)
        return answers

    async def fetch(self, uid: int, shard: int, at_least: int, sequences: Sequences, /, *, with_vectors: bool) -> FetchedRows:
        """The port's fetch."""
        request = fetch_request_to(uid, shard, at_least, sequences, with_vectors=with_vectors)
        with rpc_errors("retrieval"):
            response = await self._stub.FetchRows(request, timeout=remaining_s(self._timeout_s), metadata=self._metadata)
        return fetched_from(response, with_vectors=with_vectors)

    async def match(self, uid: int, shard: int, at_least: int, filter_: Filter, visibility: Visibility, /) -> MatchedRows:
        """The port's match."""
        request = pb.MatchRowsRequest(
            collection_uid=uid,
            shard=pb.ShardPosition(shard=shard, sequence=at_least),
            filter=filter_message(filter_),
            principals=visibility.principals,
            sees_everything=visibility.principals is None,
        )
        with rpc_errors("retrieval"):
            response = await self._stub.MatchRows(request, timeout=remaining_s(self._timeout_s), metadata=self._metadata)
        return matched_from(response)

    async def close(self, grace_s: float | None = None) -> None:
        """Closes the channel once the calls in flight have ended, or are cancelled after `grace_s` (None: at once)."""
        await self._channel.close(grace_s)


def _is_about(answers: Sequence[ShardAnswer], shards: Mapping[int, int], query_count: int) -> bool:
    asked = {answer.shard for answer in answers} == set(shards) and len(answers) == len(shards)
    return asked and all(len(answer.found) == query_count for answer in answers)
