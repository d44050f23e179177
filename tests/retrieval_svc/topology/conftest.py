import asyncio
from collections.abc import Iterator

import pytest

from tests.retrieval_svc.postgres import Cluster, empty_database, postgres
from tests.retrieval_svc.topology.load import Corpus
from tests.retrieval_svc.topology.nodes import Topology, running_topology

__all__ = ["postgres"]


@pytest.fixture(scope="session")
def cluster(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Topology, Corpus]]:
    """The cluster of all tests here, and a collection in it that stays as it is."""
    still = Corpus("still")

    async def fill(topology: Topology) -> None:
        async with topology.clients("a") as [client]:
            await still.fill(client)

    with empty_database(postgres) as url, running_topology(tmp_path_factory.mktemp("cluster"), url) as topology:
        asyncio.run(fill(topology))
        yield topology, still


@pytest.fixture
def topology(cluster: tuple[Topology, Corpus]) -> Topology:
    """The cluster, whole whatever the test before did to it."""
    cluster[0].heal()
    return cluster[0]


@pytest.fixture
def still(cluster: tuple[Topology, Corpus]) -> Corpus:
    """A collection that stays as it is."""
    return cluster[1]
