"""Every overlay renders with kubectl, is valid for the oldest and the newest Kubernetes, and fits the services' settings."""

import kubernetes_validate
import pytest

from retrieval_svc.cluster.topology import parse_topology
from tests.deploy.rendered import KUBERNETES, SERVICES, WORKLOADS, Object, Rendered, render

FOLDERS = [KUBERNETES / "base", *sorted((KUBERNETES / "overlays").iterdir())]
# preStop.sleep needs 1.30.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]


@pytest.fixture(scope="session", params=FOLDERS, ids=lambda folder: folder.name)
def rendered(request, tool) -> Rendered:
    return render(tool("kubectl", "see https://kubernetes.io/docs/tasks/tools/"), request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_passes_the_strict_schema(rendered, version):
    for each in rendered.objects:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_three_services_are_what_the_design_says(rendered):
    kinds = {each["metadata"]["name"]: each["kind"] for each in rendered.of(*WORKLOADS)}
    assert kinds["penstock-gateway"] == "Deployment"
    assert kinds["penstock-retrieval-0"] == "StatefulSet"
    assert kinds["penstock-generation"] == "Deployment"
    assert rendered.named("Service", "penstock-retrieval")["spec"]["clusterIP"] == "None"


def test_everything_lies_in_our_namespace(rendered):
    for each in rendered.objects:
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "penstock", each["metadata"]["name"]


def test_every_setting_is_a_field_of_its_service_and_has_a_valid_value(rendered, settings_of):
    seen = set()
    for component, _, container in rendered.workloads():
        if component in SERVICES:
            settings_of(component, rendered.environment(container))
            seen.add(component)
    assert seen == SERVICES


def test_containers_listen_where_their_settings_say(rendered, settings_of):
    for component, _, container in rendered.workloads():
        if component not in SERVICES:
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        settings = settings_of(component, rendered.environment(container))
        assert settings.grpc_address == f"0.0.0.0:{ports['grpc']}"
        assert settings.http_address == f"0.0.0.0:{ports['http']}"


def test_the_gateway_is_told_of_headless_services_and_of_ports_that_they_have(rendered, settings_of):
    (container,) = [container for component, _, container in rendered.workloads() if component == "gateway"]
    settings = settings_of("gateway", rendered.environment(container))
    for target in (settings.retrieval_target, settings.generation_target):
        host, _, port = target.removeprefix("dns:///").partition(":")
        spec = rendered.named("Service", host)["spec"]
        assert spec["clusterIP"] == "None", "without it round_robin sees one address"
        assert int(port) in {each["port"] for each in spec["ports"] if each["name"] == "grpc"}


def test_every_container_is_probed_where_it_listens(rendered):
    for _, _, container in rendered.workloads():
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[name]
            (kind,) = {"grpc", "httpGet", "tcpSocket"} & set(probe)
            port = probe[kind]["port"]
            assert port in ports.values() if kind == "grpc" else port in ports
            assert probe["timeoutSeconds"] <= probe["periodSeconds"]


def test_readiness_is_the_health_of_grpc_and_liveness_is_only_that_the_loop_turns(rendered):
    for component, _, container in rendered.workloads():
        if component in SERVICES:
            (grpc_port,) = [port["containerPort"] for port in container["ports"] if port["name"] == "grpc"]
            assert container["readinessProbe"]["grpc"] == {"port": grpc_port}
            assert container["startupProbe"]["grpc"] == {"port": grpc_port}
            assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}


def test_a_pod_is_given_longer_than_its_drain(rendered, settings_of):
    for component, template, container in rendered.workloads():
        pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace_s = settings_of(component, rendered.environment(container)).drain_grace_s if component in SERVICES else 0
        assert template["spec"]["terminationGracePeriodSeconds"] >= pause_s + grace_s + 10


def test_the_deadline_of_a_rollout_is_longer_than_the_startup(rendered):
    for each in rendered.of("Deployment"):
        (container,) = each["spec"]["template"]["spec"]["containers"]
        probe = container["startupProbe"]
        assert each["spec"].get("progressDeadlineSeconds", 600) > probe["periodSeconds"] * probe["failureThreshold"]


