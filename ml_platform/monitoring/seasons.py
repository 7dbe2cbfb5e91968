"""Which days of history a day may be compared with: those of its season, with the same mix of weekdays.

The reference matters more than the test: a Saturday in July differs from the weekdays of May in nearly every column,
and a test that is told so alarms. Two years of history let a day be compared with its own season; a shorter one only
with the weeks before.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from ml_platform.spec.alarms import Seasons

_YEAR = timedelta(days=364)  # whole weeks, so that weekdays fall on each other


@dataclass(frozen=True, kw_only=True)
class References:
    """The days to compare with, in order, and the sentence that says which they are; not ``enough``: unknown."""

    days: tuple[date, ...]
    why: str
    enough: bool


def references(
    current: Sequence[date], history: Collection[date], rule: Seasons, *, left_out: Collection[date] = ()
) -> References:
    """The days that a day (or the days of one window) is compared with.

    current: one day or more, in any order.
    history: the days of which enough is known; those in or after the current window are never taken.
    left_out: days that are known to have been wrong.

    Raises:
        ValueError: there is no current day.
    """
    if not current:
        raise ValueError("references() was given no current day; give it the day that is judged")
    first, last = min(current), max(current)
    usable = {day for day in history if day < first} - set(left_out)
    days, season = _in_season(first, last, usable, rule)
    chosen, kind = _alike(current, days, usable, rule)
    found = tuple(sorted(chosen))
    enough = bool(kind) or len(found) >= max(1, rule.min_days)
    counted = f"{len(found)}{kind} {'day' if len(found) == 1 else 'days'} of {season}"
    if enough:
        return References(days=found, why=counted, enough=True)
    needed = f"{rule.min_days} are needed, or {rule.alike_days} of the same weekdays"
    return References(days=found, why=f"only {counted} to compare {_span(first, last)} with; {needed}", enough=False)


def _in_season(first: date, last: date, usable: set[date], rule: Seasons) -> tuple[set[date], str]:
    """Days of the weeks before, and of the same time of year as far as the history reaches it."""
    recent = {day for day in usable if day >= first - timedelta(days=rule.recent_days)}
    around = timedelta(days=rule.around_days)
    earlier: set[date] = set()
    reached = 0
    for year in range(1, rule.years + 1):
        begins, ends = first - year * _YEAR - around, last - year * _YEAR + around
        # A part of the season, all of it on its late side, would say that its early side is unusual.
        if usable and min(usable) <= begins:
            earlier |= {day for day in usable if begins <= day <= ends}
            reached = year
    season = f"the {rule.recent_days} days before"
    if not reached:
        return recent, season
    ago = "a year" if reached == 1 else f"up to {reached} years"
    return recent | earlier, f"{season} and of the same time of year {ago} ago"


def _alike(current: Sequence[date], days: set[date], usable: set[date], rule: Seasons) -> tuple[Iterable[date], str]:
    """Those with the current mix of weekdays, if there are enough; else all but holidays."""
    if rule.holidays.intersection(current):
        like = usable & rule.holidays
        # Of holidays there are few, so they are looked for in the whole history; the days before are better than none.
        return (like, " holidays,") if len(like) >= rule.alike_days else (days, "")
    ordinary = days - rule.holidays
    weekdays = {day.weekday() for day in current}
    same = [day for day in ordinary if day.weekday() in weekdays]
    if len(weekdays) < 7 and len(same) >= rule.alike_days * len(weekdays):
        return same, " alike"
    return ordinary, ""


def _span(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} to {last}"
