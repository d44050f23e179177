"""How long, how often and how much a run of the bench measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Each measured window lasts `seconds` after `warmup_s`, once a round for every row of every table.

    `in_flight` is of the flow part, `collection_sizes` (chunks) of the search part. A tokens round sends `prompts_alone`
    prompts one after the other and `prompts_together` at once, for answers of at most `answer_tokens`. `corpora` are folders
    of the embedding part; none: the example corpus. `graph_size` are the chunks of the parts retrieval, ingest and peers,
    `large_size` of the parts large and bulk, `cluster_size` of the part cluster, `affinity_passages` the passages that the part
    affinity asks about. `cache` is a folder where what takes long to build is kept for the next run. The serving part asks with
    so many `streams` at once, `stream_turns` times each, for answers of `stream_tokens`, of the model's checkpoint in this
    `precision` ("bf16", "w8a8"; with `gpu` also "fp8"). `gpu` means vLLM's defaults for one, and the model "8b" is one of that
    size with random weights. `peer_dir` is where the part langflow has its peers' environments; the part soak makes `soak_runs`
    runs.
    """

    rounds: int = 3
    seconds: float = 1.5
    warmup_s: float = 0.4
    in_flight: tuple[int, ...] = (1, 8, 32, 128)
    collection_sizes: tuple[int, ...] = (1_000, 20_000)
    prompts_alone: int = 2
    prompts_together: int = 8
    answer_tokens: int = 32
    corpora: tuple[str, ...] = ()
    graph_size: int = 100_000
    large_size: int = 1_000_000
    cluster_size: int = 20_000
    affinity_passages: int = 28
    cache: str = ""
    streams: tuple[int, ...] = (1, 8, 32)
    stream_turns: int = 2
    stream_tokens: int = 64
    precision: str = "w8a8"
    model: Literal["small", "8b"] = "small"
    gpu: bool = False
    peer_dir: str = ""
    soak_runs: int = 100_000


PLANS: Final[Mapping[str, Plan]] = {
    "full": Plan(),
    "quick": Plan(
        rounds=1,
        seconds=0.5,
        warmup_s=0.2,
        in_flight=(1, 32),
        collection_sizes=(1_000,),
        prompts_alone=1,
        prompts_together=2,
        answer_tokens=8,
        graph_size=5_000,
        large_size=20_000,
        cluster_size=4_000,
        streams=(1, 4),
        stream_turns=1,
        stream_tokens=16,
        affinity_passages=4,
        soak_runs=3_000,
    ),
}
