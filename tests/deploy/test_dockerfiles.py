"""The Dockerfiles name files that there are, modules that can be run, and settings that the services have."""

import importlib.util
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = {"gateway": "gateway", "retrieval": "retrieval_svc", "generation": "generation_svc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM of a Dockerfile and the instructions that follow it."""

    base: str
    name: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    def environment(self) -> dict[str, str]:
        pairs = [pair.partition("=") for arguments in self.all("ENV") for pair in shlex.split(arguments)]
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A service's Dockerfile: its global arguments with their defaults, and its stages."""

    service: str
    arguments: dict[str, str]
    stages: tuple[Stage, ...]

    def images(self) -> list[Stage]:
        """The stages that are images of their own, not only steps of a build."""
        return [stage for stage in self.stages if stage.all("ENTRYPOINT")]


@pytest.fixture(params=SERVICES)
def dockerfile(request) -> Dockerfile:
    text = (ROOT / "deploy" / "docker" / f"{request.param}.Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    instructions = [(name, arguments.strip()) for name, _, arguments in (line.partition(" ") for line in lines if line)]
    starts = [index for index, (name, _) in enumerate(instructions) if name == "FROM"]
    stages = []
    for start, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        base, _, name = instructions[start][1].partition(" AS ")
        stages.append(Stage(base=base, name=name, instructions=tuple(instructions[start + 1 : end])))
    arguments = dict(value.split("=", 1) for name, value in instructions[: starts[0]] if name == "ARG")
    return Dockerfile(service=request.param, arguments=arguments, stages=tuple(stages))


def test_every_base_is_an_argument_with_a_version(dockerfile):
    for stage in dockerfile.stages:
        argument = re.fullmatch(r"\$\{(\w+)\}", stage.base)
        assert argument, stage.base
        version = dockerfile.arguments[argument[1]].partition(":")[2]
        assert re.match(r"v?\d", version), f"{argument[1]} has no version that stays"


def test_images_run_as_a_number_that_is_not_root(dockerfile):
    assert dockerfile.images()
    for image in dockerfile.images():
        assert image.last("USER") == "65532:65532"


def test_the_entrypoint_needs_no_shell_and_is_a_module_of_ours(dockerfile):
    for image in dockerfile.images():
        program, flag, module = json.loads(image.last("ENTRYPOINT"))
        assert (program, flag) in {("python", "-m"), ("python3", "-m")}
        assert module == SERVICES[dockerfile.service]
        assert importlib.util.find_spec(f"{module}.__main__"), f"{module} can't be run"
        assert image.last("STOPSIGNAL") == "SIGTERM"
        assert image.environment()["PYTHONSAFEPATH"] == "1"


def test_what_is_exposed_is_where_the_service_listens(dockerfile, settings_of):
    prefix = "PENSTOCK_"
    for image in dockerfile.images():
        environment = {name: value for name, value in image.environment().items() if name.startswith(prefix)}
        settings = settings_of(dockerfile.service, environment)
        listening = [address.rpartition(":") for address in (settings.grpc_address, settings.http_address)]
        assert {host for host, _, _ in listening} == {"0.0.0.0"}
        assert sorted(port for _, _, port in listening) == sorted(image.last("EXPOSE").split())


def test_what_is_copied_exists_and_is_let_in_by_dockerignore(dockerfile):
    allowed = [
        PurePosixPath(line.removeprefix("!"))
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    stages = {stage.name for stage in dockerfile.stages}
    for stage in dockerfile.stages:
        for arguments in stage.all("COPY"):
            *sources, _ = [part for part in arguments.split() if not part.startswith("--")]
            origin = re.search(r"--from=(\S+)", arguments)
            if origin:
                assert origin[1] in stages
                continue
            for source in map(PurePosixPath, sources):
                assert (ROOT / source).exists(), source
                assert any(source.is_relative_to(each) for each in allowed), f"{source} is kept out by .dockerignore"


def test_only_locked_requirements_are_installed(dockerfile):
    runs = [run for stage in dockerfile.stages for run in stage.all("RUN")]
    for command in (part for run in runs for part in run.split("&&") if "pip install" in part):
        assert "--no-cache-dir" in command
        assert "--no-deps" in command or "--constraint" in command
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            assert not line.strip() or line.lstrip().startswith("#") or "==" in line, f"{path.name}: {line}"


def test_images_say_what_they_are(dockerfile):
    for image in dockerfile.images():
        (labels,) = image.all("LABEL")
        assert 'org.opencontainers.image.licenses="Apache-2.0"' in labels
        assert f'org.opencontainers.image.title="penstock-{dockerfile.service}' in labels


def test_the_generation_image_without_a_target_is_the_one_that_needs_no_gpu(dockerfile):
    if dockerfile.service == "generation":
        engines = {image.name: image.environment()["PENSTOCK_GENERATION_ENGINE"] for image in dockerfile.images()}
        assert engines == {"vllm": "vllm", "openvino": "openvino"}
        assert dockerfile.stages[-1].name == "openvino"


def test_the_retrieval_image_is_usable_alone(dockerfile):
    if dockerfile.service == "retrieval":
        (image,) = dockerfile.images()
        environment = image.environment()
        assert environment["PENSTOCK_RETRIEVAL_DATA_DIR"] == image.last("WORKDIR") == "/data"
        assert f"http://127.0.0.1:{environment['PENSTOCK_RETRIEVAL_HTTP_ADDRESS'].rpartition(':')[2]}/readyz" in image.last(
            "HEALTHCHECK"
        )
        # The service's user owns what volumes are made from, the model's folder included.
        steps = [name for name, arguments in image.instructions if name in {"USER", "ENTRYPOINT"} or "cache_dir" in arguments]
        assert steps == ["USER", "RUN", "ENTRYPOINT"]
        (owned,) = [run for run in image.all("RUN") if "install --directory" in run]
        assert {"65532", "/data", "/snapshots"} <= set(owned.split())


def test_what_a_json_form_runs_is_python(dockerfile):
    for arguments in (each for stage in dockerfile.stages for each in [*stage.all("RUN"), *stage.all("HEALTHCHECK")]):
        command = arguments[arguments.index("[") :] if arguments.startswith(("[", "--interval")) else "[]"
        for code in json.loads(command)[2:]:
            compile(code, dockerfile.service, "exec")
