"""Answers that are bytes before they are messages: what a servicer has stored encoded need not be decoded to be sent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Encoded(Generic[M]):
    """A message of the type `kind` as protobuf writes it. gRPC sends it as it is, HTTP reads the message out of it."""

    kind: type[M]
    data: bytes

    def message(self) -> M:
        """The message itself."""
        return self.kind.FromString(self.data)


def message_of(answer: Any) -> Any:
    """A servicer's answer as a message, however it came."""
    return answer.message() if isinstance(answer, Encoded) else answer


def serialiser(serialise: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A method's serialiser that takes what is Encoded as well."""

    def bytes_of(answer: Any) -> bytes:
        return answer.data if isinstance(answer, Encoded) else serialise(answer)

    return bytes_of