def test_pods_meet_the_restricted_standard(rendered):
    for _, template, container in rendered.workloads():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    labels = rendered.named("Namespace", "penstock")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_pod_has_a_token_or_service_links(rendered):
    for _, template, _ in rendered.workloads():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False, "links such as PENSTOCK_GATEWAY_PORT fall among our settings"
        account = rendered.named("ServiceAccount", pod["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False


def test_memory_is_bounded_and_images_are_pinned(rendered):
    for _, _, container in rendered.workloads():
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert "memory" in resources["limits"]
        assert container["image"].rpartition(":")[2] not in {"", "latest"}
        assert ":" in container["image"].rpartition("/")[2]


def test_every_mount_has_a_volume_and_every_claim_exists(rendered):
    for each in rendered.of(*WORKLOADS):
        pod = each["spec"]["template"]["spec"]
        templates = {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod["volumes"]} | templates
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounts) == volumes
        assert mounts["tmp"] == "/tmp"
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                rendered.named("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            if "secret" in volume:
                assert volume["secret"]["secretName"].startswith("penstock-"), (
                    "a Secret is the site's own; deploy/retrieval.md makes it"
                )
            if "configMap" in volume:
                rendered.named("ConfigMap", volume["configMap"]["name"])


def test_data_lies_on_a_volume_and_flows_in_their_config_map(rendered, settings_of):
    for component, _, container in rendered.workloads():
        if component not in SERVICES:
            continue
        settings = settings_of(component, rendered.environment(container))
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        if component in {"gateway", "retrieval"}:
            assert mounts[str(settings.data_dir)] == "data"
        if component == "gateway":
            assert mounts[str(settings.flows_dir)] == "flows"
        if component == "retrieval":
            assert not settings.snapshot_url or mounts[settings.snapshot_url.removeprefix("file://")] == "snapshots"
            assert not settings.api_keys_file or mounts[str(settings.api_keys_file.parent)] == "keys"


def test_the_flow_that_the_base_brings_is_the_example():
    flow = (KUBERNETES / "base" / "flows" / "rag.json").read_text()
    assert flow == (KUBERNETES.parents[1] / "examples" / "flows" / "rag.json").read_text()


def test_selectors_choose_pods_that_there_are_and_named_ports_that_they_have(rendered):
    for each in rendered.of("Service"):
        chosen = _chosen(rendered, each["spec"]["selector"])
        assert chosen
        for container in chosen:
            names = {port["name"] for port in container["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= names
    for each in rendered.of(*WORKLOADS, "PodDisruptionBudget"):
        assert len(_chosen(rendered, each["spec"]["selector"]["matchLabels"])) == 1


def test_grpc_ports_say_that_they_speak_http2_without_tls(rendered):
    for each in rendered.of("Service"):
        protocols = {port["name"]: port.get("appProtocol") for port in each["spec"]["ports"]}
        assert protocols.get("grpc", "kubernetes.io/h2c") == "kubernetes.io/h2c"


def test_an_autoscaler_has_a_target_that_leaves_its_replicas_alone(rendered):
    for each in rendered.of("HorizontalPodAutoscaler"):
        target = each["spec"]["scaleTargetRef"]
        assert "replicas" not in rendered.named(target["kind"], target["name"])["spec"]


def test_budgets_let_nodes_be_drained(rendered):
    for each in rendered.of("PodDisruptionBudget"):
        assert each["spec"]["maxUnavailable"] >= 1
        assert "minAvailable" not in each["spec"]


def test_slots_are_numbered_and_found_under_the_names_of_their_own_headless_services(rendered, settings_of):
    for number, workload in enumerate(rendered.slots()):
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        settings = settings_of("retrieval", rendered.environment(container))
        assert (settings.slot, settings.slots) == (number, len(rendered.slots()))
        topology = parse_topology(settings.slot_targets, own_slot=settings.slot, slot_count=settings.slots)
        for slot, addresses in topology.addresses.items():
            for address in addresses:
                service = rendered.named("Service", address.host)["spec"]
                assert service["clusterIP"] == "None"
                assert service["selector"] == rendered.slots()[slot]["spec"]["selector"]["matchLabels"]
                assert address.port in {port["port"] for port in service["ports"]}
        assert workload["spec"]["serviceName"] == f"penstock-retrieval-{number}"


def test_every_slot_is_found_under_the_name_that_the_gateway_knows(rendered):
    selector = rendered.named("Service", "penstock-retrieval")["spec"]["selector"]
    assert len(_chosen(rendered, selector)) == len(rendered.slots())


def test_replicas_share_a_record_and_one_that_is_alone_may_have_its_own(rendered):
    for workload in rendered.slots():
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
        shared = secrets.get("PENSTOCK_RETRIEVAL_DATABASE_URL")
        if shared is None:
            assert (workload["spec"]["replicas"], len(rendered.slots())) == (1, 1)
        else:
            assert workload["spec"]["replicas"] >= 2
            assert not shared.get("optional"), "without it each replica would begin a record of its own"


def test_replicas_of_a_slot_stand_on_different_machines_and_leave_one_by_one(rendered):
    for workload in rendered.slots():
        labels = workload["spec"]["selector"]["matchLabels"]
        assert "penstock.dev/slot" in labels
        affinity = workload["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
        (apart,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
        assert apart == {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
        budgets = [each["spec"] for each in rendered.of("PodDisruptionBudget")]
        own = [budget for budget in budgets if budget["selector"]["matchLabels"] == labels]
        # None where there is one replica, which a budget of its own would tie to its machine.
        assert [budget["maxUnavailable"] for budget in own] == ([1] if workload["spec"]["replicas"] > 1 else [])


def test_a_shard_has_time_to_be_restored_before_it_counts_as_failed(rendered):
    for workload in rendered.slots():
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        probe = container["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800


def test_prometheus_is_told_where_the_metrics_are(rendered, settings_of):
    for component, template, container in rendered.workloads():
        if component not in SERVICES:
            continue
        settings = settings_of(component, rendered.environment(container))
        assert settings.metrics_page
        annotations = template["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == settings.http_address.rpartition(":")[2]
        assert annotations["prometheus.io/path"] == "/metrics"


def test_prometheus_may_read_what_it_is_told_of_wherever_others_may_not(rendered, request):
    if request.node.callspec.id == "prod":
        for component in ("retrieval", "generation"):
            (rule,) = rendered.named("NetworkPolicy", f"penstock-{component}-metrics")["spec"]["ingress"]
            (peer,) = rule["from"]
            assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "observability"}
            assert rule["ports"] == [{"port": "http"}]
        assert {"port": "http"} in rendered.named("NetworkPolicy", "penstock-gateway")["spec"]["ingress"][0]["ports"]


def test_where_keys_are_asked_for_everybody_has_one_to_show(rendered, settings_of):
    told = {component: rendered.environment(container) for component, _, container in rendered.workloads()}
    asks = settings_of("retrieval", told["retrieval"]).api_keys_file is not None
    assert ("PENSTOCK_RETRIEVAL_NODE_API_KEY" in told["retrieval"]) == asks
    assert ("PENSTOCK_GATEWAY_BACKEND_API_KEY" in told["gateway"]) == asks


def test_production_shows_two_slots_of_two_replicas_and_the_base_one(rendered, request):
    shape = [workload["spec"]["replicas"] for workload in rendered.slots()]
    folder = request.node.callspec.id
    assert shape == {"base": [2], "dev-cpu": [1], "prod": [2, 2]}[folder]


def test_what_is_not_allowed_on_the_network_is_denied(rendered):
    deny = rendered.named("NetworkPolicy", "penstock-default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for component in SERVICES:
        assert rendered.named("NetworkPolicy", f"penstock-{component}")


def test_network_policies_allow_the_ports_that_are_listened_on(rendered):
    for policy in rendered.of("NetworkPolicy"):
        if not policy["spec"]["podSelector"]:
            continue
        for rule in policy["spec"].get("ingress", []):
            for container in _chosen(rendered, policy["spec"]["podSelector"]["matchLabels"]):
                assert {port["port"] for port in rule["ports"]} <= {port["name"] for port in container["ports"]}
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                for container in _chosen(rendered, peer.get("podSelector", {}).get("matchLabels", {"no": "pod"})):
                    listening = {port["containerPort"] for port in container["ports"]}
                    assert {port["port"] for port in rule["ports"]} <= listening


def test_generation_asks_for_a_gpu_unless_its_engine_needs_none(rendered, settings_of):
    (container,) = [container for component, _, container in rendered.workloads() if component == "generation"]
    gpus = container["resources"]["limits"].get("nvidia.com/gpu")
    engine = settings_of("generation", rendered.environment(container)).engine
    assert gpus == ("1" if engine == "vllm" else None)
    assert ("vllm" in container["image"]) == (engine == "vllm")


def _chosen(rendered: Rendered, labels: dict[str, str]) -> list[Object]:
    """The containers of the pods that a selector chooses."""
    return [
        container for _, template, container in rendered.workloads() if labels.items() <= template["metadata"]["labels"].items()
    ]
