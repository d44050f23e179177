"""Which scope a caller's key needs for each method."""

from typing import Final

from penstock.identity import Scope

_METHODS: Final[dict[Scope, tuple[str, ...]]] = {
    "read": (
        "GetCollection", "ListCollections", "BatchGetChunks", "ListChunks", "Search", "SearchBatch", "Embed", "ListModels",
        "GetCollectionStatus",
    ),
    "write": ("IngestDocuments", "IngestStream", "UpsertChunks", "DeleteChunks"),
    "admin": (
        "CreateCollection", "DeleteCollection", "CompactCollection", "CreateSnapshot", "ListSnapshots",
        # Only other nodes ask these: they say whose eyes a search has, which is for no one else to say.
        "SearchShards", "FetchRows", "MatchRows",
    ),
}  # fmt: skip

SCOPES: Final[dict[str, Scope]] = {name: scope for scope, names in _METHODS.items() for name in names}
