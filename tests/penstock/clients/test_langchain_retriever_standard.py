"""The retriever before langchain-core's own standard tests, over the retrieval service itself."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

from penstock.clients import Document, RetrievalClient
from penstock.clients.langchain import PenstockRetriever
from penstock.retrieval.v1.retrieval_pb2_grpc import add_RetrievalServiceServicer_to_server
from retrieval_svc.catalog import Wanted
from tests.penstock.clients.service_thread import in_a_thread, served
from tests.retrieval_svc.fakes import WordEmbedder, running_core


@asynccontextmanager
async def retrieval_service(folder: Path) -> AsyncIterator[str]:
    """Its address, with a collection "texts" of five documents."""
    async with running_core(folder, embedder=WordEmbedder()) as core:
        await core.catalog.create(Wanted(id="texts"))

        def mount(dispatcher: Any) -> None:
            add_RetrievalServiceServicer_to_server(core.servicer, dispatcher)

        async with served("penstock.retrieval.v1.RetrievalService", mount) as target:
            async with RetrievalClient(target) as client:
                await client.ingest("texts", [Document(id=f"d{n}", text=f"the tower of number {n}") for n in range(5)])
            yield target


class TestRetrieverIntegration(RetrieversIntegrationTests):
    target: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def service(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with in_a_thread(retrieval_service(tmp_path_factory.mktemp("retrieval"))) as cls.target:
            yield

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return PenstockRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"target": self.target, "collection": "texts"}

    @property
    def retriever_query_example(self) -> str:
        return "tower number 3"

    @property
    def num_results_arg_name(self) -> str:
        return "top_k"
