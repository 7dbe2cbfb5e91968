"""Which days of history a day may be compared with: those of its season, every weekday as often.

The reference matters more than the test: a day in July differs from the days of March in nearly every column, and a
test that is told so alarms. With more than a year of history a day is compared with its own season of the year before
and with the weeks before it (for what grew since); with less, with the weeks before alone.

Not with days of its own weekday alone: that was tried on the flights of 2013. A Saturday is nearer to Saturdays, but
what is usual must be learned from twelve of them instead of 84 days, and seven times as many days paged.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from ml_platform.spec.alarms import Seasons

_HOLIDAYS = "the holidays before"
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
    if rule.holidays.intersection(current):
        days, season = _of_a_holiday(days, season, usable, rule)
    else:
        days = days - rule.holidays
    found = tuple(sorted(days))
    counted = f"{len(found)} {'day' if len(found) == 1 else 'days'} of {season}"
    if len(found) >= max(1, rule.min_days if season != _HOLIDAYS else rule.alike_days):
        return References(days=found, why=counted, enough=True)
    compared = str(first) if first == last else f"{first} to {last}"
    why = f"only {counted} to compare {compared} with; {rule.min_days} are needed"
    return References(days=found, why=why, enough=False)


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


def _of_a_holiday(days: set[date], season: str, usable: set[date], rule: Seasons) -> tuple[set[date], str]:
    """Holidays are few, so they are looked for in the whole history; the days before are better than none."""
    alike = usable & rule.holidays
    return (alike, _HOLIDAYS) if len(alike) >= rule.alike_days else (days, season)
