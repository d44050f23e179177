"""FastAPI over a FAISS graph, answers by orjson: what a team writes itself in an afternoon, as fast as that gets.

`python -m bench.peers.fastapi_server PORT COUNT GRAPH_FILE`. POST /search with 4 x dimension bytes; ?ef= sets the candidates.
"""

import sys
from pathlib import Path

import faiss
import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found]  # In its environment only.

from bench.corpus import DIMENSION, clustered_blocks, passages
from bench.peers.adapter import HNSW_EF_CONSTRUCTION, HNSW_M, TOP_K

app = FastAPI()


def load(count: int, file: str) -> None:
    """The graph, from a file where it was kept, and the texts."""
    if Path(file).exists():
        index = faiss.read_index(file)
    else:
        index = faiss.IndexHNSWFlat(DIMENSION, HNSW_M, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
        for block in clustered_blocks(count):
            index.add(block)
        faiss.write_index(index, file)
    app.state.index, app.state.texts = index, list(passages(count))


@app.post("/search")  # type: ignore[untyped-decorator]
async def search(request: Request) -> Response:
    query = np.frombuffer(await request.body(), dtype="<f4").reshape(1, -1)
    scores, rows = app.state.index.search(query, TOP_K)
    texts = app.state.texts
    hits = [
        {"id": row, "score": score, "text": texts[row]} for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)
    ]
    return Response(orjson.dumps({"hits": hits}), media_type="application/json")


@app.put("/ef/{ef}")  # type: ignore[untyped-decorator]
async def set_ef(ef: int) -> None:
    app.state.index.hnsw.efSearch = ef


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    load(int(sys.argv[2]), sys.argv[3])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", loop="uvloop", http="httptools", access_log=False)
