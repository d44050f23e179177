"""The chat model before langchain-core's own standard tests, over the generation service itself."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from penstock.clients.langchain import PenstockChatModel
from tests.penstock.clients.generation_service import FormEngine, generation_service


class TestChatModelUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return PenstockChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "small"}


class TestChatModelIntegration(ChatModelIntegrationTests):
    target: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def service(cls) -> Iterator[None]:
        with generation_service(FormEngine()) as cls.target:
            yield

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return PenstockChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"target": self.target, "model": "default"}

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "small"
