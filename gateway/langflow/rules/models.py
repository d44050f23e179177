"""Models: whatever vendor's they were, one of ours answers in their place."""

from typing import Any, Final

from gateway.langflow.carried import Carried, Model
from gateway.langflow.export import Component
from gateway.langflow.place import Place
from gateway.langflow.rendering import as_text
from gateway.values import PortType

TEXTS: Final = ("text_output", "text")
MODELS: Final = ("model_output", "model", "language_model")

_NUMBERS: Final[dict[str, tuple[tuple[str, ...], float, float]]] = {
    "temperature": (("temperature",), 0, 2),
    "top_p": (("top_p",), 0, 1),
    "presence_penalty": (("presence_penalty",), -2, 2),
    "frequency_penalty": (("frequency_penalty",), -2, 2),
}
_COUNTS: Final[dict[str, tuple[str, ...]]] = {
    "max_tokens": ("max_tokens", "max_output_tokens", "max_new_tokens", "num_predict"),
    "top_k": ("top_k",),
    "seed": ("seed",),
}
_LEFT_OUT: Final = frozenset({"top_p", "top_k", "max_tokens"})
"""Of these, 0 means that LangFlow says nothing of it either."""


def model(place: Place) -> None:
    """A model's answer to a prompt, and the model as such for whatever component asks it itself."""
    for output in MODELS:
        place.gives(output, place.model())
    if not place.wants(*TEXTS):
        place.note("asked by the components that it is connected to, with its own sampling")
        return
    params, inputs = asked(place, place.model()), {"prompt": prompt(place)}
    system(place, "system_message", params, inputs)
    if place.component.flag("json_mode"):
        params["structured_output"] = {"json_object": True}
    node = place.add("generate", params, inputs)
    tuned(place.model(), node)
    if "system" in params or "system" not in inputs:
        place.tunes("system_message", f"{node}.system")
    place.note(f"answered by our model {place.options.model!r}")
    place.everything = Carried(port=f"{node}.text", type=PortType.TEXT)


def prompt(place: Place, name: str = "input_value") -> str:
    """What a model is asked: what is connected, or the component's own text."""
    value = place.value(name)
    return as_text(place, value) if value is not None else place.constant(name, place.written(name))


def system(place: Place, name: str, params: dict[str, Any], inputs: dict[str, str]) -> None:
    """The instructions above a prompt, as a parameter or, where they are connected, as an input."""
    value = place.value(name)
    if value is not None:
        inputs["system"] = as_text(place, value)
    elif place.variable(name):
        inputs["system"] = place.constant(name, "")
    elif place.written(name):
        params["system"] = place.written(name)


def asked(place: Place, model: Model) -> dict[str, Any]:
    """The parameters of a generate node that asks in a model component's place."""
    params: dict[str, Any] = {"model": place.options.model}
    if not place.answers:  # What a caller says of sampling is of the answer that it gets.
        params["caller_sampling"] = False
    for name, (fields, least, most) in _NUMBERS.items():
        value = _first(model.component, fields)
        if value is None or (value == 0 and name in _LEFT_OUT):
            continue
        if not least <= value <= most:
            message = f"{name} is {value:g}; our models take {least:g} to {most:g}"
            place.faults.add(message, node_id=model.component.id, field=name)
        else:
            params[name] = value
    for name, fields in _COUNTS.items():
        value = _first(model.component, fields)
        if value is not None and 0 <= value <= 1_000_000 and not (value == 0 and name in _LEFT_OUT):
            params[name] = int(value)
    return params


def tuned(model: Model, node: str, taken: frozenset[str] | None = None) -> None:
    """The fields of a model that callers may set; `taken`, where the node has not all of its parameters."""
    for name, fields in ({key: value[0] for key, value in _NUMBERS.items()} | _COUNTS).items():
        for each in fields:
            if each in model.component.fields and (taken is None or name in taken):
                model.fields.setdefault(each, f"{node}.{name}")


def _first(component: Component, fields: tuple[str, ...]) -> float | None:
    return next((value for value in map(component.number, fields) if value is not None), None)
