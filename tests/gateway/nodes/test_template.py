import json

import pytest

from gateway.nodes.template import VARIABLES_MAX, Syntax, Template
from gateway.validation import examine
from tests.gateway.fakes import World, document, node


@pytest.mark.parametrize(
    ("template", "variables", "rendered"),
    [
        ("plain", (), "plain"),
        ("{a}", ("a",), "<a>"),
        ("{a}{b}{a}", ("a", "b"), "<a><b><a>"),
        ('{{"x": {a}}}', ("a",), '{"x": <a>}'),
        ("{{{a}}}", ("a",), "{<a>}"),
        ("}}{{", (), "}{"),
    ],
)
def test_templates_render_variables_and_keep_doubled_braces(template: str, variables: tuple[str, ...], rendered: str) -> None:
    parsed = Template(template)
    assert parsed.variables == variables
    assert parsed.render({name: f"<{name}>" for name in variables}) == rendered


def test_what_a_value_says_is_never_taken_for_a_template() -> None:
    assert Template("{a} {b}").render({"a": "{b}", "b": "{a}"}) == "{b} {a}"


@pytest.mark.parametrize(
    ("template", "variables", "rendered"),
    [
        ("plain {a} {", (), "plain {a} {"),
        ("{{a}}", ("a",), "<a>"),
        ("{{ a }}{{b}}{{a}}", ("a", "b"), "<a><b><a>"),
        ('{"x": {"y": {{a}}}}', ("a",), '{"x": {"y": <a>}}'),
        ("}}", (), "}}"),
    ],
)
def test_in_double_braces_single_ones_are_text(template: str, variables: tuple[str, ...], rendered: str) -> None:
    parsed = Template(template, "double-brace")
    assert parsed.variables == variables
    assert parsed.render({name: f"<{name}>" for name in variables}) == rendered


@pytest.mark.parametrize("text", ["{{", "{{a", "{{a b}}", "{{a.b}}", "{{#a}}x{{/a}}", "{{{a}}}", "{{}}", "{{a\n}}", "{{1}}"])
def test_double_braces_that_are_no_variable_are_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"\{\{ at character 1 begins no variable"):
        Template(text, "double-brace")


@pytest.mark.parametrize("syntax", ["f-string", "double-brace"])
def test_a_template_has_at_most_so_many_variables(syntax: Syntax) -> None:
    names = [f"v{number}" for number in range(VARIABLES_MAX + 1)]
    texts = {"f-string": "{%s}", "double-brace": "{{%s}}"}
    assert Template("".join(texts[syntax] % name for name in names[1:]), syntax).variables == tuple(names[1:])
    with pytest.raises(ValueError, match=f"at most {VARIABLES_MAX}"):
        Template("".join(texts[syntax] % name for name in names), syntax)


async def test_a_prompt_says_how_its_variables_are_written(world: World) -> None:
    text = '{"question": "{{question}}"}'
    ask = node("ask", "prompt", syntax="double-brace", template=text)
    flow = document(node("question", "input"), ask, node("out", "output"), edges=["question > ask", "ask > out"])
    assert (await world.compile(flow).run({"question": "{{x}}"})).outputs == {"out": '{"question": "{{x}}"}'}
    for params, field in [({"syntax": "jinja"}, "params.syntax"), ({"syntax": "f-string"}, "params.template")]:
        changed = json.loads(flow)
        changed["nodes"][1]["params"] |= params
        _, faults = examine(json.dumps(changed))
        assert [fault.field for fault in faults if fault.node_id == "ask"] == [field]
