"""What happens in the trips' world: a pure function of the day, the seed and the behaviour.

stationary: nothing ever changes. shifted: from ``SHIFTS_ON`` on, long trips end early and short ones late, for good.
moved: the same, and who is late is an hour later than before, which the features of the past are seen to tell.
"""

import os
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import lru_cache

import numpy as np
import polars as pl

from ml_platform.spec import SourceError
from ml_platform.spec.calendar import day_of, day_start, days_between

NY = "America/New_York"
UTC_TIME = pl.Datetime("us", "UTC")
FIRST = date(2024, 2, 26)
SHIFTS_ON = date(2024, 3, 9)
SEED = 7
A_DAY = 80
BEHAVIOUR = "TRIPS_BEHAVIOUR"  # of the process that reads the source
PLANNED_AHEAD = timedelta(days=5)
FOUND_LATER = timedelta(days=3)  # some endings are known only then
LINES = ("A", "B", "C", "D", "E")


def trips(day: date, seed: int, behaviour: str) -> pl.DataFrame:
    """The day's trips with all that will ever be known about them; one in twenty is cancelled, one in forty lost."""
    draw = np.random.default_rng([seed, day.toordinal()])
    begins, ends = day_start(day, NY), day_start(day + timedelta(days=1), NY)
    seconds = np.sort(draw.integers(0, int((ends - begins).total_seconds()), A_DAY))
    leaves = [begins + timedelta(seconds=int(second)) for second in seconds]
    miles = draw.uniform(1, 9, A_DAY).round(2)
    line = draw.integers(0, len(LINES), A_DAY)
    slope = -1.0 if behaviour in ("shifted", "moved") and day >= SHIFTS_ON else 1.0
    logit = slope * 1.3 * (miles - 5) + 0.6 * (line - 2)
    late = draw.uniform(size=A_DAY) < 1 / (1 + np.exp(-logit))
    minutes = np.where(late, draw.integers(10, 40, A_DAY), draw.integers(-5, 10, A_DAY))
    minutes = minutes + 60 * late if behaviour == "moved" and day >= SHIFTS_ON else minutes
    cancelled = draw.uniform(size=A_DAY) < 0.05
    planned = max(day_start(day - PLANNED_AHEAD, NY) + timedelta(hours=12), day_start(FIRST, NY))
    lost = draw.uniform(size=A_DAY) < 0.025
    took = [timedelta(minutes=int(20 + 3 * length + by)) for length, by in zip(miles, minutes, strict=True)]
    return pl.DataFrame(
        {
            "trip": [f"{day:%Y%m%d}-{number:02}" for number in range(A_DAY)],
            "line": [LINES[number] for number in line],
            "miles": miles,
            "leaves": leaves,
            "planned_at": planned,
            "minutes_late": [None if gone else int(by) for gone, by in zip(cancelled, minutes, strict=True)],
            "ended_at": [at + n + FOUND_LATER * int(x) for at, n, x in zip(leaves, took, lost, strict=True)],
        },
        schema_overrides={"leaves": UTC_TIME, "planned_at": UTC_TIME, "ended_at": UTC_TIME, "minutes_late": pl.Int64},
    )


_trips = lru_cache(maxsize=256)(trips)


def reader(columns: tuple[str, ...], known_at: str) -> Callable[[datetime, datetime], pl.DataFrame]:
    """A source over the world's columns, of which ``known_at`` says when a row is known."""

    def read(start: datetime, end: datetime) -> pl.DataFrame:
        behaviour = os.environ.get(BEHAVIOUR, "stationary")
        if behaviour == "absent":
            raise SourceError("the trips' depot does not answer; look whether it is open and run again")
        first, last = day_of(start, NY) - FOUND_LATER - timedelta(days=1), day_of(end, NY) + PLANNED_AHEAD
        rows = pl.concat(_trips(day, SEED, behaviour) for day in days_between(max(FIRST, first), last))
        known = rows.filter(pl.col(known_at).is_between(start, end, closed="left"))
        return known.select(*columns, known_at=known_at)

    return read
