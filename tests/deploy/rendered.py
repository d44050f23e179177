"""What kubectl makes of a kustomization, and the few questions that tests ask of it."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

WORKLOADS = {"Deployment", "StatefulSet"}
SERVICES = {"gateway", "retrieval", "generation"}
KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"

Object = dict[str, Any]


def render(kubectl: str, folder: Path) -> "Rendered":
    """The objects of a kustomization; a warning of kubectl's is a failure."""
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return Rendered(list(yaml.safe_load_all(done.stdout)))


class Rendered:
    """The objects of one overlay, as kubectl would apply them."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def of(self, *kinds: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object:
        found = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        assert found, f"there is no {kind} {name}"
        return found[0]

    def workloads(self) -> list[tuple[str, Object, Object]]:
        """Each workload's component, pod template and the only container."""
        found = []
        for each in self.of(*WORKLOADS):
            template = each["spec"]["template"]
            (container,) = template["spec"]["containers"]
            found.append((each["metadata"]["labels"]["app.kubernetes.io/component"], template, container))
        return found

    def environment(self, container: Object) -> dict[str, str]:
        """What the container is told, with values of Secrets made up."""
        names = [source["configMapRef"]["name"] for source in container.get("envFrom", []) if "configMapRef" in source]
        shared = {key: value for name in names for key, value in self.named("ConfigMap", name)["data"].items()}
        return shared | {each["name"]: each.get("value", "secret") for each in container.get("env", [])}

    def slots(self) -> list[Object]:
        """The StatefulSets of retrieval, by slot."""
        return sorted(self.of("StatefulSet"), key=lambda each: each["metadata"]["labels"]["penstock.dev/slot"])
