"""When a change is worth an alarm: which days are compared, what pages, what warns and how often."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, kw_only=True)
class Seasons:
    """Which days of history a day is compared with.

    recent_days: the days before are taken, so far back; whole weeks, so that the reference has every weekday as often.
    years: where the history goes back so many years, the days around the same time of year are taken, too.
    around_days: so many days on either side count as the same time of year.
    alike_days: a holiday is compared with holidays if there are so many of them before it.
    min_days: fewer reference days are *unknown*.
    holidays: days that are like no weekday; never the reference of other days.
    """

    recent_days: int = 84
    years: int = 1
    around_days: int = 21
    alike_days: int = 8
    min_days: int = 28
    holidays: frozenset[date] = frozenset()


@dataclass(frozen=True, kw_only=True)
class SharpRule:
    """A change is sharp, and pages, when its distance is at least ``min_distance`` and its odds ``odds`` times usual.

    Usual is the largest distance of the reference days among themselves; the odds of a distance d are d / (1 - d).
    Odds, since distances end at 1: twice .3 is a large change, twice .7 is none that there is, and .97 where .9 is
    usual is as far beyond as .43 where .2 is.
    """

    min_distance: float = 0.1
    odds: float = 3.0


@dataclass(frozen=True, kw_only=True)
class AlarmBudget:
    """How often a policy may warn while nothing but the usual happens.

    share: of the periods in which it warns (0..1).
    period_days: days of a period; periods of seven days begin on Mondays. A period counts once.
    step: how fast the level follows what was spent (0: not at all, so that only exchangeable scores keep the budget).
    memory: how many closed periods say what is usual.
    min_periods: before so many have closed the verdict is *unknown*.
    """

    share: float = 0.25
    period_days: int = 7
    step: float = 0.1
    memory: int = 26
    min_periods: int = 8


@dataclass(frozen=True, kw_only=True)
class JointRule:
    """How a classifier looks for a change of what columns have to do with each other.

    rows: sampled of the day, at most so many; of its reference twice as many to learn from, and as many to judge.
    min_rows: fewer on either side are *unknown*.
    folds: of a comparison of two samples: each row is judged by a classifier trained on the other folds.
    rounds, leaves: size of the trees.
    """

    rows: int = 1000
    min_rows: int = 100
    folds: int = 2
    rounds: int = 60
    leaves: int = 15
