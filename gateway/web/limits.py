"""What a request to a server of others may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """`timeout_s` for a request with its answer, `answer_bytes_max` of the answer's body."""

    timeout_s: float = 10.0
    answer_bytes_max: int = 2**20
