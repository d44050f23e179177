"""Expressions: what they say, against another implementation of CEL too; what they read; and where they end."""

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.expressions import EXPRESSION_CHARS_MAX, Expression
from gateway.expressions.functions import FUNCTIONS
from penstock.errors import FailedPrecondition
from tests.gateway.fakes import passage

VALUES: dict[str, Any] = {
    "n": 3, "f": 0.5, "s": "Who is Émile? 😀", "t": True, "nothing": None, "list": [1, 2.5, 3], "words": ("one", "two", "one"),
    "order": {"status": "sent", "items": [{"sku": "a", "count": 2}, {"sku": "b", "count": 0}]},
    "docs": (passage(1, "x"), passage(2, "y")),
}  # fmt: skip


def said(text: str, **values: Any) -> Any:
    return Expression(text).evaluate({**VALUES, **values})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3 - 4", 3),
        ("(1 + 2) * 3", 9),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("7.0 / 2.0", 3.5),
        ("-9223372036854775808", -(2**63)),
        ("0xff + 1e2", 355.0),
        ("n * f", 1.5),
        ("n + 1.0 == 4", True),
        ('"a" + \'b\' + """c"d""" + r"\\n"', 'abc"d\\n'),
        (r'"\x41\u00e9\U0001F600\101\n\""', 'Aé😀A\n"'),
        ("[1, 2,] + [3]", [1, 2, 3]),
        ('{"a": n, "b": [t],}', {"a": 3, "b": [True]}),
        ("!t || n < 4 && f >= 0.5", True),
        ("!!t && - -n == 3", True),
        ("n > 2 ? 'many' : 'few'", "many"),
        ("t ? 1 : t ? 2 : 3", 1),
        ("n == 3.0 && n != '3' && true != 1 && nothing == null", True),
        ("[1, {'a': [2]}] == [1.0, {'a': [2]}]", True),
        ("3 in list && !(4 in list) && 'status' in order", True),
        ("order.items[0].sku", "a"),
        ("order['items'][1].count == 0", True),
        ("has(order.status) && !has(order.total)", True),
        ("order.items.filter(i, i.count > 0).map(i, i.sku)", ["a"]),
        ("order.items.map(i, i.count > 0, i.sku)", ["a"]),
        ("list.all(x, x > 0) && list.exists(x, x == 2.5) && list.exists_one(x, x > 2.6)", True),
        ("order.map(key, key)", ["status", "items"]),
        ("docs.map(d, d.text + ':' + string(d.score))", ["x:1", "y:0.5"]),
        ("docs.map(d, d.metadata.n)", [1, 2]),
        ("// of all\nsize(docs) // comment, with a 'quote\n", 2),
        ("1 < 2 == true", True),
        # What decides the whole makes an error beside it unimportant.
        ("1 / 0 == 1 || true", True),
        ("false && nothing.x", False),
        ("[0, 1].exists(x, 1 / x == 1)", True),
        ("[0, 1].all(x, 1 / x > 5)", False),
    ],
)  # fmt: skip
def test_an_expression_says(text: str, expected: object) -> None:
    result = said(text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size(s) + s.size() + size(list) + size(order)", 15 + 15 + 3 + 2),
        ("s.contains('Émile') && s.startsWith('Who') && s.endsWith('😀')", True),
        (r"s.matches('^\\w+ is') && matches(s, 'É')", True),
        ("string(3) + string(0.5) + string(2.0) + string(true) + string('x') + string(null)", "30.52truexnull"),
        ("string([1, 'a'])", '[1,"a"]'),
        ("[int('-12'), int(-2.9), int(7)]", [-12, -2, 7]),
        ("[double('1e3'), double('.5'), double(2)]", [1000.0, 0.5, 2.0]),
        ("[bool('true'), bool(false)]", [True, False]),
        ("s.lower() + s.lowerAscii()", "who is émile? 😀who is Émile? 😀"),
        ("'aé'.upper() + 'aé'.upperAscii()", "AÉAé"),
        ("' a '.trim()", "a"),
        ("'a,b,c'.split(',')", ["a", "b", "c"]),
        ("'a,b,c'.split(',', 2)", ["a", "b,c"]),
        ("'abc'.split('')", ["a", "b", "c"]),
        ("'abc'.split('', 2)", ["a", "bc"]),
        ("'abc'.split(',', 0)", []),
        ("words.join('-') + words.join()", "one-two-oneonetwoone"),
        ("'aaa'.replace('a', 'bb') + 'aaa'.replace('a', '', 2)", "bbbbbba"),
        ("'abcd'.substring(1) + 'abcd'.substring(1, 3)", "bcdbc"),
        ("['abcb'.indexOf('b'), 'abcb'.indexOf('b', 2), 'abcb'.indexOf('x'), 'abcb'.lastIndexOf('b')]", [1, 3, -1, 3]),
        ("[sum(list), sum([]), sum([1, 2])]", [6.5, 0, 3]),
        ("[min(list), max(list), min(4, 2, 3), max(4, 2)]", [1, 3, 2, 4]),
        ("mean([1, 2])", 1.5),
        ("[abs(-2), abs(-2.5), floor(2.7), ceil(2.1), floor(-2.1), round(2.5), round(-2.5), round(2.4)]",
         [2, 2.5, 2, 3, -3, 3, -3, 2]),
        ("round(1000.0 * exp(ln(f)))", 500),
        ("range(3) + range(0) + range(-1)", [0, 1, 2]),
        ("list.slice(1) + list.slice(0, 1)", [2.5, 3, 1]),
        ("flatten([[1], [], 2, [[3]]])", [1, 2, [3]]),
        ("distinct([1, '1', 1.0, true, [1], [1]])", [1, "1", True, [1]]),
        ("sort(words) + sort(['b', 'a'])", ["one", "one", "two", "a", "b"]),
        ("sort([2, 1.5])", [1.5, 2]),
        ("reverse(list)", [3, 2.5, 1]),
        ("runningSum([1, 2, 3])", [1, 3, 6]),
    ],
)  # fmt: skip
def test_a_function_gives(text: str, expected: object) -> None:
    assert said(text) == expected


