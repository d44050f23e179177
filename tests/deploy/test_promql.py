"""What the alerts and the autoscalers' queries say of given series, by Prometheus's own promtool.

A series is given as promtool writes them: "0+6x10" begins at 0 and grows by 6 a minute, ten times; "_" is a missing sample.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RULES: Final = DEPLOY / "prometheus-rules.yaml"
COMPONENTS: Final = DEPLOY / "kubernetes" / "components"
ONE: Final = 'job="penstock",component="generation",namespace="penstock",instance="penstock-generation-1"'
TWO: Final = ONE.replace("-1", "-2")
CALLS: Final = "rpc_server_call_duration_seconds_count"
GENERATE: Final = 'rpc_method="penstock.generation.v1.GenerationService/Generate"'

Series = Mapping[str, str]


def a_quiet_replica(labels: str) -> dict[str, str]:
    """Half of its slots are taken, it answers two requests a second, in good time."""
    model = f'{labels},gen_ai_request_model="small"'
    return {
        f"up{{{labels}}}": "1x300",
        f"process_start_time_seconds{{{labels}}}": "1000x300",
        f'penstock_generation_requests{{{labels},state="running"}}': "16x300",
        f'penstock_generation_requests{{{labels},state="waiting"}}': "0x300",
        f'penstock_generation_requests_limit{{{labels},state="running"}}': "32x300",
        f'penstock_generation_requests_limit{{{labels},state="waiting"}}': "64x300",
        f'penstock_generation_answers_total{{{labels},end="stop"}}': "0+120x300",
        f'{CALLS}{{{labels},{GENERATE},rpc_response_status_code="OK"}}': "0+120x300",
        f"penstock_generation_engine_waiting{{{labels}}}": "0x300",
        f"penstock_generation_kv_cache_used{{{labels}}}": "0.5x300",
        f"penstock_generation_preemptions_total{{{labels}}}": "0x300",
        f"penstock_generation_prefix_cache_queried_total{{{labels}}}": "0+60000x300",
        f"penstock_generation_prefix_cache_hit_total{{{labels}}}": "0+30000x300",
        **histogram("penstock_generation_queue_duration_seconds", labels, {"0.01": 120, "+Inf": 120}),
        **histogram("gen_ai_server_time_to_first_token_seconds", model, {"0.5": 120, "+Inf": 120}),
        **histogram("gen_ai_server_time_per_output_token_seconds", model, {"0.025": 120, "+Inf": 120}),
    }


def histogram(name: str, labels: str, a_minute: Mapping[str, int], minutes: int = 300) -> dict[str, str]:
    """The buckets of a histogram that grow by so much a minute."""
    return {f'{name}_bucket{{{labels},le="{le}"}}': f"0+{count}x{minutes}" for le, count in a_minute.items()}


Check = Callable[[Series, dict[str, Any]], None]


@pytest.fixture
def check(tool, tmp_path) -> Check:
    """Asserts what an expression is at a minute: {"expr", "eval_time", "exp_samples"}."""
    promtool = tool("promtool", "apt install prometheus")

    def run(series: Series, expected: dict[str, Any]) -> None:
        written = [{"series": name, "values": values} for name, values in series.items()]
        test = {"interval": "1m", "input_series": written, "promql_expr_test": [expected]}
        (tmp_path / "test.yaml").write_text(
            json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
        )
        done = subprocess.run([promtool, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture
def fires(check) -> Callable[..., None]:
    """Asserts that two replicas, quiet but for what is said, set off these alerts and no others."""

    def run(expected: set[str], changed: Series, *, minute: int = 60, without: str = "") -> None:
        series = {**a_quiet_replica(ONE), **a_quiet_replica(TWO), **changed}
        left = {name: values for name, values in series.items() if not without or not name.startswith(without)}
        samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(expected)]
        firing = 'group by (alertname) (ALERTS{alertstate="firing"})'
        check(left, {"expr": firing, "eval_time": f"{minute}m", "exp_samples": samples})

    return run


def test_the_rules_and_their_templates_are_right(tool):
    promtool = tool("promtool", "apt install prometheus")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("minute", [30, 290])
def test_nobody_is_woken_while_all_is_well(fires, minute):
    fires(set(), {}, minute=minute)


def test_retrieval_without_generation_wakes_nobody(check):
    alone = 'job="penstock",component="retrieval",instance="penstock-retrieval-0-0",slot="0"'
    one, two = (f"up{{{each}}}" for each in (alone, alone.replace("0-0", "0-1")))
    firing = 'group by (alertname) (ALERTS{alertstate="firing"})'
    check({one: "1x60", two: "1x60"}, {"expr": firing, "eval_time": "50m", "exp_samples": []})


def test_replicas_that_are_up_and_have_no_model_are_no_replicas(fires):
    limit = "penstock_generation_requests_limit"
    fires({"GenerationIsGone"}, {}, without=limit)


def test_replicas_of_which_nothing_is_left_are_missed_for_hours_and_then_forgotten(fires):
    gone = {name: values.replace("x300", "x30") for name, values in {**a_quiet_replica(ONE), **a_quiet_replica(TWO)}.items()}
    fires({"GenerationIsGone"}, gone, minute=60)
    fires(set(), gone, minute=450)


def test_one_replica_that_loads_is_enough_of_a_reason_to_sleep_on(fires):
    loading = {name: "_x300" for name in a_quiet_replica(TWO) if not name.startswith(("up", "process"))}
    fires(set(), loading)


def test_a_process_that_is_restarted_is_a_ticket_and_one_that_keeps_on_dying_a_page(fires):
    start = f"process_start_time_seconds{{{ONE}}}"
    fires({"GenerationHasDied"}, {start: "1000x40 3400x240"})
    fires({"GenerationHasDied", "GenerationKeepsDying"}, {start: "1000x30 2800x5 3100x5 3400x5 3700x240"})


def test_an_engine_that_has_work_and_finishes_nothing_hangs(fires):
    answers = "penstock_generation_answers_total"
    hanging = {
        f'{answers}{{{ONE},end="stop"}}': "0+120x20 2400x240",
        f'{answers}{{{ONE},end="CANCELLED"}}': "0+4x300",
        f'penstock_generation_requests{{{ONE},state="running"}}': "32x300",
    }
    fires({"GenerationHangs"}, hanging)


def test_a_replica_that_is_busy_from_its_start_on_does_not_hang_until_its_first_answers(fires):
    started = {name: f"_x50 {values}" for name, values in a_quiet_replica(ONE).items()}
    answers = {f'penstock_generation_answers_total{{{ONE},end="stop"}}': "_x55 1+60x200"}
    for minute in (54, 60):
        fires(set(), started | answers, minute=minute)


def test_an_engine_without_work_does_not_hang(fires):
    idle = {
        f'penstock_generation_answers_total{{{ONE},end="stop"}}': "0x300",
        f'penstock_generation_requests{{{ONE},state="running"}}': "0x300",
    }
    fires(set(), idle)


@pytest.mark.parametrize(("failing_a_minute", "expected"), [(1, set()), (6, {"GenerationFails"})])
def test_failures_that_are_ours_are_a_page_and_those_of_callers_are_not(fires, failing_a_minute, expected):
    failing = f'{CALLS}{{{ONE},{GENERATE},rpc_response_status_code="UNAVAILABLE",error_type="ENGINE_FAILED"}}'
    wrong = f'{CALLS}{{{ONE},{GENERATE},rpc_response_status_code="INVALID_ARGUMENT",error_type="PROMPT_TOO_LONG"}}'
    fires(expected, {failing: f"0+{failing_a_minute}x300", wrong: "0+60x300"})


@pytest.mark.parametrize(("refused_a_minute", "expected"), [(6, set()), (60, {"GenerationRefuses"})])
@pytest.mark.parametrize("reason", ["OVERLOADED", "DEADLINE_TOO_SHORT"])
def test_a_share_of_refusals_that_users_notice_is_a_page(fires, refused_a_minute, expected, reason):
    refused = f'{CALLS}{{{ONE},{GENERATE},rpc_response_status_code="RESOURCE_EXHAUSTED",error_type="{reason}"}}'
    fires(expected, {refused: f"0+{refused_a_minute}x300"})


@pytest.mark.parametrize(
    ("name", "bounds", "expected"),
    [
        ("penstock_generation_queue_duration_seconds", ("5.0", "10.0"), {"GenerationQueueIsLong"}),
        ("gen_ai_server_time_to_first_token_seconds", ("10.0", "30.0"), {"GenerationIsSlow"}),
        ("gen_ai_server_time_per_output_token_seconds", ("0.15", "0.25"), {"GenerationStutters"}),
    ],
)
def test_one_in_five_that_is_too_late_is_a_ticket(fires, name, bounds, expected):
    model = ',gen_ai_request_model="small"' if name.startswith("gen_ai") else ""
    slow = dict(zip((*bounds, "+Inf"), (192, 240, 240), strict=True))
    fires(expected, histogram(name, ONE + model, slow))


def test_memory_that_is_full_is_a_ticket_only_where_running_requests_are_put_back(fires):
    used = {f"penstock_generation_kv_cache_used{{{ONE}}}": "0.97x300"}
    put_back = {f"penstock_generation_preemptions_total{{{ONE}}}": "0+2x300"}
    fires(set(), used)
    fires(set(), put_back)
    fires({"GenerationMemoryIsFull"}, used | put_back)


def test_an_engine_with_a_queue_of_its_own_has_too_many_slots(fires):
    waiting = f"penstock_generation_engine_waiting{{{ONE}}}"
    fires({"GenerationEngineHoldsBack"}, {waiting: "3x300"})
    fires(set(), {waiting: "3x5 0x5 3x5 0x5 3x5 0x5 3x5 0x5 3x5 0x5 3x240"}, minute=57)


def test_prefix_caches_that_miss_what_they_used_to_find_are_a_ticket(fires):
    hit = "penstock_generation_prefix_cache_hit_total"
    collapsed = {f"{hit}{{{each}}}": f"0+30000x220 {220 * 30000}+6000x80" for each in (ONE, TWO)}
    fires({"GenerationPrefixCacheMisses"}, collapsed, minute=290)


def test_an_engine_that_tells_nothing_of_its_prefix_cache_is_not_missed(fires):
    silent = {name: "0x300" for each in (ONE, TWO) for name in a_quiet_replica(each) if "prefix_cache" in name}
    fires(set(), silent, minute=290)


def queries() -> dict[str, str]:
    spec = yaml.safe_load((COMPONENTS / "autoscaling-keda" / "scaled-object.yaml").read_text())["spec"]
    return {each["name"]: each["metadata"]["query"] for each in spec["triggers"]}


def adapted(name: str) -> str:
    """A query of the adapter's, as it asks it for the pods of generation."""
    rules = yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text())["rules"]
    (rule,) = (each for each in rules if each["name"]["as"] == name)
    matchers = 'namespace="penstock",instance=~"penstock-generation-1|penstock-generation-2"'
    series = rule["seriesQuery"].partition("{")[0]
    filled = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.LabelMatchers>>", matchers)
    return filled.replace("<<.GroupBy>>", "instance")


