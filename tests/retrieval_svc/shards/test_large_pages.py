from pathlib import Path

import numpy as np
import pytest

from retrieval_svc.shards.index import FlatVectors, VectorWriter
from retrieval_svc.shards.large_pages import _mappings, ask_for_large_pages
from retrieval_svc.values import Metric


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no large pages")
def test_a_mapped_index_is_asked_to_be_in_large_pages_and_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    vectors = np.random.default_rng(1).standard_normal((4000, 64)).astype(np.float32)
    with path.open("wb") as file:
        writer = VectorWriter(file, 64, Metric.L2)
        writer.add(vectors)
        writer.finish()
    opened = FlatVectors.open(path)
    [(start, _)] = _mappings(str(path))
    mapping = Path("/proc/self/smaps").read_text().partition(f"{start:x}-")[2]
    flags = mapping[mapping.index("VmFlags:") :].partition("\n")[0].split()
    assert "hg" in flags, "the kernel's mark for it"
    np.testing.assert_array_equal(opened.view(), vectors)


def test_a_file_that_is_not_mapped_is_no_fault(tmp_path: Path) -> None:
    ask_for_large_pages(tmp_path / "nowhere")
