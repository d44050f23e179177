import json
import re
import time

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from generation_svc import form_schema, forms
from generation_svc.engine import Feature, StructuredOutput
from penstock.errors import Violation


def said(kind: Feature, value: str = "", choices: tuple[str, ...] = ()) -> list[Violation]:
    return list(forms.faults(StructuredOutput(kind=kind, value=value, choices=choices)))


def regex(pattern: str) -> str:
    return "; ".join(fault.advice for fault in said(Feature.REGEX, pattern))


def schema(value: object) -> str:
    return "; ".join(
        fault.advice for fault in said(Feature.JSON_SCHEMA, value if isinstance(value, str) else json.dumps(value))
    )


def grammar(text: str) -> str:
    return "; ".join(fault.advice for fault in said(Feature.GRAMMAR, text))


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d{3}-\d{4}",
        r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,8}",
        "(yes|no)( because [^.]{1,200})?",
        "^a$",
        r"(\w+ )*\w+",
        "[a-z]{1,1000}",
        "(a|b)*a(a|b){20}",
        r"\u00e4[\u0430-\u044f]{1,30}",
        ".*",
        r"[^\"\\\x00-\x1f]*",
        "a*?b+?",
        "(?:ab)+",
        "|".join(f"word{n}" for n in range(300)),
    ],
)
def test_ordinary_expressions_are_taken(pattern: str) -> None:
    assert regex(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a{1,1000}){1,1000}", "1000000 states"),
        ("a{99999999999}", "11 digits"),
        ("([a-z]{1,50} ){1,50}", "2500 states of several characters"),
        ("(a+)+b", "too many ways"),
        ("(((a*)*)*)*", "too many ways"),
        (r"(\w+\s?)+", "too many ways"),
        ("[a-z]?" * 50, "too many ways"),
        (".*" * 20 + "x", "too many ways"),
        ("(" * 500 + "a" + "*)" * 500, "deeper than 20"),
    ],
)
def test_an_expression_that_explodes_is_refused_with_the_reason(pattern: str, why: str) -> None:
    assert why in regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a)\1", "reference back"),
        (r"(?P<x>a)(?P=x)", "looks around, has a name"),
        ("(?=a)b", "looks around"),
        ("(?<!a)b", "looks around"),
        (r"\bword\b", "word boundary"),
        (r"\Aword\Z", "anchor"),
        (r"\p{L}+", "Unicode property"),
        ("a^b", "has a ^ inside"),
        ("(a", "without a )"),
        ("a)", "without a ("),
        ("[a", "without a ]"),
        ("[]a]", "nothing in it"),
        ("[[:alpha:]]", "a [ in a class"),
        ("[z-a]", "before it"),
        (r"[\w-.]", r"write \-"),
        (r"[\^a]", "negation"),
        ("a{2,1}", "at least 2 and at most 1"),
        ("a{,3}", "no repetition"),
        ("a{x}", "no repetition"),
        ("*a", "nothing to repeat"),
        ("a++", "after a repetition"),
        ("a\\", "ends in"),
        ("a|", "nothing on one side"),
        ("(|a)", "nothing on one side"),
        ("a||b", "nothing on one side"),
        (r"\x4", "2 digits"),
        (r"\x41B", "write \\u0041"),
        (r"\ud800", "half a character"),
        ("a\0b", "NUL"),
        (r"a\x00 b", "NUL"),
        ("", "0 bytes"),
        ("a" * 5000, "5000 bytes"),
    ],
)
def test_what_engines_do_not_know_or_read_differently_is_refused_by_name(pattern: str, why: str) -> None:
    assert why in regex(pattern)


PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        "kind": {"enum": ["a", "b"], "description": "which"},
        "nick": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "born": {"type": "string", "format": "date"},
        "plate": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,4}$"},
        "friends": {"type": "array", "items": {"$ref": "#"}},
        "home": {"$ref": "#/$defs/Place", "description": "where"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {"Place": {"type": "object", "properties": {"city": {"const": "Rome"}}}},
}


