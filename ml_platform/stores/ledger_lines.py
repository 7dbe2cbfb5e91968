"""The ledger as it stood at a moment, read once: what is told of it cannot depend on what was written later."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from ml_platform.stores.ledger import Entry, Ledger


@dataclass(frozen=True)
class Lines(Ledger):
    """The lines of a ledger that were written by a moment (all, if none is given), in memory."""

    lines: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, ledger: Ledger, until: datetime | None = None) -> "Lines":
        """Read them. A line counts by the platform's time that it carries, whatever stands around it."""
        return cls(ledger.path, tuple(line for line in ledger.all() if until is None or line.at <= until))

    def all(self) -> list[Entry]:
        """Every line, oldest first."""
        return list(self.lines)

    def about(self, subject: str, kinds: Collection[str]) -> list[Entry]:
        """All lines of these kinds about this subject, oldest first."""
        return [line for line in self.lines if line.subject == subject and line.kind in kinds]

    def of_kind(self, kind: str) -> list[Entry]:
        """All lines of this kind, whatever they are about, oldest first."""
        return [line for line in self.lines if line.kind == kind]

    def height(self) -> int:
        """The number of the last line; 0 before the first."""
        return max((line.number for line in self.lines), default=0)

    def subjects(self, kinds: Collection[str]) -> list[str]:
        """What lines of these kinds are about, by name."""
        return sorted({line.subject for line in self.lines if line.kind in kinds})

    def write(self, kind: str, subject: str, key: str, at: datetime, body: Mapping[str, Any] | object) -> NoReturn:
        """Nothing is written into the past.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"nothing is written into the past: write {kind} {key!r} about {subject} to the ledger itself")