def test_every_function_is_tried_above() -> None:
    marks = test_a_function_gives.pytestmark + test_an_expression_says.pytestmark
    tried = " ".join(text for mark in marks for text, _ in mark.args[1])
    assert [name for name in FUNCTIONS if f"{name}(" not in tried] == []


def test_every_function_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[3] / "docs/flows.md").read_text(encoding="utf-8")
    assert [name for name in FUNCTIONS if not re.search(rf"`(?:\w+\.)?{name}[`(]", guide)] == []


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("a.b.c + b", ("a", "b")),
        ("x.map(x, x)", ("x",)),
        ("x.map(y, y) + y", ("x", "y")),
        ("y + x.map(y, y)", ("x", "y")),
        ("x.filter(a, a.map > least)", ("least", "x")),
        ("x.map(a, a.all(b, b == a))", ("x",)),
        ("x.map(a, b.map(b, b + a))", ("b", "x")),
        ("x.map(map, map)", ("x",)),
        ("x.map(y, z, y)", ("x", "z")),
        ("[1].exists(size, size(size) > size)", ()),
        ("'x.map(q, p)' + \"r\" + '''t' u'''", ()),
        ("a // x.map(b, c)\n+ d", ("a", "d")),
        ("{'k': v, k: w}", ("k", "v", "w")),
        ("has(order.total) ? total : 0", ("order", "total")),
        ("truely || nullable || in_", ("in_", "nullable", "truely")),
        ("f(x)", None),
    ],
)
def test_what_an_expression_reads_is_what_it_does_not_bind(text: str, variables: tuple[str, ...] | None) -> None:
    if variables is None:
        with pytest.raises(ValueError, match="no function"):
            Expression(text)
    else:
        assert Expression(text).variables == variables


