"""When a change is worth an alarm: which days are compared, what pages, what warns and how often."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, kw_only=True)
class Seasons:
    """Which days of history a day is compared with.

    recent_days: the days before are taken, so far back.
    years: where the history goes back so many years, the days around the same time of year are taken, too.
    around_days: so many days on either side count as the same time of year.
    alike_days: with at least so many days of the same weekdays, only these are taken; with fewer, all weekdays.
    min_days: fewer reference days are *unknown*.
    holidays: days that are like no weekday: never the reference of other days, and compared with their like if there
        are ``alike_days`` of them.
    """

    recent_days: int = 84
    years: int = 1
    around_days: int = 21
    alike_days: int = 8
    min_days: int = 14
    holidays: frozenset[date] = frozenset()


@dataclass(frozen=True, kw_only=True)
class SharpRule:
    """A change is sharp, and pages, when its distance is at least ``min_distance`` and ``ratio`` times the usual one.

    Usual is the largest distance of the reference days among themselves. Where that is far up, 1/``ratio`` of what is
    left to 1, the largest distance that there is, remains.
    """

    min_distance: float = 0.1
    ratio: float = 1.5


@dataclass(frozen=True, kw_only=True)
class AlarmBudget:
    """How often a policy may warn while nothing but the usual happens.

    share: of the periods in which it warns (0..1).
    period_days: days of a period; periods of seven days begin on Mondays. A period warns once.
    step: how fast the level follows what was spent (0: not at all, so that only exchangeable scores keep the budget).
    memory: how many closed periods say what is usual.
    min_periods: before so many have closed the verdict is *unknown*.
    """

    share: float = 0.25
    period_days: int = 7
    step: float = 0.05
    memory: int = 52
    min_periods: int = 8


@dataclass(frozen=True, kw_only=True)
class JointRule:
    """How a classifier looks for a change of what columns have to do with each other.

    rows: sampled of the day and of its reference, at most so many of each.
    min_rows: fewer on either side are *unknown*.
    folds: each row is judged by a classifier that was trained on the other folds.
    rounds, leaves: size of the trees.
    """

    rows: int = 1000
    min_rows: int = 100
    folds: int = 2
    rounds: int = 30
    leaves: int = 15
