"""The port through which work is done elsewhere: in processes of this machine, or on Ray."""

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Step(Protocol[Item_contra, Result_co]):
    """What is done with each item, as a value that can be sent to another process. Doing an item twice must do no harm."""

    def open(self) -> AbstractContextManager[Callable[[Item_contra], Result_co]]:
        """What does it, made once where it is done: it may load a model. Called for one item at a time, on one thread."""
        ...


class Executor(Protocol):
    """Does steps. An item whose worker dies is given to another."""

    def map(self, step: Step[Item, Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """The results in the order of the items, which are taken as they are needed, a bounded number ahead.

        Raises what the step raises, and StepFailed. To be closed, which ends what is under way.
        """
        ...

    def stop(self) -> None:
        """Ends what is under way, from any thread; whoever waits for a result gets StepFailed."""
        ...

    def close(self) -> None:
        """Gives back what it holds; nothing is under way any more."""
        ...


class StepFailed(Exception):
    """A defect: a step raised what it should not, or killed its workers. The text says what."""
