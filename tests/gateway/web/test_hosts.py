"""Which hosts the operator's list holds, and which addresses are public."""

import pytest

from gateway.web.addresses import is_public
from gateway.web.hosts import parse_hosts

LIST = "api.example.com, *.example.org http://intranet.example.com:8080!,[2001:db8::1]:8443,Other.Example.NET."


@pytest.mark.parametrize(
    ("scheme", "host", "port", "held"),
    [
        ("https", "api.example.com", 443, True),
        ("http", "api.example.com", 80, False),
        ("https", "api.example.com", 8443, False),
        ("https", "evil-api.example.com", 443, False),
        ("https", "api.example.com.evil.org", 443, False),
        ("https", "a.example.org", 443, True),
        ("https", "a.b.example.org", 443, True),
        ("https", "example.org", 443, False),
        ("https", "evilexample.org", 443, False),
        ("http", "intranet.example.com", 8080, True),
        ("https", "2001:db8::1", 8443, True),
        ("https", "other.example.net", 443, True),
    ],
)
def test_an_entry_holds_its_scheme_host_and_port_and_nothing_like_them(scheme: str, host: str, port: int, held: bool) -> None:
    assert any(entry.holds(scheme, host, port) for entry in parse_hosts(LIST)) is held


def test_only_a_mark_lets_a_host_be_private() -> None:
    assert [entry.host for entry in parse_hosts(LIST) if entry.private] == ["intranet.example.com"]


@pytest.mark.parametrize(
    "text", ["*", "*.", "ftp://x", "x:0", "x:99999", "x/path", "user@x", "a..!b", "http://", "x" * 300, "-"]
)
def test_what_is_no_host_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_hosts(text)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_public_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.7", "224.0.0.1",
        "239.1.2.3", "240.0.0.1", "255.255.255.255", "192.88.99.1",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:0a00:0001::1", "100::1",
        "localhost", "2130706433", "0x7f.1", "127.1", "",
    ],
)  # fmt: skip
def test_every_other_address_is_not_public_however_it_is_dressed(address: str) -> None:
    assert not is_public(address)
