import pytest

from penstock.addresses import Address, parse_target


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("dns:///generation:50052", [("generation", 50052)]),
        ("generation:50052", [("generation", 50052)]),
        ("10.0.0.1:1, 10.0.0.2:1", [("10.0.0.1", 1), ("10.0.0.2", 1)]),
        ("dns:///a:1,[::1]:2", [("a", 1), ("::1", 2)]),
    ],
)
def test_a_target_is_a_name_or_several_addresses(text: str, addresses: list[tuple[str, int]]) -> None:
    assert parse_target(text) == tuple(Address(host=host, port=port) for host, port in addresses)


@pytest.mark.parametrize(
    "text", ["", "generation", "a:0", "a:99999", "unix:/tmp/socket", "dns://8.8.8.8/a:1", "a:1,", "a:1,a:1"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not .host:port|twice"):
        parse_target(text)


def test_an_address_of_version_six_keeps_its_brackets() -> None:
    (address,) = parse_target("[::1]:2")
    assert (str(address), address.is_resolved) == ("[::1]:2", True)