def test_a_name_means_after_a_macro_what_it_meant_before() -> None:
    assert said("x.map(x, x + 1) == [2] && x == [1]", x=[1])
    assert said("x.map(y, x.map(x, x + y)).flatten() + x", x=[1]) == [2, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 1 to 2000 characters"),
        ("1" * (EXPRESSION_CHARS_MAX + 1), "this one has 2001"),
        ("1 +", "Syntax error at character 4: a value should stand here, not the end"),
        ("a = 1", "character 3: an operator or the end should stand here, not '='; write =="),
        ("a.b(1)", "there is no function 'b'"),
        ("length(a)", "there is no function 'length'"),
        ("a.filterr(x, x)", "did you mean 'filter'"),
        ("size(1, 2)", "size takes 1 arguments, not 2"),
        ("a.map(x)", "',' should stand here, not ')'"),
        ("a.all(x, y, z)", "all takes the name of an item"),
        ("a.map(x.y, x)", "',' should stand here, not '.'"),
        ("a.map(true, 1)", "'true' cannot be the name of an item"),
        ("has(a)", "has takes a field"),
        ("has(a[0])", "has takes a field"),
        ("1u", "JSON has no uint"),
        ("12abc", "no number ends in 'abc'"),
        ("b'abc'", "not \"'abc'\""),
        ("timestamp('2020-01-01T00:00:00Z')", "'timestamp'; JSON has no such values"),
        ("google.protobuf.Timestamp{}", "not '{'"),
        ("if", "'if' is a reserved word"),
        ("a ? b", "':' should stand here, not the end"),
        ("(a", "')' should stand here, not the end"),
        ("[a b]", "',' should stand here, not 'b'"),
        ("{a}", "':' should stand here, not '}'"),
        ("'abc", "has no meaning here"),
        ("'a\nb'", "has no meaning here"),
        ("a & b", "'&' has no meaning here"),
        (r"'\q'", r"no string has the escape \q"),
        (r"'\ud800'", "is no character"),
        (r"'\U00110000'", "is no character"),
        ("9223372036854775808", "beyond 64 bits"),
        ("1e999", "beyond those of a double"),
        ("x" * 65, "a name has at most 64 characters"),
        (" + ".join(f"v{number}" for number in range(60)) + " == [" + ",".join(f"w{number}" for number in range(5)) + "]",
         "reads 65 names; at most 64"),
        ("x.map(a, x.map(b, x.map(c, 1)))", "more than 2 macros over lists inside one another"),
        ("s.matches('(')", "not a regular expression of RE2"),
        ("(" * 1000 + "1" + ")" * 999, "more than 24 brackets inside one another"),
        ("[" * 1000 + "]" * 1000, "more than 24 brackets inside one another"),
        ("{'a':" * 390 + "1", "more than 24 brackets inside one another"),
        ("t?" * 300 + "1" + ":1" * 300, "':' should stand here"),
        ("t ? 1 : " * 200 + "1", "more than 24 brackets inside one another"),
        ("size(" * 300 + "a" + ")" * 300, "more than 24 brackets inside one another"),
        ("!" * 1999 + "t", "more than 64 operators and brackets inside one another"),
        ("-" * 1999 + "n", "more than 64 operators and brackets inside one another"),
        ("1+" * 999 + "1", "more than 64 operators and brackets inside one another"),
        ("a" + ".a" * 900, "more than 64 operators and brackets inside one another"),
        ("a" + "[0]" * 600, "more than 64 operators and brackets inside one another"),
        ("x" + ".filter(a,true)" * 120, "more than 64 operators and brackets inside one another"),
    ],
)  # fmt: skip
def test_what_is_no_expression_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Expression(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n + s", "+ does not take int and string"),
        ("s < n", "< does not compare string with int"),
        ("list < list", "< does not compare list with list"),
        ("!n", "! takes true or false, not int"),
        ("n || !t", "|| takes true or false, not int"),
        ("n ? 1 : 2", "?: takes true or false, not int"),
        ("-s", "- does not take string"),
        ("-t", "- does not take bool"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("9223372036854775807 + 1", "beyond 64 bits"),
        ("-9223372036854775808 / -1", "beyond 64 bits"),
        ("order.total", "the map has no key 'total'"),
        ("order[0]", "a map has no [0]"),
        ("s.length", "a string has no field 'length'"),
        ("list[3]", "the list has 3 items, none at 3"),
        ("list[-1]", "none at -1"),
        ("list[0.5]", "a list has no [0.5]"),
        ("list[t]", "a list has no [True]"),
        ("list.all(x, x)", "takes true or false, not int"),
        ("n.map(x, x)", "map takes a list or a map, not a int"),
        ("1 in s", "in looks into a list or a map"),
        ("{n: 1}", "a key of a map is a string, not int"),
        ("{'a': 1, 'a': 2}", "the key 'a' stands twice"),
        ("size(n)", "size takes a string, a list or a map, not int"),
        ("int('1.5')", "int takes a finite number"),
        ("int(1e300)", "beyond 64 bits"),
        ("double('nan')", "double takes a number"),
        ("bool('yes')", "bool takes a bool"),
        ("string(1.0 / 0.0)", "not finite"),
        ("min([])", "min of an empty list"),
        ("mean([])", "mean of an empty list"),
        ("sum(words)", "a number is needed, not string"),
        ("sort([1, 'a'])", "sort takes a list of numbers or a list of strings"),
        ("ln(0)", "ln takes a number above 0"),
        ("round(1.0 / 0.0)", "not finite"),
        ("'abc'.substring(2, 1)", "a position from 0 to 1 is needed, not 2"),
        ("s.matches(s + '(')", "not a regular expression of RE2"),
        ("1.0 / 0.0", "a number that is not finite"),
        ("[exp(1000)]", "a number that is not finite"),
        ("0.0 / 0.0", "a number that is not finite"),
        ("[n].map(a, [a])" + ".map(a, [a])" * 40, "nested more than 32 deep"),
    ],
)
def test_what_cannot_be_computed_is_told_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        said(text)
    assert says in caught.value.message
    assert text[:40] in caught.value.message or repr(text[:40])[1:-1] in caught.value.message


