from penstock.retrieval.v1 import retrieval_pb2 as _retrieval_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ShardPosition(_message.Message):
    __slots__ = ("shard", "sequence")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    shard: int
    sequence: int
    def __init__(self, shard: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class ShardQuery(_message.Message):
    __slots__ = ("vector", "text", "limit", "filter", "principals", "sees_everything", "ef_search", "nprobe", "exact", "with_chunks", "document_id")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    SEES_EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    WITH_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    vector: bytes
    text: str
    limit: int
    filter: _retrieval_pb2.Filter
    principals: _containers.RepeatedScalarFieldContainer[str]
    sees_everything: bool
    ef_search: int
    nprobe: int
    exact: bool
    with_chunks: bool
    document_id: str
    def __init__(self, vector: _Optional[bytes] = ..., text: _Optional[str] = ..., limit: _Optional[int] = ..., filter: _Optional[_Union[_retrieval_pb2.Filter, _Mapping]] = ..., principals: _Optional[_Iterable[str]] = ..., sees_everything: _Optional[bool] = ..., ef_search: _Optional[int] = ..., nprobe: _Optional[int] = ..., exact: _Optional[bool] = ..., with_chunks: _Optional[bool] = ..., document_id: _Optional[str] = ...) -> None: ...

class RankedRows(_message.Message):
    __slots__ = ("scores", "sequences", "chunks")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    scores: bytes
    sequences: bytes
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, scores: _Optional[bytes] = ..., sequences: _Optional[bytes] = ..., chunks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ShardFound(_message.Message):
    __slots__ = ("dense", "lexical", "unmet")
    DENSE_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_FIELD_NUMBER: _ClassVar[int]
    UNMET_FIELD_NUMBER: _ClassVar[int]
    dense: RankedRows
    lexical: RankedRows
    unmet: _containers.RepeatedCompositeFieldContainer[UnmetCondition]
    def __init__(self, dense: _Optional[_Union[RankedRows, _Mapping]] = ..., lexical: _Optional[_Union[RankedRows, _Mapping]] = ..., unmet: _Optional[_Iterable[_Union[UnmetCondition, _Mapping]]] = ...) -> None: ...

class UnmetCondition(_message.Message):
    __slots__ = ("field", "wanted", "present")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    field: str
    wanted: str
    present: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, field: _Optional[str] = ..., wanted: _Optional[str] = ..., present: _Optional[_Iterable[str]] = ...) -> None: ...

class SearchShardsRequest(_message.Message):
    __slots__ = ("collection_uid", "shards", "queries")
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    collection_uid: int
    shards: _containers.RepeatedCompositeFieldContainer[ShardPosition]
    queries: _containers.RepeatedCompositeFieldContainer[ShardQuery]
    def __init__(self, collection_uid: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[ShardPosition, _Mapping]]] = ..., queries: _Optional[_Iterable[_Union[ShardQuery, _Mapping]]] = ...) -> None: ...

class ShardAnswer(_message.Message):
    __slots__ = ("shard", "found", "row_count")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    shard: int
    found: _containers.RepeatedCompositeFieldContainer[ShardFound]
    row_count: int
    def __init__(self, shard: _Optional[int] = ..., found: _Optional[_Iterable[_Union[ShardFound, _Mapping]]] = ..., row_count: _Optional[int] = ...) -> None: ...

class SearchShardsResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[ShardAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[ShardAnswer, _Mapping]]] = ...) -> None: ...

class FetchRowsRequest(_message.Message):
    __slots__ = ("collection_uid", "shard", "sequences", "with_vectors")
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection_uid: int
    shard: ShardPosition
    sequences: bytes
    with_vectors: bool
    def __init__(self, collection_uid: _Optional[int] = ..., shard: _Optional[_Union[ShardPosition, _Mapping]] = ..., sequences: _Optional[bytes] = ..., with_vectors: _Optional[bool] = ...) -> None: ...

class FetchRowsResponse(_message.Message):
    __slots__ = ("sequences", "chunks", "vectors")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    sequences: bytes
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    vectors: bytes
    def __init__(self, sequences: _Optional[bytes] = ..., chunks: _Optional[_Iterable[bytes]] = ..., vectors: _Optional[bytes] = ...) -> None: ...

class MatchRowsRequest(_message.Message):
    __slots__ = ("collection_uid", "shard", "filter", "principals", "sees_everything")
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    SEES_EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    collection_uid: int
    shard: ShardPosition
    filter: _retrieval_pb2.Filter
    principals: _containers.RepeatedScalarFieldContainer[str]
    sees_everything: bool
    def __init__(self, collection_uid: _Optional[int] = ..., shard: _Optional[_Union[ShardPosition, _Mapping]] = ..., filter: _Optional[_Union[_retrieval_pb2.Filter, _Mapping]] = ..., principals: _Optional[_Iterable[str]] = ..., sees_everything: _Optional[bool] = ...) -> None: ...

class MatchRowsResponse(_message.Message):
    __slots__ = ("sequences", "unmet", "row_count")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    UNMET_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    sequences: bytes
    unmet: _containers.RepeatedCompositeFieldContainer[UnmetCondition]
    row_count: int
    def __init__(self, sequences: _Optional[bytes] = ..., unmet: _Optional[_Iterable[_Union[UnmetCondition, _Mapping]]] = ..., row_count: _Optional[int] = ...) -> None: ...
