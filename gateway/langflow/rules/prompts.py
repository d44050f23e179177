"""Prompts: a template and what its variables are fed."""

from gateway.langflow.carried import Carried
from gateway.langflow.place import Place
from gateway.langflow.rendering import as_text
from gateway.langflow.templates import Written, double_braces, format_string, plain_names
from gateway.nodes.template import VARIABLES_MAX, Template
from gateway.values import PortType


def prompt(place: Place) -> None:
    """A template. A variable that nothing is connected to has the component's value for it."""
    text, doubled = place.written("template"), place.component.flag("use_double_brackets")
    template = _parsed(place, text, doubled=doubled)
    if not text or template is None:
        place.gives_all(Carried(port=place.constant("template", text), type=PortType.TEXT))
        return
    names = plain_names(template.variables)
    if len(names) > VARIABLES_MAX:
        place.refuse(f"the template has {len(names)} variables; at most {VARIABLES_MAX} are taken", field="template")
    inputs = {names[variable]: _variable(place, variable) for variable in template.variables}
    # A caller may set the template, in the syntax of the flow's: it stays as it is where it can.
    as_it_is = doubled and _is_ours(text, template)
    params = {"template": text, "syntax": "double-brace"} if as_it_is else {"template": template.ours(lambda name: names[name])}
    node = place.add("prompt", params, inputs)
    if as_it_is or not doubled:
        place.tunes("template", f"{node}.template")
    place.gives_all(Carried(port=f"{node}.text", type=PortType.TEXT))


def _is_ours(text: str, template: Written) -> bool:
    """Whether a text with double braces says the same to a prompt node."""
    try:
        return Template(text, "double-brace").variables == template.variables
    except ValueError:
        return False


def _parsed(place: Place, text: str, *, doubled: bool) -> Written | None:
    try:
        return double_braces(text) if doubled else format_string(text)
    except ValueError as error:
        hint = "write {name} for a variable, {{ and }} for braces"
        place.refuse(f"the template cannot be used: {error}", field="template", instead=hint)
        return None


def _variable(place: Place, name: str) -> str:
    value = place.value(name)
    return as_text(place, value) if value is not None else place.constant(name, place.written(name))
