"""`penstock settings`: every setting of every service, from the classes that read them."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from penstock.settings import ServiceSettings

SERVICES: Final = ("gateway", "retrieval", "generation")
BOUNDS: Final = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def settings_markdown() -> str:
    """A Markdown table a service, and one of what they share."""
    found = {point.name: point.load() for point in entry_points(group="penstock.settings")}
    parts = [
        "**Every service** (`<SERVICE>` is GATEWAY, RETRIEVAL or GENERATION)",
        _table(ServiceSettings, "PENSTOCK_<SERVICE>_", ()),
    ]
    for name in SERVICES:
        prefix = found[name].model_config["env_prefix"]
        parts += [f"**{name.capitalize()}**", _table(found[name], prefix, tuple(ServiceSettings.model_fields))]
    return "\n\n".join(parts)


def _table(settings: type[BaseSettings], prefix: str, without: tuple[str, ...]) -> str:
    rows = [_row(prefix + name.upper(), field) for name, field in settings.model_fields.items() if name not in without]
    return "\n".join(["| variable | default | bounds | what it is |", "|---|---|---|---|", *rows])


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{name}`", f"`{_default(field)}`", ", ".join(_bounds(field)), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _default(field: FieldInfo) -> Any:
    if field.default is PydanticUndefined:
        return "(required)" if field.default_factory is None else "(made)"
    return '""' if field.default in ("", None) or str(field.default) == "" else field.default


def _bounds(field: FieldInfo) -> Iterator[str]:
    for constraint in field.metadata:
        for attribute, text in BOUNDS.items():
            if (value := getattr(constraint, attribute, None)) is not None:
                yield text.format(value)
