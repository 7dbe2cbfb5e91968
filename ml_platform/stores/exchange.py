"""A question to a server, cut in two: what to send, and what to make of the answers. Who sends it is left open."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Taken = TypeVar("Taken")


@dataclass(frozen=True, slots=True)
class Exchange(Generic[Taken]):
    """``packet`` holds so many commands as Redis reads them; ``take`` makes something of as many replies."""

    packet: bytes
    count: int
    take: Callable[[list[Any]], Taken]
