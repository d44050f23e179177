"""How a coordinator calls other nodes: bounds of time, of batches, of hedging."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLimits:
    """Settings of the fan-out.

    A shard's answer may take `shard_timeout_s` with all hedges and retries, and each call of one replica `call_timeout_s`.
    A collection's calls to all slots go out in turns, `turns_open_max` at a time; one that takes `turn_max_s` holds up nobody.
    A hedge goes out after the 95th percentile of the last calls, within the bounds given; at most `hedge_share_max` of all
    calls are hedged, beyond a burst. A replica that fails is put aside for `aside_min_s`, and twice as long each time that it
    fails again.
    """

    shard_timeout_s: float = 10.0
    call_timeout_s: float = 5.0
    batch_queries_max: int = 64
    batch_rows_max: int = 10_000
    turns_open_max: int = 1
    turn_max_s: float = 0.2
    waiting_max: int = 4096
    hedge_delay_min_s: float = 0.01
    hedge_delay_max_s: float = 0.1
    hedge_share_max: float = 0.1
    hedge_burst: int = 50
    aside_min_s: float = 0.5
    aside_max_s: float = 30.0
