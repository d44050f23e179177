"""The tokens part's table."""

from collections.abc import Mapping

from bench.report import Round, Table, cpu_ms_a_token, middle, number, ratio, times, tokens_a_second


def tokens_tables(found: Mapping[tuple[str, int], Round]) -> tuple[Table, ...]:
    """All of them: one."""
    rows = []
    for (side, in_flight), samples in sorted(found.items(), key=lambda item: item[0][1]):
        engine = found["engine", in_flight]
        rows.append(
            (
                side,
                str(in_flight),
                str(sum(each.output_tokens for each in samples)),
                number(middle(samples, tokens_a_second)),
                number(middle(samples, lambda each: each.first_p50_ms)),
                number(middle(samples, lambda each: each.first_p99_ms)),
                str(sum(each.errors for each in samples)),
                times(ratio(samples, engine, tokens_a_second)),
                times(ratio(samples, engine, lambda each: each.first_p50_ms)),
                *(number(middle(samples, cpu_ms_a_token(group))) for group in ("engine", "generation", "gateway")),
                number(middle(samples, lambda each: each.other_cores), 2),
            )
        )
    return (
        Table(
            title="Tokens through the gateway beside the engine itself (SmolLM2-135M-Instruct Q4_1, OpenVINO)",
            note="CPU in ms a token of the answer; engine is the process that computes, generation the service in front of it.",
            columns=(
                "path", "at once", "tokens", "tokens/s", "first p50 ms", "first p99 ms", "errors", "tokens/s to engine",
                "first to engine", "CPU engine", "CPU generation", "CPU gateway", "other",
            ),
            rows=tuple(rows),
        ),
    )  # fmt: skip
