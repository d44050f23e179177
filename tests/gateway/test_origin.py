import pytest

from gateway.origin import NATIVE, alias, provenance, read_origin

UUID = "a0d05fc7-66eb-4818-9191-ee9acc03848e"


def test_an_origin_tells_its_names() -> None:
    found = provenance({"format": "langflow", "id": UUID.upper(), "name": "Bot", "endpoint_name": "Support", "unknown": 1})
    assert (found.format, found.id, found.name, found.endpoint_name) == ("langflow", UUID, "Bot", "Support")


@pytest.mark.parametrize(
    "written",
    [None, {}, {"format": 1}, {"format": "langflow", "components": [{}]}, {"format": "x" * 300}],
    ids=["none", "empty", "wrong type", "component without id", "too long"],
)
def test_what_does_not_read_as_an_origin_is_none(written: dict[str, object] | None) -> None:
    assert read_origin(written) is None
    assert provenance(written) == NATIVE


@pytest.mark.parametrize(
    ("name", "expected"),
    [(UUID, UUID), (UUID.replace("-", ""), UUID), ("Support-Bot", "Support-Bot"), ("", ""), ("a b", ""), ("a" * 256, "")],
)
def test_a_name_is_searched_for_in_one_spelling(name: str, expected: str) -> None:
    assert alias(name) == expected
