"""What keeps the house in order: generated code is current, protos lint, functions and files stay short."""

import ast
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("penstock", "gateway", "retrieval_svc", "generation_svc")
WRITTEN = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")) if "_pb2" not in path.name]
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400


def test_generating_the_stubs_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "protos/generate.py", tmp_path], check=True)
    generated = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert generated, "nothing was generated"
    stale = [str(path) for path in generated if (ROOT / path).read_bytes() != (tmp_path / path).read_bytes()]
    assert not stale, "run `make protos` and commit what changed"


def test_the_protos_pass_buf_lint(tmp_path: Path) -> None:
    image = tmp_path / "image.binpb"
    site_packages = distribution("googleapis-common-protos").locate_file("")
    sources = [str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", f"-I{site_packages}", f"-o{image}"]
    subprocess.run([*protoc, "--include_imports", "--include_source_info", *sources], check=True)
    buf = Path(sys.executable).parent / "buf"
    lint = subprocess.run([buf, "lint", image, "--config", ROOT / "protos/buf.yaml"], capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout + lint.stderr


def functions(path: Path) -> list[tuple[str, int]]:
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1) for node in found]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_fit_a_screen_and_files_a_sitting(path: Path) -> None:
    assert [name for name, lines in functions(path) if lines > FUNCTION_LINES_MAX] == []
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


def test_heavy_libraries_have_one_importing_module_each() -> None:
    owners = {
        "faiss": ["retrieval_svc/shards/index.py"],
        "fsspec": ["retrieval_svc/snapshots/store.py"],
        "llguidance": ["generation_svc/vllm_form_matcher.py"],
        "mcp": ["gateway/mcp_tools/server.py"],
        "onnxruntime": ["retrieval_svc/embedding/onnx_runtime.py"],
        # The pipeline, and a second one that compiles forms beside it.
        "openvino_genai": ["generation_svc/openvino_forms.py", "generation_svc/openvino_model.py"],
        "pypdf": ["retrieval_svc/ingest/pdf_text.py"],
        "re2": ["gateway/patterns.py"],
        "ray": ["retrieval_svc/bulk/ray_executor.py"],
        "redis": ["gateway/redis_sessions.py"],
        "selectolax": ["retrieval_svc/ingest/html_text.py"],
        # A model that embeds, and one that reads two texts together: each is loaded by its own class.
        "sentence_transformers": [
            "retrieval_svc/embedding/cross_encoder.py",
            "retrieval_svc/embedding/sentence_transformer.py",
        ],
        "tantivy": ["retrieval_svc/shards/lexical.py"],
        "vllm": ["generation_svc/vllm_api.py"],
    }
    for library, expected in owners.items():
        importing = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
        assert [str(path.relative_to(ROOT)) for path in WRITTEN if importing.search(path.read_text())] == expected