KEYS = {f"k{number}": number for number in range(10_000)}


@pytest.mark.parametrize(
    "text",
    [
        "['aaaaaaaaaa']" + ".map(a, a + a)" * 60,
        "[[1]]" + ".map(a, a + a)" * 60,
        "[1]" + ".map(a, [a, a])" * 60,
        "[1]" + ".map(a, {'x': a, 'y': a})" * 60,
        "[[1]]" + ".map(a, [a, a])" * 40 + ".exists(a, a == a || true)",
        "string([1]" + ".map(a, [a, a])" * 60 + ") == ''",
        "range(1000000000)",
        "range(1000000).map(i, i)",
        "range(2000).map(i, range(2000).map(j, i * j))",
        "range(2000).all(i, range(2000).exists(j, 1 / 0 == j) || true)",
        "range(100000).exists(i, big.contains(string(i) + '?'))",
        "range(100000).filter(i, big == big)",
        "range(3000).filter(i, big.matches('(a|b|[ab])*c' + string(i)))",
        "range(10000).exists(i, s.matches(string(i) + '[\\\\pL]{1000}') || false)",
        "range(10000).exists(i, string(range(10000)) == '')",
        "range(10000).exists(i, range(10000) == reverse(range(10000)))",
        "range(10000).exists(i, keys == other)",
        "distinct(range(100000))",
        "range(1000).map(i, big.split(''))",
        "big.replace('a', big)",
        "range(4000).map(i, big).join(big)",
        "range(300).map(i, range(300).map(j, big.upper()))",
    ],
)
def test_hostile_expressions_end_soon_and_make_little(text: str) -> None:
    begun = time.thread_time()
    with pytest.raises(FailedPrecondition, match=r"it (takes|makes|gives) more than"):
        said(text, big="ab" * 50_000, keys=KEYS, other=KEYS | {"k9999": 0})
    assert time.thread_time() - begun < 2


@pytest.mark.parametrize(
    "used", ["int(a)", "bool(a)", "double(a)", "'abc'.substring(a)", "list[a]", "order[a]", "{'k': 1}[a]", "range(a)"]
)
def test_a_value_with_more_parts_than_can_be_written_is_not_shown(used: str) -> None:
    doubled = "[1]" + ".map(a, [a, a])" * 55
    with pytest.raises(FailedPrecondition, match=r"a list|\[a list\]"):
        said(f"{doubled}.map(a, {used})")


