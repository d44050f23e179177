"""Who may call what, over gRPC and over HTTP: keys, scopes, principals, and what stays open."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock import identity
from penstock.access import Access
from penstock.channel import open_channel, rpc_errors
from penstock.errors import PermissionDenied, Unauthenticated
from penstock.http_front import HttpFront, listen
from penstock.identity import SCOPES, Identity
from penstock.keys import Keyring, new_key, sha256_of
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from penstock.settings import ServiceSettings
from tests.penstock.served import SERVICE, Served

READER, GATEWAY = new_key(), new_key()
SCOPES_OF = {"GetCollection": "read", "IngestStream": "write"}


class Guarded(Served):
    """The server of `served` behind Access, with an HTTP front, and what the servicer knew of its callers."""

    def __init__(self, keyring: Keyring | None) -> None:
        settings = ServiceSettings()
        super().__init__(settings, more=[Access(keyring, SCOPES_OF)])
        self.http = HttpFront(listen("127.0.0.1:0"), self, settings, self.dispatcher)
        self.seen: list[Identity] = []

    name = "test"
    rpc_services = (SERVICE,)

    async def __aenter__(self) -> "Guarded":
        await super().__aenter__()

        async def remember(_: Any) -> Any:
            self.seen.append(identity.current())
            return pb.GetCollectionResponse(collection=pb.Collection(name="collections/c"))

        self.servicer.answering = remember
        return self

    async def get(self, **channel: Any) -> pb.GetCollectionResponse:
        async with open_channel(self.target, tracer_provider=self.provider, message_bytes_max=4096, **channel) as opened:
            with rpc_errors("retrieval"):
                return await RetrievalServiceStub(opened).GetCollection(pb.GetCollectionRequest(), timeout=5)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    file = tmp_path / "keys.json"
    reader = {"name": "reader", "key_sha256": sha256_of(READER), "scopes": ["read"], "principals": ["user:ann"]}
    gateway = {"name": "gateway", "key_sha256": sha256_of(GATEWAY), "scopes": ["read"], "may_assert_principals": True}
    file.write_text(json.dumps([reader, gateway]))
    async with Guarded(Keyring(file)) as started, started.http.serving():
        yield started


@pytest.fixture
async def opened() -> AsyncIterator[Guarded]:
    async with Guarded(None) as started, started.http.serving():
        yield started


async def test_a_servicer_knows_whose_key_it_was(guarded: Guarded) -> None:
    await guarded.get(api_key=READER)
    known = Identity(name="reader", tenant="reader", principals=frozenset({"user:ann"}), scopes=frozenset({"read"}))
    assert guarded.seen == [known]


async def test_a_gateways_key_may_say_on_whose_behalf_it_calls(guarded: Guarded) -> None:
    await guarded.get(api_key=GATEWAY, principals=lambda: ["user:bob", "group:a,b"])
    assert guarded.seen[0].principals == {"user:bob", "group:a,b"}
    with pytest.raises(PermissionDenied, match="may not say on whose behalf"):
        await guarded.get(api_key=READER, principals=lambda: ["user:bob"])
    assert len(guarded.seen) == 1


async def test_without_a_known_key_nothing_is_served(guarded: Guarded) -> None:
    for key in ("", new_key()):
        with pytest.raises(Unauthenticated):
            await guarded.get(api_key=key)
    assert guarded.seen == []


async def test_a_key_without_the_methods_scope_is_told_which_it_needs(guarded: Guarded) -> None:
    metadata = [("x-api-key", READER)]
    with pytest.raises(PermissionDenied, match="IngestStream needs the scope 'write'") as caught, rpc_errors("retrieval"):
        await guarded.stub.IngestStream(iter([]), timeout=5, metadata=metadata)
    assert caught.value.metadata["scope"] == "write"
    with pytest.raises(PermissionDenied, match="needs the scope 'admin'"), rpc_errors("retrieval"):
        await guarded.stub.DeleteCollection(pb.DeleteCollectionRequest(), timeout=5, metadata=metadata)


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (["read"], {"read"}),
        (["write"], {"write"}),
        (["read", "write"], {"read", "write"}),
        (["admin"], {"read", "write", "admin"}),
        (["write", "admin"], {"read", "write", "admin"}),
    ],
)
async def test_admin_may_do_everything_and_who_writes_need_not_read(scopes: list[str], may: set[str], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"name": "key", "key_sha256": sha256_of(READER), "scopes": scopes}]))
    access, passed = Access(Keyring(file), {"Get": "read", "Put": "write"}), set()
    for method, scope in (("Get", "read"), ("Put", "write"), ("Drop", "admin")):
        with contextlib.suppress(PermissionDenied):
            access.around(f"/package.Service/{method}", streams=False)(Shown(READER))
            passed.add(scope)
    assert passed == may


class Shown:
    """The context of a call with a key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def metadata(self) -> dict[str, str]:
        return {"x-api-key": self._key}


async def test_over_http_too(guarded: Guarded) -> None:
    url = f"http://{guarded.http.address}/v1/collections/c"
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        async with session.get(url, headers={"authorization": f"Bearer {READER}"}) as answer:
            assert (answer.status, (await answer.json())["name"]) == (200, "collections/c")
        async with session.delete(url, headers={"x-api-key": READER}) as answer:
            assert answer.status == 403
            assert "'admin'" in (await answer.json())["error"]["message"]


async def test_health_and_the_description_ask_for_no_key(guarded: Guarded) -> None:
    async with grpc.aio.insecure_channel(guarded.target) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    async with aiohttp.ClientSession() as session:
        for path in ("healthz", "readyz", "openapi.json"):
            async with session.get(f"http://{guarded.http.address}/{path}") as answer:
                assert answer.status == 200


async def test_a_gateways_key_may_say_on_which_tenants_account_it_calls_and_no_other_may(guarded: Guarded) -> None:
    await guarded.get(api_key=GATEWAY, tenant=lambda: "Bücher, Ltd")
    await guarded.get(api_key=GATEWAY)
    await guarded.get(api_key=READER)
    assert [each.tenant for each in guarded.seen] == ["Bücher, Ltd", "gateway", "reader"]
    with pytest.raises(PermissionDenied, match="leave x-penstock-tenant out"):
        await guarded.get(api_key=READER, tenant=lambda: "acme")


async def test_without_keys_a_caller_may_name_its_tenant(opened: Guarded) -> None:
    await opened.get(tenant=lambda: "acme")
    await opened.get(tenant=lambda: "x" * 1000)
    await opened.get()
    assert [each.tenant for each in opened.seen] == ["acme", "x" * 128, ""]


async def test_without_keys_everybody_may_do_everything_and_say_who_they_are(opened: Guarded) -> None:
    await opened.get()
    await opened.get(api_key="anything", principals=lambda: ["user:ann"])
    async with aiohttp.ClientSession() as session:
        headers = {"x-penstock-principals": "user:bob"}
        async with session.get(f"http://{opened.http.address}/v1/collections/c", headers=headers) as answer:
            assert answer.status == 200
    assert [each.principals for each in opened.seen] == [frozenset(), {"user:ann"}, {"user:bob"}]
    assert {each.scopes for each in opened.seen} == {SCOPES}


def test_outside_of_a_call_there_is_anybody() -> None:
    assert identity.current() == Identity()
