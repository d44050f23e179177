"""What the gateway's tests share."""

import pytest

from tests.gateway.fakes import World


@pytest.fixture
def world() -> World:
    return World()