def test_passages_and_lists_of_any_edge_are_read() -> None:
    assert said("lists.map(l, l.map(d, d.chunk_id))", lists=((passage(1),), (passage(2), passage(3)))) == [["c1"], ["c2", "c3"]]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
PIECES = st.sampled_from(
    [
        *"()[]{}.,:?!<>+-*/%\n'\"\\= 1a", "a", "b", "x", "==", "&&", "||", "in", "true", "null", "'s'", '"""', "1.5",
        ".map(a,", ".filter(x,", "has(",
        "size(", ".all(b,", "//", "r'", "0x",
        ".split(", "é", "\x00", "range(", ".join(", "string(",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=40), st.tuples(JSON, JSON, JSON))
@settings(deadline=None, max_examples=600)
def test_any_text_is_an_expression_that_has_a_value_or_is_told_why_not(text: str, given: tuple[Any, Any, Any]) -> None:
    try:
        expression = Expression(text)
    except ValueError:
        return
    values = dict.fromkeys(expression.variables, 1) | dict(zip("abx", given, strict=True))
    try:
        result = expression.evaluate(values)
    except FailedPrecondition:
        return
    assert json.loads(json.dumps(result, allow_nan=False)) == result


NUMBERS = st.integers(-20, 20) | st.sampled_from([0.5, -1.5, 2.25])
OURS = ("not finite", "stands twice", "- does not take bool")
"""Reasons for which we refuse what the other implementation computes: JSON has no infinity, and CEL no -true."""

LEAVES = st.one_of(
    NUMBERS.map(lambda number: f"({number})"),
    st.sampled_from(["true", "false", "null", "'ab'", "'b'", "''", "[]", "[1, 2]", "['a', 'b']", "{'a': 1}"]),
    st.sampled_from(["i", "d", "s", "l", "m"]),
)  # fmt: skip


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/", "%", "<", "<=", ">", ">=", "==", "!=", "&&", "||", "in"])
    macros = st.sampled_from(["map", "filter", "all", "exists", "exists_one"])
    return st.one_of(
        st.tuples(inner, binary, inner).map(" ".join).map("({})".format),
        st.tuples(inner, inner, inner).map(lambda parts: "({} ? {} : {})".format(*parts)),
        st.tuples(inner, macros, inner).map(lambda parts: "({}).{}(i, {})".format(*parts)),
        st.tuples(inner, inner).map(lambda parts: "({})[{}]".format(*parts)),
        inner.map("size({})".format),
        inner.map("(!{})".format),
        inner.map("(-{})".format),
        inner.map("({}).a".format),
        inner.map("has(({}).a)".format),
        inner.map("({}).contains('a')".format),
        st.tuples(inner, inner).map(lambda parts: "[{}, {}]".format(*parts)),
        inner.map("{{'a': {}}}".format),
    )


@given(st.recursive(LEAVES, _larger, max_leaves=8), st.integers(-5, 5))
@settings(deadline=None, max_examples=600)
def test_another_implementation_of_cel_says_the_same(text: str, number: int) -> None:
    values = {"i": number, "d": 1.5, "s": "abc", "l": [1, 2, 3], "m": {"a": [1], "b": "x"}}
    expression = Expression(text) if _fits(text) else None
    if expression is None:
        return
    try:
        theirs = cel.compile(text).execute(values)
    except Exception:  # noqa: BLE001  # What it can't do, such as mixing whole and decimal numbers, says nothing of ours.
        return
    try:
        ours = expression.evaluate(values)
    except FailedPrecondition as error:
        ours = error.message
    refused = isinstance(ours, str) and any(known in ours for known in OURS)
    assert refused or _same(ours, theirs), (text, ours, theirs)


def _fits(text: str) -> bool:
    """Whether the text keeps our bounds on nesting. Everything else that is made here is CEL."""
    try:
        Expression(text)
    except ValueError as error:
        if "inside one another" in str(error):
            return False
        raise
    return True


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs)
    return type(ours) is type(theirs) and bool(ours == theirs)
