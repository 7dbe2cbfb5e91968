"""How often the rules of alarms speak while nothing is wrong, and whether they do at once when something is.

Run it: ``python -m ml_platform.bench.monitoring_alarms``. Made-up stationary and seasonal days, and the flights of
2013; beside the rules those that monitors come with.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from ml_platform.bench.monitoring_days import Compared
from ml_platform.monitoring.conformal import followed
from ml_platform.spec.alarms import AlarmBudget, JointRule, Seasons, SharpRule

SEED = 20260202
RUNS, WEEKS = 20, 26
_WARM_UP = 14 + 7 * 9  # days until the first week is judged: enough to compare with, then enough closed weeks
SEASONS, RULE, BUDGET, JOINT_RULE = Seasons(), SharpRule(), AlarmBudget(), JointRule()
PAGES = 0.12  # a week, on the clean year


def warned_weeks(judged: Sequence[Compared], budget: AlarmBudget) -> list[bool]:
    """Whether each judged week warned, of the weeks that were judged whole."""
    weeks: dict[int, list[str]] = {}
    for (watch, verdict), one in zip(followed([(c.day, c.score) for c in judged], budget), judged, strict=True):
        weeks.setdefault((one.day.toordinal() - 1) // 7, []).append(verdict.state)
    return ["warn" in states for states in weeks.values() if "unknown" not in states and len(states) == 7]


def incidents(pages: Iterable[bool]) -> int:
    """How many stretches of days that page."""
    days = list(pages)
    return sum(now and not before for before, now in pairwise([False, *days]))