def loaded(labels: str, running: int, waiting: int) -> dict[str, str]:
    requests = f"penstock_generation_requests{{{labels},state="
    return a_quiet_replica(labels) | {f'{requests}"running"}}': f"{running}x60", f'{requests}"waiting"}}': f"{waiting}x60"}


def of_each(one: float, two: float) -> list[dict[str, Any]]:
    names = ("penstock-generation-1", "penstock-generation-2")
    return [{"labels": f'{{instance="{name}"}}', "value": value} for name, value in zip(names, (one, two), strict=True)]


def test_demand_is_the_replicas_that_what_runs_and_waits_would_fill(check):
    series = loaded(ONE, 32, 64) | loaded(TWO, 16, 0)
    check(series, {"expr": queries()["demand"], "eval_time": "30m", "exp_samples": [{"value": 3.5, "labels": "{}"}]})
    check(series, {"expr": adapted("penstock_generation_demand"), "eval_time": "30m", "exp_samples": of_each(3, 0.5)})


def test_demand_is_unknown_and_not_zero_where_no_replica_tells_it(check):
    check({f"up{{{ONE}}}": "1x60"}, {"expr": queries()["demand"], "eval_time": "30m", "exp_samples": []})


def test_a_wait_in_the_queue_at_most_doubles_the_replicas(check):
    name = "penstock_generation_queue_duration_seconds"
    series = a_quiet_replica(ONE) | a_quiet_replica(TWO) | histogram(name, ONE, {"0.01": 0, "30.0": 1200, "+Inf": 1200})
    check(series, {"expr": queries()["queue"], "eval_time": "30m", "exp_samples": [{"value": 4, "labels": "{}"}]})
    check(
        series,
        {"expr": adapted("penstock_generation_queue_p95_seconds"), "eval_time": "30m", "exp_samples": of_each(4, 0.0095)},
    )


def test_a_queue_that_nobody_was_in_is_no_reason_to_grow(check):
    idle = {name: "0x60" if "queue_duration" in name else values for name, values in a_quiet_replica(ONE).items()}
    for expression in (adapted("penstock_generation_queue_p95_seconds"), f"({queries()['queue']}) >= 0 or vector(0)"):
        labels = '{instance="penstock-generation-1"}' if "instance" in expression else "{}"
        check(idle, {"expr": expression, "eval_time": "30m", "exp_samples": [{"labels": labels, "value": 0}]})