def test_an_ordinary_schema_is_taken() -> None:
    assert schema(PERSON) == ""


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("{not json", "is not JSON"),
        ("[1]", "is not an object"),
        ('{"const": NaN}', "is not JSON"),
        ({"type": "strin"}, "must be one of array"),
        ({"type": "string", "maxLength": "5"}, "#"),
        ({"type": "object", "required": "a"}, "list of different strings"),
        ({"enum": []}, "at least one"),
        ({"type": "object", "properties": {"a": 5}}, "#/properties/a is no schema"),
        ({"$ref": "#/$defs/x"}, "which is not there"),
        ({"$ref": "https://example.com/s.json"}, "into the schema itself"),
        ({"$ref": "#"}, "leads back"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "leads back"),
        ({"not": {"type": "string"}}, "not, which engines"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems, which"),
        ({"type": "integer", "multipleOf": 3}, "multipleOf, which"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "allOf of several"),
        ({"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "maxLength": 3}, "maxLength beside $ref"),
        ({"minimum": 3}, 'add "type": "number"'),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "above maximum"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no integer"),
        ({"type": "string", "pattern": "(a+)+"}, "too many ways"),
        ({"type": "string", "pattern": ".*"}, "break JSON"),
        ({"type": "string", "pattern": "(a{1,1000}){1,1000}"}, "1000000 states"),
        ({"type": "string", "format": "postcode"}, "'postcode'"),
        ({"type": "string", "maxLength": 10**9}, "at most 100000"),
        ({"type": "object", "required": ["a"]}, "which is no property"),
        ({"type": "object", "properties": {f"p{n}": {} for n in range(600)}}, "more than 500 schemas"),
        (
            {"type": "object", "properties": {f"p{n}": {"type": "string", "maxLength": 200} for n in range(20)}},
            "unfolds into 2560 states",
        ),
        ({"enum": list(range(2000))}, "2000 values"),
        ({"type": "object", "properties": {"a": False}}, "which no answer can meet"),
    ],
)
def test_a_schema_that_engines_cannot_hold_to_is_refused_with_its_place(value: object, why: str) -> None:
    assert why in schema(value)


def test_a_schema_that_is_too_deep_is_refused_and_so_is_a_long_list_of_faults_cut() -> None:
    deep = '{"type":"array","items":' * 900 + "{}" + "}" * 900
    assert "64 deep" in schema(deep)
    assert (
        len(said(Feature.JSON_SCHEMA, json.dumps({"type": "object", "properties": {f"p{n}": {"type": n} for n in range(99)}})))
        == 10
    )


@pytest.mark.parametrize(
    "text",
    [
        'root ::= "yes" | "no"',
        '# A sum.\nroot ::= term ("+" term)*\nterm ::= factor ("*" factor)*\nfactor ::= [0-9]+ | "(" root ")"\n',
        'root ::= root "a" | "a"',
        'root ::= "\\"\\\\\\n\\x41\\u00e9" [^\\]\\n"-] # and so on',
        'root ::= ("a" |\n  "b"){2,3} ws\nws ::= [ \\t]*',
    ],
)
def test_ordinary_grammars_are_taken(text: str) -> None:
    assert grammar(text) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('a ::= "x"', "name root"),
        ("root ::= a", "rule a, which is not there"),
        ('root ::= "a"\nroot ::= "b"', "twice"),
        ('root ::= "a" root', "give it an end"),
        ('root ::= "a" b\nb ::= c\nc ::= b', "give it an end"),
        ('root ::= ("a"{1,1000}){1,1000}', "1000000 states"),
        ('root ::= (("a")*)*', "too many ways"),
        ("root ::= " + "(" * 500 + '"a"' + ")" * 500, "deeper than 20"),
        ('root ::= s\ns ::= s s | "a"', "s beside s"),
        ('root ::= e e\ne ::= "a" | ""', "e beside e"),
        ('start: "a"', "line 1"),
        ('root ::= "a', "no part of a grammar"),
        ("root ::= [z-a]", "before it"),
        ("root ::=", "nothing where"),
        ('root ::= "a" ("b"', "without a )"),
        ('root ::= "a")', "without a ("),
        ('"a" root ::= "b"', "beginning of a line"),
        ("\n".join(f'r{n} ::= "a"' for n in range(600)), "more than 500 rules"),
        (r'root ::= "\d"', "no part"),
        (r"root ::= [\d]", "no part"),
        ("", "0 bytes"),
    ],
)
def test_a_grammar_that_is_none_or_costs_too_much_is_refused(text: str, why: str) -> None:
    assert why in grammar(text)


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ((), "0 texts"),
        (("a", "b", "a"), "'a' twice"),
        (("",), "0 bytes"),
        (("x" * 2000,), "2000 bytes"),
        (("a",) * 1001, "1001 texts"),
        (("a\0",), "NUL"),
    ],
    ids=["none", "twice", "empty", "long", "many", "NUL"],
)
def test_choices_are_bounded_and_differ(choices: tuple[str, ...], why: str) -> None:
    assert any(why in str(fault) for fault in said(Feature.CHOICE, choices=choices))


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
def test_the_grammar_of_choices_is_a_grammar_of_just_these(choices: list[str]) -> None:
    text = forms.choice_grammar(tuple(choices))
    assert grammar(text) == ""
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    plain = [
        re.sub(r"\\u(....)|\\(.)", lambda escape: chr(int(escape[1], 16)) if escape[1] else escape[2], part) for part in quoted
    ]
    assert plain == choices


