"""Plain date arithmetic: a day of the project is a local one, half-open from midnight to midnight."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def day_start(day: date, timezone: str) -> datetime:
    """The UTC moment at which the local day begins; it is 23, 24 or 25 hours before the next one's."""
    return datetime.combine(day, time(), tzinfo=ZoneInfo(timezone)).astimezone(UTC)


def day_of(moment: datetime, timezone: str) -> date:
    """The local day that a moment (timezone-aware) falls on."""
    return moment.astimezone(ZoneInfo(timezone)).date()


def days_between(first: date, last: date) -> list[date]:
    """Every day in [first, last], both included; empty if ``last`` is earlier."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def days_shown(days: Sequence[date]) -> str:
    """Consecutive days as they stand in sentences: the one, or ``first..last``."""
    return str(days[0]) if len(days) == 1 else f"{days[0]}..{days[-1]}"
