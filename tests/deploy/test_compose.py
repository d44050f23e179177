"""The compose files fit the services' settings, their Dockerfiles, each other, and what runs on Kubernetes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from retrieval_svc.cluster.topology import parse_topology

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = ("gateway", "retrieval", "generation")
OVERLAYS = ("compose.tracing.yaml", "compose.gpu.yaml", "compose.postgres.yaml", "compose.redis.yaml", "compose.two-slots.yaml")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def filled_in(environment: dict[str, str]) -> dict[str, str]:
    """With what the operator fills in: ${NAME:?message} and ${NAME:-default}."""
    return {name: re.sub(r"\$\{\w+:.*\}", "given", value) for name, value in environment.items()}


@pytest.fixture
def services() -> dict[str, Any]:
    return read("compose.yaml")["services"]


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_is_a_field_of_its_service_and_has_a_valid_value(services, service, overlay, settings_of):
    over = read(overlay)["services"].get(service, {}) if overlay else {}
    environment = services[service]["environment"] | over.get("environment", {})
    settings_of(service, filled_in(environment))


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_published_and_asked_for_health_is_where_the_service_listens(services, service, settings_of):
    settings = settings_of(service, services[service]["environment"])
    grpc_port, http_port = (address.rpartition(":")[2] for address in (settings.grpc_address, settings.http_address))
    *command, code = services[service]["healthcheck"]["test"]
    assert command[0] == "CMD"
    assert f"http://127.0.0.1:{http_port}/readyz" in code
    compile(code, "healthcheck", "exec")
    for published in services[service].get("ports", []):
        host, _, inside = published.rsplit(":", 2)
        assert host == "127.0.0.1", "the services have no TLS of their own"
        assert inside in {grpc_port, http_port}


def test_the_gateway_is_told_of_services_that_there_are(services, settings_of):
    settings = settings_of("gateway", services["gateway"]["environment"])
    for name, target in (("retrieval", settings.retrieval_target), ("generation", settings.generation_target)):
        grpc_address = settings_of(name, services[name]["environment"]).grpc_address
        assert target == f"dns:///{name}:{grpc_address.rpartition(':')[2]}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_given_longer_than_its_drain(services, service, settings_of):
    grace_s = settings_of(service, services[service]["environment"]).drain_grace_s
    assert int(services[service]["stop_grace_period"].removesuffix("s")) >= grace_s + 10


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_built_has_a_dockerfile_and_a_target(services, service):
    with_gpu = read("compose.gpu.yaml")["services"].get(service, {}).get("build", {})
    for build in (services[service]["build"], services[service]["build"] | with_gpu):
        text = (DEPLOY / build["context"] / build["dockerfile"]).read_text()
        assert "target" not in build or f" AS {build['target']}\n" in text


@pytest.mark.parametrize("service", [*SERVICES, "edge"])
def test_containers_can_write_only_to_their_volume_and_tmp(services, service):
    each = services[service]
    assert each["read_only"] is True
    assert each["cap_drop"] == ["ALL"]
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert each["tmpfs"] == ["/tmp"]


def test_named_volumes_are_declared():
    files = [read(name) for name in ("compose.yaml", *OVERLAYS)]
    declared = {name for each in files for name in each.get("volumes", {})}
    services = [service for each in files for service in each["services"].values()]
    used = {volume.partition(":")[0] for service in services for volume in service.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == declared


def test_retrievals_data_and_snapshots_lie_on_volumes(services, settings_of):
    for each in (services["retrieval"], read("compose.two-slots.yaml")["services"]["retrieval-1"]):
        settings = settings_of("retrieval", filled_in(each["environment"]))
        mounted = {volume.partition(":")[2] for volume in each["volumes"]}
        assert mounted == {str(settings.data_dir), settings.snapshot_url.removeprefix("file://")}


def test_the_record_in_postgresql_has_the_servers_own_user_password_and_database():
    over = read("compose.postgres.yaml")["services"]
    server = over["postgres"]["environment"]
    user, password, name = (server[f"POSTGRES_{what}"] for what in ("USER", "PASSWORD", "DB"))
    url = over["retrieval"]["environment"]["PENSTOCK_RETRIEVAL_DATABASE_URL"]
    assert url == f"postgresql+asyncpg://{user}:{password}@postgres:5432/{name}"
    assert read("compose.two-slots.yaml")["services"]["retrieval-1"]["environment"]["PENSTOCK_RETRIEVAL_DATABASE_URL"] == url


def test_two_nodes_are_the_two_slots_of_one_service_on_folders_of_their_own(services, settings_of):
    first, second = two_nodes(services)
    environments = [filled_in(each["environment"]) for each in (first, second)]
    settings = [settings_of("retrieval", environment) for environment in environments]
    assert [each.slot for each in settings] == [0, 1]
    topologies = [parse_topology(each.slot_targets, own_slot=each.slot, slot_count=each.slots) for each in settings]
    assert topologies[0].addresses == topologies[1].addresses
    hosts = [address.host for replicas in topologies[0].addresses.values() for address in replicas]
    assert hosts == ["retrieval", "retrieval-1"]
    different = {name for name, value in environments[0].items() if environments[1].get(name) != value}
    assert different <= {"PENSTOCK_RETRIEVAL_SLOT"}
    assert not {each for each in first["volumes"] if "data" in each} & set(second["volumes"])


def test_the_second_node_is_kept_as_the_first_is(services):
    first, second = two_nodes(services)
    for key in (
        "restart",
        "init",
        "read_only",
        "tmpfs",
        "cap_drop",
        "security_opt",
        "healthcheck",
        "stop_grace_period",
        "image",
    ):
        assert second[key] == first[key], key


def two_nodes(services: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The services of the two slots, as compose merges the three files."""
    over = read("compose.two-slots.yaml")["services"]
    record = read("compose.postgres.yaml")["services"]["retrieval"]["environment"]
    first = services["retrieval"]
    environment = {"PENSTOCK_RETRIEVAL_SLOT": "0"} | first["environment"] | record | over["retrieval"]["environment"]
    return first | {"environment": environment}, over["retrieval-1"]


