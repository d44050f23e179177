"""Real models, prepared by the real child: a BERT of two layers with drawn weights, and the service's own."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import CannotPrepare, FailedPrecondition
from retrieval_svc.embedding.loading import ModelConfig, load
from retrieval_svc.embedding.preparing import Backend
from retrieval_svc.embedding.prompts import Prompts
from retrieval_svc.embedding.source import find_source
from retrieval_svc.settings import RetrievalSettings

pytestmark = [pytest.mark.model, pytest.mark.slow]

DEFAULTS = RetrievalSettings()
ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "examples/corpus/squad_xquad_en"
WORDS = [f"word{number}" for number in range(200)]
TEXTS = ["word1 word2", "word3 " * 25, " ".join(WORDS[:20]), "word7"]

# Makes a model with a pooling and, where asked, a projection after it. In a process of its own: torch stays out of this one.
MAKE = """
import sys, torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast
folder, pooling, dense, prompt = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.manual_seed(7)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ask"] + [f"word{n}" for n in range(200)]
open(folder + "/vocab.txt", "w").write("\\n".join(words))
config = BertConfig(vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
                    max_position_embeddings=40)
BertModel(config).save_pretrained(folder + "/bert")
BertTokenizerFast(folder + "/vocab.txt").save_pretrained(folder + "/bert")
modules = [Transformer(folder + "/bert", max_seq_length=32), Pooling(64, pooling_mode=pooling)]
modules += [Dense(64, 32)] * dense + [Normalize()]
SentenceTransformer(modules=modules, prompts={"query": prompt, "document": ""}).save(folder + "/model")
"""


def make_model(folder: Path, *, pooling: str = "mean", dense: bool = False, prompt: str = "") -> str:
    folder.mkdir()
    subprocess.run([sys.executable, "-c", MAKE, str(folder), pooling, str(int(dense)), prompt], check=True, capture_output=True)
    return str(folder / "model")


def config(reference: str, backend: Backend, name: str = "tiny") -> ModelConfig:
    return ModelConfig(name=name, reference=reference, backend=backend)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("plain") / "m", prompt="ask ")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.mark.parametrize("backend", [Backend.OPENVINO, Backend.ONNXRUNTIME])
@pytest.mark.parametrize(("pooling", "dense"), [("mean", False), ("cls", False), ("max", False), ("mean", True)])
def test_a_prepared_model_makes_the_vectors_of_the_original_whatever_comes_after_its_layers(
    tmp_path: Path, backend: Backend, pooling: str, dense: bool
) -> None:
    reference = make_model(tmp_path / "m", pooling=pooling, dense=dense)
    original = load(config(reference, Backend.TORCH), cache_dir=tmp_path / "cache", threads=1).embedder
    ours = load(config(reference, backend), cache_dir=tmp_path / "cache", threads=1).embedder
    assert (ours.model.dimension, ours.model.window_tokens) == (original.model.dimension, 30)
    assert ours.model.fingerprint.startswith(f"tiny/{backend.value}-int8-1/32/{pooling}")
    assert ours.model.backend == f"{backend.value} int8"
    together = ours.embed(TEXTS)
    assert float((together * original.embed(TEXTS)).sum(axis=1).min()) > 0.99
    np.testing.assert_allclose(together, np.concatenate([ours.embed([text]) for text in TEXTS]), atol=0.03)


def test_the_models_own_prompts_are_used_unless_others_are_set(plain: str, cache_dir: Path) -> None:
    for backend in (Backend.TORCH, Backend.OPENVINO):
        own = load(config(plain, backend), cache_dir=cache_dir, threads=1)
        assert own.prompts == Prompts(query="ask ")
    said = ModelConfig(name="tiny", reference=plain, query_prompt="", document_prompt="word1 ")
    assert load(said, cache_dir=cache_dir, threads=1).prompts == Prompts(document="word1 ")


def test_processes_that_start_at_once_prepare_once_and_agree(plain: str, tmp_path: Path) -> None:
    program = (
        "import logging, sys; from pathlib import Path; logging.basicConfig(level='INFO', stream=sys.stdout)\n"
        "from retrieval_svc.embedding.loading import ModelConfig, load\n"
        f"loaded = load(ModelConfig(name='m', reference={plain!r}), cache_dir=Path({str(tmp_path)!r}), threads=1)\n"
        "print('print', loaded.embedder.model.fingerprint, 'torch' in sys.modules, sep='|')"
    )
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=200)[0] for process in started]
    assert sum("prepared" in each for each in said) == 1
    lines = {line for each in said for line in each.splitlines() if line.startswith("print")}
    assert len(lines) == 1
    assert lines.pop().endswith("|False"), "torch is in a process that needs none"
    assert not list(tmp_path.glob("*.part-*"))


def test_the_same_model_elsewhere_has_the_same_digest_and_changed_weights_another(plain: str, tmp_path: Path) -> None:
    copy = shutil.copytree(plain, tmp_path / "copy")
    assert find_source(str(copy)).digest == find_source(plain).digest
    weights = copy / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert find_source(str(copy)).digest != find_source(plain).digest


def test_a_model_that_cannot_be_exported_runs_on_torch_under_auto_and_is_an_error_when_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference = Path(make_model(tmp_path / "m"))
    settings = reference / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"padding_side": "left"}))
    with pytest.raises(CannotPrepare, match="set the backend to torch"):
        load(config(str(reference), Backend.OPENVINO), cache_dir=tmp_path / "cache", threads=1)
    with caplog.at_level(logging.WARNING):
        fallen = load(config(str(reference), Backend.AUTO), cache_dir=tmp_path / "cache", threads=1)
    assert fallen.embedder.model.backend == "torch float32"
    assert "set the backend to torch" in caplog.text


def test_a_child_that_dies_leaves_nothing_behind_and_the_next_start_tries_again(plain: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    broken = shutil.copytree(plain, tmp_path / "broken")
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(FailedPrecondition, match="cannot be loaded"):
        load(config(str(broken), Backend.OPENVINO), cache_dir=cache, threads=1)
    assert [each for each in cache.iterdir() if each.suffix != ".lock"] == []
    weights.write_bytes(whole)
    assert load(config(str(broken), Backend.OPENVINO), cache_dir=cache, threads=1).embedder.model.dimension == 64


def test_a_prepared_model_that_was_damaged_says_which_folder_to_delete(plain: str, tmp_path: Path) -> None:
    load(config(plain, Backend.OPENVINO), cache_dir=tmp_path, threads=1)
    (folder,) = (each for each in tmp_path.iterdir() if each.is_dir())
    os.truncate(folder / "openvino.bin", 10)
    with pytest.raises(FailedPrecondition, match="delete that folder"):
        load(config(plain, Backend.OPENVINO), cache_dir=tmp_path, threads=1)


def test_the_services_own_model_finds_the_paragraphs_in_8_bits(cache_dir: Path) -> None:
    ours = load(config(DEFAULTS.embedding_model, Backend.AUTO, "MiniLM"), cache_dir=cache_dir, threads=2).embedder
    assert ours.model.backend == "openvino int8"
    documents = [json.loads(line) for line in (CORPUS / "corpus.jsonl").read_text().splitlines()][::3]
    rows = {document["id"]: row for row, document in enumerate(documents)}
    questions = [json.loads(line) for line in (CORPUS / "questions.jsonl").read_text().splitlines()]
    asked = [each for each in questions if each["metadata"]["gold_doc_ids"][0] in rows][::4]
    vectors = np.concatenate([ours.embed([document["contents"]]) for document in documents])
    scores = ours.embed([each["question"] for each in asked]) @ vectors.T
    gold = [rows[each["metadata"]["gold_doc_ids"][0]] for each in asked]
    assert len(asked) >= 90
    # Measured over the whole corpus, whose 240 paragraphs are harder to tell apart: 0.86 first, with 8 bits as with 32.
    assert float(np.mean(scores.argmax(axis=1) == gold)) >= 0.8
