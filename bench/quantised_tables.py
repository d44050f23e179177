"""The quantised part's tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import Round, Table, cpu_ms_a_token, middle, number, ratio, times, tokens_a_second


def quantised_tables(found: Mapping[tuple[str, int], Round], sizes: Sequence[Mapping[str, Any]]) -> tuple[Table, ...]:
    """Tokens a second, and memory."""
    return _rates(found), _memory(sizes)


def _rates(found: Mapping[tuple[str, int], Round]) -> Table:
    rows, cpu_ms = [], cpu_ms_a_token("service")
    for (precision, streams), samples in sorted(found.items(), key=lambda item: item[0][1]):
        plain = found["bf16", streams]
        rows.append(
            (
                precision,
                str(streams),
                str(sum(each.output_tokens for each in samples)),
                number(middle(samples, tokens_a_second)),
                times(ratio(samples, plain, tokens_a_second)),
                number(middle(samples, lambda each: each.first_p50_ms)),
                times(ratio(samples, plain, lambda each: each.first_p50_ms)),
                number(middle(samples, cpu_ms)),
                times(ratio(samples, plain, cpu_ms)),
                str(sum(each.errors for each in samples)),
                number(middle(samples, lambda each: each.other_cores), 2),
            )
        )
    return Table(
        title="bf16 and W8A8 in vLLM, through the generation service (SmolLM2-135M-Instruct)",
        note="Tokens are those of the answers; prompts have some 400. CPU: of the service with its engine.",
        columns=(
            "precision", "streams", "tokens", "tokens/s", "to bf16", "first p50 ms", "to bf16", "CPU ms/token", "to bf16",
            "errors", "other cores",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _memory(sizes: Sequence[Mapping[str, Any]]) -> Table:
    plain = sizes[0]
    return Table(
        title="Memory of the same",
        note=(
            "Weights: the safetensors files. Anonymous: resident memory that no file holds, of all processes of the service; "
            "libraries, and keys and values of the same size, are in both, so only the difference speaks of the weights."
        ),
        columns=(
            "precision", "weights MiB", "to bf16", "anonymous MiB, loaded", "less than bf16", "anonymous MiB, after",
            "less than bf16",
        ),
        rows=tuple(
            (
                each["precision"],
                number(each["weights_mib"], 4),
                times(each["weights_mib"] / plain["weights_mib"]),
                *(
                    cell
                    for moment in ("loaded", "after")
                    for cell in (
                        number(each[moment]["anonymous_mib"], 4),
                        number(plain[moment]["anonymous_mib"] - each[moment]["anonymous_mib"], 4),
                    )
                ),
            )
            for each in sizes
        ),
    )  # fmt: skip
