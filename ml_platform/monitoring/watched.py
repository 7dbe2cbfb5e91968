"""Judges days of what a drift policy watches, with everything it needs from the lake."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from ml_platform.monitoring.drift import ALL, Together, compared_with, drift, earlier_joint, rows_by_day
from ml_platform.monitoring.profile_table import COLUMNS, table_of
from ml_platform.monitoring.served import PROBABILITY
from ml_platform.monitoring.together import how_far
from ml_platform.spec import DriftPolicy, Verdict
from ml_platform.spec.alarms import Seasons
from ml_platform.stores.delta import PARTITION, Lake

_YEAR = timedelta(days=364)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A day's verdict and what it rests on, in rows of `drift.COLUMNS` with the day."""

    day: date
    verdict: Verdict
    rows: pl.DataFrame


def source_of(policy: DriftPolicy) -> tuple[str, str]:
    """The table whose profiles are compared, as its asset's key."""
    if policy.table:
        return "raw", policy.table
    return ("labels" if policy.of == "labels" else "predictions"), policy.service


def judge_days(lake: Lake, policy: DriftPolicy, days: Sequence[date], results: str) -> list[Judged]:
    """Each of the days (in order) by what was known on it. results: the table that holds what was found before."""
    past = lake.read(results, last=days[0] - timedelta(days=1)) if lake.exists(results) else None
    parts, held = [] if past is None else [past], lake.days(table_of(source_of(policy)))
    found, none = [], pl.DataFrame(schema=dict(COLUMNS))
    for day in days:
        # A history is brought in before there is a service: most of its days hold nothing to be judged.
        read = read_profiles(lake, source_of(policy), day, policy.seasons) if day in held else none
        profiles = _of_policy(read, policy)
        earlier = pl.concat(parts) if parts else None
        together = _together(lake, policy, profiles, day, earlier)
        verdict, rows = drift(profiles, day, policy, earlier, together)
        found.append(Judged(day=day, verdict=verdict, rows=rows.with_columns(pl.lit(day).alias(PARTITION))))
        parts.append(found[-1].rows)
    return found


def read_profiles(lake: Lake, source: Sequence[str], day: date, seasons: Seasons) -> pl.DataFrame:
    """The profiles of a day and of all that it may be compared with."""
    table = table_of(source)
    if not lake.exists(table):
        return pl.DataFrame(schema=dict(COLUMNS))
    around, spans = timedelta(days=seasons.around_days), [(day - timedelta(days=seasons.recent_days), day)]
    spans += [(day - n * _YEAR - around, day - n * _YEAR + around) for n in range(1, seasons.years + 1)]
    return pl.concat(lake.read(table, first=first, last=last) for first, last in _apart(spans))


def _apart(spans: Sequence[tuple[date, date]]) -> list[tuple[date, date]]:
    """The same days, none twice."""
    found: list[tuple[date, date]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + timedelta(days=1):
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def _of_policy(profiles: pl.DataFrame, policy: DriftPolicy) -> pl.DataFrame:
    if policy.table or policy.of == "labels":
        return profiles
    is_answer = pl.col("column") == PROBABILITY
    return profiles.filter(is_answer if policy.of == "predictions" else ~is_answer)


def _together(
    lake: Lake, policy: DriftPolicy, profiles: pl.DataFrame, day: date, past: pl.DataFrame | None
) -> Together | None:
    if policy.joint is None or day.toordinal() % policy.joint_every_days:
        return None
    rows = rows_by_day(profiles)
    if rows.get(day, 0) < policy.min_rows:
        return None
    days = compared_with(rows, day, policy).days
    distances = how_far(lake, policy.service, day, days, policy.joint, ALL)
    within = timedelta(days=policy.seasons.recent_days)
    return Together(distances=distances, earlier=earlier_joint(past, day, within) if past is not None else {})
