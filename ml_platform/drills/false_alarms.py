"""The clean year: every detector on every day on which nothing was wrong."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from ml_platform.drills.clean_year import CleanYear, within
from ml_platform.drills.compared import Profiles
from ml_platform.drills.watch import (
    CONTRACT,
    PERFORMANCE,
    SKEW,
    TRUTHS,
    compared,
    contract,
    noticed,
    skewed,
    truths,
)
from ml_platform.spec import Verdict
from ml_platform.spec.calendar import days_between

# The replay of served values is exact and slow: of a year, some answers of one day a week show whether it alarms.
_SKEW_SHARE, _SKEW_WEEKDAY = 0.02, 2


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A detector alarmed though nothing was wrong; ``where``: which table, policy or service."""

    detector: str
    where: str
    day: date
    reason: str


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """What was looked at. looks: detector -> how many verdicts; set_aside: days x tables on which rows were."""

    first: date
    last: date
    looks: dict[str, int]
    set_aside: int
    alarms: tuple[Alarm, ...]

    @property
    def weeks(self) -> float:
        """How long it lasted."""
        return ((self.last - self.first).days + 1) / 7

    def a_week(self, detector: str) -> float:
        """Alarms in a week."""
        return len(self.of(detector)) / self.weeks

    def of(self, detector: str) -> list[Alarm]:
        """The detector's alarms."""
        return [alarm for alarm in self.alarms if alarm.detector == detector]


def quiet_year(profiles: Profiles, first: date, last: date, track: Callable[[Iterable[date]], Iterable[date]]) -> Quiet:
    """Let every detector look at every day of [first, last]; an alarm is false, as nothing was planted."""
    looks: dict[str, int] = {}
    alarms: list[Alarm] = []
    aside = 0
    for day in track(days_between(first, last)):
        for detector, where, found in _verdicts(profiles, day):
            looks[detector] = looks.get(detector, 0) + 1
            aside += found.state == "warn"
            # Unknown is no pass of a contract, which then stops what follows; of the others it says: too little to say.
            if found.state == "fail" or (detector == CONTRACT and not found.passed):
                alarms.append(Alarm(detector=detector, where=where, day=day, reason=found.reason))
    return Quiet(first=first, last=last, looks=looks, set_aside=aside, alarms=tuple(alarms))


def _verdicts(profiles: Profiles, day: date) -> list[tuple[str, str, Verdict]]:
    year = profiles.year
    tables = year.project.tables
    contracts = [(CONTRACT, table.name, contract(year, table, day).verdict) for table in tables.values()]
    drifts = [(by, policy.name, profiles.clean(policy, by, day).verdict) for by, policy in profiles.policies(tables)]
    skew = [_of_skew(year, day)] if day.weekday() == _SKEW_WEEKDAY else []
    late = TRUTHS, year.service.name, truths(year, year.raw[year.spec.task.label.table], day)
    return [*contracts, *drifts, *skew, late, _of_labels(year, day)]


def _of_skew(year: CleanYear, day: date) -> tuple[str, str, Verdict]:
    frames = within(year.project, year.spec, year.raw, day, day)
    return SKEW, year.service.name, skewed(year, compared(year, year.read(day, day), _SKEW_SHARE), frames)


def _of_labels(year: CleanYear, day: date) -> tuple[str, str, Verdict]:
    trained = year.champion(day)
    return PERFORMANCE, year.service.name, noticed(year, year.answers(trained, day), trained, day)