@pytest.mark.parametrize("name", ["compose.yaml", *OVERLAYS])
def test_mounted_files_exist_and_images_are_pinned(name):
    for each in read(name)["services"].values():
        for source in (volume.partition(":")[0] for volume in each.get("volumes", [])):
            assert not source.startswith(".") or (DEPLOY / source).exists()
        if "image" in each:
            tag = each["image"].partition(":")[2]
            assert tag not in {"", "latest"}, each["image"]


def test_spans_go_to_the_collector_and_from_there_to_jaeger(services):
    over = read("compose.tracing.yaml")["services"]
    for service in SERVICES:
        assert over[service]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector:4317"
    assert over["otel-collector"]["environment"]["TRACES_ENDPOINT"] == "jaeger:4317"
    assert set(over) - {"otel-collector", "jaeger"} <= set(services)


def test_images_are_those_of_kubernetes(services):
    bases = "".join(path.read_text() for path in (DEPLOY / "kubernetes").rglob("*.yaml"))
    gpu = read("compose.gpu.yaml")["services"]["generation"]
    for image in (services["gateway"]["image"], services["retrieval"]["image"], gpu["image"]):
        assert f"image: {image.partition(':')[0]}:" in bases
    assert f"image: {services['edge']['image']}\n" in (DEPLOY / "envoy" / "edge.yaml").read_text()


def test_conversations_are_kept_in_the_redis_that_there_is_and_survive_its_restart():
    over = read("compose.redis.yaml")["services"]
    host, _, port = (
        over["gateway"]["environment"]["PENSTOCK_GATEWAY_SESSIONS_URL"]
        .removeprefix("redis://")
        .partition("/")[0]
        .partition(":")
    )
    assert (host in over, port) == (True, "6379")
    command = over["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert "redis-data:/data" in over["redis"]["volumes"]
    assert command[command.index("--maxmemory-policy") + 1].startswith("volatile-")
