import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings


@pytest.mark.parametrize("target", ["dns:///generation:50052", "generation:50052", "10.0.0.1:50052,10.0.0.2:50052"])
def test_generation_is_a_name_or_the_addresses_of_its_replicas(target: str) -> None:
    assert GatewaySettings(generation_target=target).generation_target == target


@pytest.mark.parametrize("target", ["generation", "unix:/run/generation", "a:1,a:1", "xds:///generation"])
def test_a_target_that_could_never_be_reached_stops_the_start(target: str) -> None:
    with pytest.raises(ValidationError, match="generation_target"):
        GatewaySettings(generation_target=target)
