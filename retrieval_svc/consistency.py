"""Consistency tokens: the position in each shard's log at which a write is visible, as text that callers pass back.

A search that carries the token waits until every shard it asks has reached its position (read your writes).
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import orjson

from penstock.errors import InvalidArgument, Violation

_SHARDS_MAX: Final = 1024
_SEQUENCE_MAX: Final = 2**63 - 1


def consistency_token(uid: int, positions: Mapping[int, int]) -> str:
    """The token of a write; empty for one that changed nothing."""
    if not positions:
        return ""
    raw = orjson.dumps([uid, sorted(positions.items())])
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def positions_in(uid: int, token: str) -> dict[int, int]:
    """Shard to position. Tokens of several writes may be joined by commas.

    Raises InvalidArgument for what consistency_token did not make for this collection.
    """
    positions: dict[int, int] = {}
    for each in token.split(",") if token else ():
        positions = merged(positions, _read(uid, each))
    return positions


def _read(uid: int, token: str) -> dict[int, int]:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        made_for, pairs = orjson.loads(raw)
        positions = {int(shard): int(sequence) for shard, sequence in pairs}
    except (binascii.Error, ValueError, TypeError):
        made_for, positions = None, {}
    within = all(0 <= shard < _SHARDS_MAX and 0 <= sequence <= _SEQUENCE_MAX for shard, sequence in positions.items())
    if made_for != uid or not positions or not within:
        message = "consistency_token is not what a write to this collection gave out; leave it empty to search without waiting"
        violation = Violation(message=message, field="consistency_token")
        raise InvalidArgument(message, metadata={"field": "consistency_token"}, violations=[violation])
    return positions


def merged(first: Mapping[int, int], second: Mapping[int, int]) -> dict[int, int]:
    """The positions at which both are visible."""
    return {shard: max(first.get(shard, 0), second.get(shard, 0)) for shard in {*first, *second}}
