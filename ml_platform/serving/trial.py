"""A version on trial: whatever it does wrong is its failure, and touches nobody else.

The one place in the house that keeps an error of any kind: what a model's code or a library under it may raise cannot
be listed, and a canary that ends a request, or a turn of many, would have touched whom it was never to answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Found = TypeVar("Found")
_LONGEST = 500  # characters of an error


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a version on trial could not answer."""

    error: Exception

    @property
    def reason(self) -> str:
        """In a line."""
        return f"{type(self.error).__name__}: {self.error}"[:_LONGEST]


def tried(what: Callable[[], Found]) -> Found | Fault:
    """What it finds, or its fault."""
    try:
        return what()
    except Exception as error:  # noqa: BLE001  # see above
        return Fault(error)
