"""Five cron fields in a timezone: when did they last come up, and when will they next?

The fields are minute, hour, day of the month, month, day of the week (0 or 7: Sunday), each ``*``, a number, a range
``1-5``, a list ``1,15`` or one of these with a step ``*/2``. As everywhere, where both kinds of day are restricted one
of them is enough. A local time that clocks skip counts as the moment after the gap; one that they repeat counts once.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_DAYS = 366 * 8 + 1  # 29 February is up to eight years away


def problems(cron: str) -> list[str]:
    """What is wrong with it, in words; empty: nothing."""
    try:
        _parsed(cron)
    except ValueError as error:
        return [str(error)]
    soon = datetime(2000, 1, 1, tzinfo=UTC)
    return [] if next_tick(cron, soon, "UTC") else [f"cron={cron!r} never comes up: no month has such a day"]


def last_tick(cron: str, moment: datetime, timezone: str) -> datetime | None:
    """The newest tick at or before the moment, in UTC; None if there is none in eight years.

    Raises:
        ValueError: it is no cron.
    """
    today = moment.astimezone(ZoneInfo(timezone)).date()
    days = (today - timedelta(days=back) for back in range(-1, _DAYS))
    ticks = (tick for day in days for tick in reversed(_ticks(cron, day, timezone)))
    return next((tick for tick in ticks if tick <= moment), None)


def next_tick(cron: str, moment: datetime, timezone: str) -> datetime | None:
    """The first tick after the moment, in UTC; None if there is none in eight years.

    Raises:
        ValueError: it is no cron.
    """
    today = moment.astimezone(ZoneInfo(timezone)).date()
    days = (today + timedelta(days=ahead) for ahead in range(-1, _DAYS))
    return next((tick for day in days for tick in _ticks(cron, day, timezone) if tick > moment), None)


def _ticks(cron: str, day: date, timezone: str) -> list[datetime]:
    """Those of a local day, in order."""
    minutes, hours, month_days, months, week_days = _parsed(cron)
    fields = cron.split()
    by_month, by_week = day.day in month_days, day.isoweekday() % 7 in week_days
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    if day.month not in months or not (by_month or by_week if either else by_month and by_week):
        return []
    zone = ZoneInfo(timezone)
    local = (datetime.combine(day, time(hour, minute), zone) for hour in sorted(hours) for minute in sorted(minutes))
    return sorted({at.astimezone(UTC) for at in local})


@lru_cache(maxsize=64)
def _parsed(cron: str) -> tuple[frozenset[int], ...]:
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"cron={cron!r} has {len(parts)} fields; write five: {', '.join(name for name, *_ in _FIELDS)}"
        )
    found = [frozenset(_numbers(cron, part, *field)) for part, field in zip(parts, _FIELDS, strict=True)]
    return (*found[:4], frozenset(number % 7 for number in found[4]))


def _numbers(cron: str, part: str, name: str, low: int, high: int) -> Iterator[int]:
    wrong = ValueError(f"cron={cron!r}: {part!r} is no {name} ({low} to {high}, *, a-b, a,b or one of them with /step)")
    for piece in part.split(","):
        span, slash, step = piece.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            first, dash, last = str(low), "-", str(high - (high == 7))
        elif slash and not dash:
            dash, last = "-", str(high - (high == 7))
        words = [first, last if dash else first, step if slash else "1"]
        if not all(word.isdecimal() for word in words):
            raise wrong
        begin, end, by = map(int, words)
        if not low <= begin <= end <= high or by < 1:
            raise wrong
        yield from range(begin, end + 1, by)
