"""The autoscaling components: what they render over the base and over production, and that they say the same in two ways.

kubectl takes KEDA's objects as they are, so their form is held against the part of its CRD (2.20) that they use. What the
queries say is in test_promql.py, that their metrics exist in test_monitoring.py.
"""

import os
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.rendered import KUBERNETES, Object, Rendered, render

COMPONENTS: Final = {"autoscaling-keda": "ScaledObject", "autoscaling-hpa": "HorizontalPodAutoscaler"}
PERIODS: Final = {"type": "integer", "minimum": 0, "maximum": 3600}
COUNT: Final = {"type": "integer", "minimum": 0}
DECIMAL: Final = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


RULES: Final = closed(
    ("policies",),
    stabilizationWindowSeconds=PERIODS,
    policies={
        "type": "array",
        "minItems": 1,
        "items": closed(
            ("type", "value", "periodSeconds"),
            type={"enum": ["Pods", "Percent"]},
            value={"type": "integer", "minimum": 1},
            periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
        ),
    },
)
TRIGGER: Final = closed(
    ("type", "metadata"),
    name={"type": "string"},
    type={"const": "prometheus"},
    metricType={"enum": ["AverageValue", "Value"]},
    # Whatever it means, KEDA takes it as text.
    metadata=closed(
        ("serverAddress", "query", "threshold"),
        serverAddress={"type": "string", "pattern": "^https?://"},
        query={"type": "string"},
        threshold=DECIMAL,
        activationThreshold=DECIMAL,
        ignoreNullValues={"enum": ["true", "false"]},
    ),
)
SCALED_OBJECT: Final = closed(
    ("scaleTargetRef", "triggers"),
    scaleTargetRef=closed(("name",), apiVersion={"type": "string"}, kind={"type": "string"}, name={"type": "string"}),
    pollingInterval=COUNT,
    cooldownPeriod=COUNT,
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    fallback=closed(
        ("failureThreshold", "replicas"),
        failureThreshold=COUNT,
        replicas=COUNT,
        behavior={
            "enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"]
        },
    ),
    advanced=closed(
        restoreToOriginalReplicaCount={"type": "boolean"},
        horizontalPodAutoscalerConfig=closed(name={"type": "string"}, behavior=closed(scaleUp=RULES, scaleDown=RULES)),
    ),
    triggers={"type": "array", "minItems": 1, "items": TRIGGER},
)


@pytest.fixture(scope="session", params=["base", "overlays/prod"])
def beneath(request) -> Path:
    """What a site lays the component over."""
    return KUBERNETES / request.param


@pytest.fixture(scope="session", params=COMPONENTS)
def component(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def scaled(beneath, component, tool, tmp_path_factory) -> Rendered:
    """A site's own kustomization, as deploy/generation.md shows it."""
    folder = tmp_path_factory.mktemp("site").resolve()
    parts = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(beneath, folder)],
        "components": [os.path.relpath(KUBERNETES / "components" / component, folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    return render(tool("kubectl", "see https://kubernetes.io/docs/tasks/tools/"), folder)


@pytest.fixture(scope="session")
def autoscaler(scaled, component) -> Object:
    return scaled.named(COMPONENTS[component], "penstock-generation")


def limits(autoscaler: Object) -> tuple[int, int]:
    spec = autoscaler["spec"]
    return (
        spec.get("minReplicas", spec.get("minReplicaCount")),
        spec.get("maxReplicas", spec.get("maxReplicaCount")),
    )


def behavior(autoscaler: Object) -> Object:
    spec = autoscaler["spec"]
    return spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] if "advanced" in spec else spec["behavior"]


def read(component: str) -> Object:
    (path,) = (path for path in (KUBERNETES / "components" / component).glob("*.yaml") if path.name != "kustomization.yaml")
    return yaml.safe_load(path.read_text())


def test_it_has_the_form_that_its_controller_takes(autoscaler):
    if autoscaler["kind"] == "ScaledObject":
        assert autoscaler["apiVersion"] == "keda.sh/v1alpha1"
        jsonschema.validate(autoscaler["spec"], SCALED_OBJECT)
    else:
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(autoscaler, version, strict=True)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("pollInterval",), 15),
        (("triggers", 0, "metadata", "threshold"), 0.8),
        (("triggers", 0, "metadata", "ignoreNullValues"), False),
        (("triggers", 0, "metricType"), "Utilization"),
        (("fallback", "behavior"), "hold"),
        (("advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown", "policies", 0, "periodSeconds"), 3600),
    ],
)
def test_what_keda_would_refuse_or_pass_over_is_seen(place, value):
    spec = read("autoscaling-keda")["spec"]
    inner: Any = spec
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, SCALED_OBJECT)