PIECES = st.sampled_from(
    [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "*",
        "+",
        "?",
        "|",
        "^",
        "$",
        ".",
        "\\",
        "-",
        ",",
        "1",
        "9",
        "a",
        "z",
        "é",
        "\n",
        "\0",
        "x",
        "u",
        "d",
        "w",
    ]
)
QUOTED = st.sampled_from(
    [
        '"',
        "::=",
        "root",
        "a",
        " ",
        "\n",
        "(",
        ")",
        "[",
        "]",
        "*",
        "{2}",
        "{1,99}",
        "|",
        "#",
        "\\",
        "\\n",
        "-",
        '"b"',
        "root ::= ",
    ]
)


@settings(max_examples=400)
@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join)), st.lists(QUOTED, max_size=60).map("".join))
@example("\ud800", "\ud800")
def test_any_text_gives_faults_and_never_an_exception(pattern: str, text: str) -> None:
    for kind, value in ((Feature.REGEX, pattern), (Feature.GRAMMAR, text), (Feature.JSON_SCHEMA, pattern)):
        assert all(fault.message for fault in said(kind, value))


@settings(max_examples=300)
@given(st.one_of(st.lists(PIECES.filter(lambda piece: piece != "\\"), min_size=1, max_size=20).map("".join)))
def test_whatever_is_taken_as_an_expression_is_one_for_python_too(pattern: str) -> None:
    if not regex(pattern):
        re.compile(pattern)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 300),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["string", "object", "#", "a"]),
    ),
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "enum",
                    "const",
                    "required",
                    "anyOf",
                    "allOf",
                    "minLength",
                    "maxLength",
                    "minimum",
                    "maximum",
                    "pattern",
                    "additionalProperties",
                    "$ref",
                    "$defs",
                    "prefixItems",
                    "patternProperties",
                    "title",
                    "format",
                    "minItems",
                    "maxItems",
                    "a",
                ]
            ),
            below,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=500)
@given(VALUES)
def test_whatever_is_taken_as_a_schema_is_one_for_the_reference_library_too(value: object) -> None:
    text = json.dumps(value)
    if not list(form_schema.faults(text, "f")):
        jsonschema.Draft202012Validator.check_schema(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Feature.REGEX, "[a-z]?" * 680),
        (Feature.REGEX, "(" * 4096),
        (Feature.REGEX, "a|" * 2047 + "a"),
        (Feature.REGEX, "9" * 4096),
        (Feature.JSON_SCHEMA, "[" * 65536),
        (Feature.JSON_SCHEMA, '{"a":' * 800 + "1" + "}" * 800),
        (
            Feature.JSON_SCHEMA,
            json.dumps(
                {"anyOf": [{"$ref": "#/$defs/r0"}] * 400, "$defs": {f"r{n}": {"$ref": f"#/$defs/r{n + 1}"} for n in range(400)}}
            ),
        ),
        (Feature.GRAMMAR, "root ::= " + "a " * 30000),
        (Feature.GRAMMAR, "(" * 65536),
        (Feature.GRAMMAR, "root ::= " + '"a"|' * 16000 + '"b"'),
        (Feature.GRAMMAR, "\n".join(f"r{n} ::= r{n + 1}" for n in range(498)) + '\nr498 ::= "a"\nroot ::= r0'),
    ],
    ids=range(11),
)
def test_no_form_of_any_kind_takes_long_to_check(kind: Feature, value: str) -> None:
    began = time.process_time()
    said(kind, value)
    # Some tens of milliseconds; what grows with the square or worse takes seconds at these sizes.
    assert time.process_time() - began < 1.0
