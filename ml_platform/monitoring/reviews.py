"""Reviews: a column moved sharply that no drift policy covers, so a person says what it means.

A review is open from its line in the ledger until a person's answer. While it is open, no second one is opened about
the same column, and retraining on what moved waits. What was answered is not asked again before the days that are
compared with have taken the change in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from ml_platform.spec import PlatformError
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import REVIEW, REVIEWED

Answer = Literal["approved", "dismissed"]
QUIET_FOR = timedelta(days=28)  # as many days as are compared with, unless a policy says otherwise
KINDS = (REVIEW, REVIEWED)  # what `Ledger.about(project, KINDS)` is asked for


@dataclass(frozen=True, kw_only=True)
class Review:
    """What moved, on which day, and what was answered; ``services``: those whose inputs depend on the column.

    key: names the review, in the ledger and to people.
    answer: ``None`` while it is open.
    """

    key: str
    table: str
    column: str
    day: date
    services: tuple[str, ...]
    reason: str
    opened_at: datetime
    answer: Answer | None = None
    by: str | None = None
    answered_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody has answered it yet."""
        return self.answer is None


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A column that moved sharply and that no policy covers. ``table``: as its asset, ``raw/weather``."""

    table: str
    column: str
    day: date
    services: tuple[str, ...]
    reason: str


def reviews(lines: Iterable[Entry]) -> list[Review]:
    """All reviews, oldest first, with their answers; ``lines``: the project's of ``KINDS``, in order. A first answer
    holds."""
    found: dict[str, Review] = {}
    for line in lines:
        if line.kind == REVIEW:
            found[line.key] = _opened(line)
        elif line.kind == REVIEWED and (asked := found.get(str(line.body["review"]))) and asked.is_open:
            found[asked.key] = _answered(asked, line)
    return list(found.values())


def open_reviews(lines: Iterable[Entry], service: str | None = None) -> list[Review]:
    """Those that nobody has answered (that concern ``service``), oldest first."""
    return [one for one in reviews(lines) if one.is_open and (service is None or service in one.services)]


def open_new(ledger: Ledger, project: str, moved: Sequence[Moved], at: datetime) -> list[Review]:
    """Open a review for each column that has none open and had none answered lately; returns the new ones.

    Doing it again, after a kill or for the same day, opens nothing twice.
    """
    known = reviews(ledger.about(project, KINDS))
    fresh = [one for one in moved if not any(_covers(review, one) for review in known)]
    lines = [
        ledger.write(
            REVIEW,
            project,
            f"{one.table}.{one.column} {one.day}",
            at,
            {"table": one.table, "column": one.column, "day": str(one.day), "services": list(one.services),
             "reason": one.reason},
        )
        for one in fresh
    ]  # fmt: skip
    return [_opened(line) for line in lines]


def answer(ledger: Ledger, project: str, key: str, said: Answer, *, by: str, reason: str, at: datetime) -> Review:
    """Write a person's answer to an open review down.

    Raises:
        PlatformError: no such review is open; names those that are.
    """
    asked = [one for one in open_reviews(ledger.about(project, KINDS)) if one.key == key]
    if not asked:
        names = ", ".join(one.key for one in open_reviews(ledger.about(project, KINDS))) or "none"
        raise PlatformError(f"no review {key!r} is open; open are: {names}")
    line = ledger.write(REVIEWED, project, key, at, {"review": key, "answer": said, "by": by, "reason": reason})
    return _answered(asked[0], line)


def _covers(review: Review, one: Moved) -> bool:
    same = (review.table, review.column) == (one.table, one.column)
    return same and (review.is_open or one.day - review.day < QUIET_FOR)


def _opened(line: Entry) -> Review:
    body = line.body
    return Review(
        key=line.key,
        table=str(body["table"]),
        column=str(body["column"]),
        day=date.fromisoformat(str(body["day"])),
        services=tuple(map(str, body["services"])),
        reason=str(body["reason"]),
        opened_at=line.at,
    )


def _answered(asked: Review, line: Entry) -> Review:
    return Review(**{**vars(asked), "answer": line.body["answer"], "by": str(line.body["by"]), "answered_at": line.at})