def test_its_target_is_the_deployment_which_leaves_its_replicas_alone(scaled, autoscaler):
    target = autoscaler["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"], target["name"]) == ("apps/v1", "Deployment", "penstock-generation")
    deployment = scaled.named("Deployment", "penstock-generation")
    assert "replicas" not in deployment["spec"]
    assert deployment["metadata"]["namespace"] == autoscaler["metadata"]["namespace"] == "penstock"


def test_nothing_else_scales_the_same_deployment(scaled):
    targets = [each["spec"]["scaleTargetRef"]["name"] for each in scaled.of("HorizontalPodAutoscaler", "ScaledObject")]
    assert sorted(targets) == ["penstock-gateway", "penstock-generation"]


def test_there_is_always_a_replica_when_a_node_is_drained_and_an_end_to_the_bill(scaled, autoscaler):
    least, most = limits(autoscaler)
    (budget,) = (each["spec"] for each in scaled.of("PodDisruptionBudget") if each["metadata"]["name"] == "penstock-generation")
    assert budget["maxUnavailable"] < least < most <= 64


def test_replicas_leave_more_slowly_than_they_come(autoscaler):
    up, down = behavior(autoscaler)["scaleUp"], behavior(autoscaler)["scaleDown"]
    rates = [max(each["value"] / each["periodSeconds"] for each in rules["policies"]) for rules in (up, down)]
    assert rates[0] > rates[1]
    assert up["stabilizationWindowSeconds"] < down["stabilizationWindowSeconds"]


def test_a_replica_that_leaves_has_drained_before_the_next_one_does(scaled, autoscaler):
    grace_s = scaled.named("Deployment", "penstock-generation")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    (policy,) = behavior(autoscaler)["scaleDown"]["policies"]
    assert policy["value"] == 1
    assert policy["periodSeconds"] > grace_s


def test_without_metrics_keda_keeps_at_least_the_least_replicas():
    spec = read("autoscaling-keda")["spec"]
    assert spec["fallback"]["replicas"] >= spec["minReplicaCount"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    demand = next(each for each in spec["triggers"] if each["name"] == "demand")
    assert demand["metadata"]["ignoreNullValues"] == "false", "no replica that tells anything must not look like no demand"


def test_both_ways_scale_between_the_same_limits_at_the_same_pace_by_the_same_thresholds():
    keda, hpa = (read(component) for component in COMPONENTS)
    assert limits(keda) == limits(hpa)
    assert behavior(keda) == behavior(hpa)
    asked = [float(each["metadata"]["threshold"]) for each in keda["spec"]["triggers"]]
    wanted = [each["pods"]["target"]["averageValue"] for each in hpa["spec"]["metrics"]]
    assert asked == [float(each.removesuffix("m")) / (1000 if each.endswith("m") else 1) for each in wanted]


def test_the_adapter_tells_the_metrics_that_the_autoscaler_goes_by():
    rules = yaml.safe_load((KUBERNETES.parent / "prometheus-adapter.yaml").read_text())["rules"]
    named = [rule["name"]["as"] for rule in rules]
    assert named == [each["pods"]["metric"]["name"] for each in read("autoscaling-hpa")["spec"]["metrics"]]
    scrape = yaml.safe_load((KUBERNETES.parent / "prometheus.yaml").read_text())["scrape_configs"][0]
    labels = {rule.get("target_label"): rule["source_labels"] for rule in scrape["relabel_configs"]}
    for rule in rules:
        assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "instance": {"resource": "pod"}}
        assert labels["instance"] == ["__meta_kubernetes_pod_name"]
        assert labels["namespace"] == ["__meta_kubernetes_namespace"]
