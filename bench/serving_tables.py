"""The serving part's table."""

from collections.abc import Mapping

from bench.plan import Plan
from bench.report import Round, Table, cpu_ms_a_token, middle, number, ratio, times, tokens_a_second


def serving_tables(found: Mapping[tuple[str, int], Round], plan: Plan) -> tuple[Table, ...]:
    """All of them: one."""
    rows = []
    for (side, in_flight), samples in sorted(found.items(), key=lambda item: item[0][1]):
        direct = found["AsyncLLM", in_flight]
        rows.append(
            (
                side,
                str(in_flight),
                str(sum(each.output_tokens for each in samples)),
                number(middle(samples, tokens_a_second)),
                times(ratio(samples, direct, tokens_a_second)),
                number(middle(samples, lambda each: each.first_p50_ms)),
                number(middle(samples, lambda each: each.first_p99_ms)),
                _or_nothing(middle(samples, lambda each: each.added_p50_ms)),
                _or_nothing(middle(samples, lambda each: each.added_p99_ms)),
                *(number(middle(samples, cpu_ms_a_token(group))) for group in ("engine", "server", "client")),
                str(sum(each.errors for each in samples)),
                number(middle(samples, lambda each: each.other_cores), 2),
            )
        )
    return (
        Table(
            title=f"vLLM alone, behind the service, behind its own server ({_model(plan)})",
            note="added: time to the first token beyond the engine's own account. CPU in ms a token: the engine's process, "
            "the server in front of it, the client (of AsyncLLM: the process that holds it).",
            columns=(
                "path", "streams", "tokens", "tokens/s", "to AsyncLLM", "first p50 ms", "first p99 ms", "added p50 ms",
                "added p99 ms", "CPU engine", "CPU server", "CPU client", "errors", "other",
            ),
            rows=tuple(rows),
        ),
    )  # fmt: skip


def _model(plan: Plan) -> str:
    name = "Llama 8B with random weights" if plan.model == "8b" else "SmolLM2-135M-Instruct"
    return f"{name}, {plan.precision}, {'a GPU' if plan.gpu else 'CPU build'}"


def _or_nothing(value: float) -> str:
    return number(value) if value else "-"
