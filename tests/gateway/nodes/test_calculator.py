"""calculator: what it computes, what it refuses, and that nothing takes long."""

import contextlib
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.arithmetic import computed
from penstock.errors import FailedPrecondition
from tests.gateway.fakes import World, document, node


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("7 / 2", 3.5), ("8 / 2", 4), ("7 // 2", 3), ("-7 // 2", -4), ("7 % 3", 1),
        ("2 ** 3 ** 2", 512), ("-2 ** 2", -4), ("(-2) ^ 2", 4), ("2 ** -1", 0.5), ("--3", 3), ("+-3", -3), ("2 - -3", 5),
        ("4*4*(33/22)+12-20", 16.0), ("0.1 + 0.2", 0.1 + 0.2), ("1e3 * .5", 500.0), ("1.", 1.0), ("10 ** 20 + 1", 10**20 + 1),
        ("sqrt(16)", 4.0), ("round(2.567, 2)", 2.57), ("round(2.4)", 2), ("max(1, 2 * 3, 4)", 6), ("log(8, 2)", 3.0),
        ("pi", math.pi), ("2 \u00d7 3 \u2212 4 ÷ 2", 4), ("5²", 25), ("pow(2, 10)", 1024), ("abs(-3)", 3),
        ("floor(2.7) + ceil(2.1)", 5),
    ],
)  # fmt: skip
def test_it_computes_as_python_does(text: str, result: float) -> None:
    found = computed(text)
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"), ("2 +", "ends too early"), ("2 3", "'3' is not expected"), ("(2", r"expected '\)'"),
        (")", "is not expected"),
        ("1 / 0", "division by zero"), ("1 % 0", "division by zero"), ("2 ** 100000", "too large"),
        ("9 ** 9 ** 9", "too large"),
        ("10 ** 300 * 10", "too large"), ("1e308 * 10", "too large"), ("1e400", "too large"), ("exp(1000)", "too large"),
        ("(-8) ** (1 / 3)", "not real"), ("sqrt(-1)", "domain"), ("log(0)", "domain"), ("x + 1", "'x' is not known"),
        ("__import__('os')", "has no place"), ("open(1)", "'open' is not known"), ("2; 3", "has no place"),
        ("a.b", "has no place"),
        ("sqrt(1, 2)", "takes 1 numbers"), ("sqrt 4", "expected"), ("(" * 60 + "1" + ")" * 60, "nested"),
        ("1" * 400, "too large"),
        ("2" + "**1" * 60, "nested"), ("1+" * 600 + "1", "1201 characters"), ("round(1, 1e308)", "too large"),
        ("round(1, -10 ** 299)", "too large"),
    ],
)  # fmt: skip
def test_it_says_what_it_cannot_compute(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        computed(text)


@given(st.text(alphabet="0123456789.eE+-*/%^(), abspiqrtlogxmndruh", max_size=200))
def test_no_text_takes_long_or_fails_otherwise(text: str) -> None:
    begun = time.perf_counter()
    with contextlib.suppress(ValueError):
        assert abs(computed(text)) <= 1.8e308
    assert time.perf_counter() - begun < 0.2


async def test_as_a_node(world: World) -> None:
    flow = document(
        node("sum", "input"), node("result", "calculator"), node("answer", "output"), edges=["sum > result", "result > answer"]
    )  # fmt: skip
    assert (await world.compile(flow).run({"sum": "6 * 7"})).outputs == {"answer": 42}
    with pytest.raises(FailedPrecondition, match="'6 \\* ' cannot be computed: the expression ends too early"):
        await world.compile(flow).run({"sum": "6 * "})
