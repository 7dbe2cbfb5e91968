"""What the tables tell as numbers: ages, drift, loss on late labels, incidents."""

from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import polars as pl

from ml_platform.monitoring.alerts import as_they_stand
from ml_platform.monitoring.performance import COHORT, FOLLOWED_FOR, newest
from ml_platform.monitoring.samples import Sample, sample
from ml_platform.spec import Project
from ml_platform.spec.calendar import day_start
from ml_platform.spec.incidents import Incident
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import without_examples
from ml_platform.stores.pages import Pages

DAILY = timedelta(hours=26)  # within which a daily table follows its day's end, as its asset declares
LOSS_DAYS = 7
MOST_AGE_DAYS = 5  # of labels; older cohorts hardly change
_ENDED_DAYS = 14  # an incident that is over is told of as such for so long
_SEVERITIES = ("page", "warn")


def of_tables(lake: Lake, project: Project) -> Iterator[Sample]:
    """How old the newest day of each daily table is, and may be; tables that were never written are left out."""
    for asset, allowed in deadlines(project).items():
        days = lake.days(asset)
        if days:
            ends = day_start(max(days) + timedelta(days=1), project.timezone)
            yield sample("table_newest_timestamp_seconds", ends.timestamp(), asset=asset)
            yield sample("table_fresh_within_seconds", allowed.total_seconds(), asset=asset)


def deadlines(project: Project) -> dict[str, timedelta]:
    """Asset -> how old its newest day may be, of all tables that get a new day each midnight."""
    found = {f"raw/{table.name}": table.fresh_within or DAILY for table in project.tables.values() if table.partitioned}
    found |= {f"features/{view}": DAILY for view in project.views}
    for service in project.services:
        found |= {f"{family}/{service}": DAILY for family in ("predictions", "labels", "performance")}
    return found


def of_drift(lake: Lake, project: Project) -> Iterator[Sample]:
    """Each feature's distance on the newest day that was judged, of its values or of its missing values."""
    for policy in project.drift_policies:
        table = f"drift/{policy}"
        days = lake.days(table)
        if not days:
            continue
        rows = lake.read(table, first=max(days))
        for row in rows.filter(pl.col("distance").is_finite()).iter_rows(named=True):
            labels = {"policy": policy, "feature": row["feature"], "of": row["of"]}
            yield sample("drift_distance", row["distance"], **labels)
            if row["threshold"] is not None:
                yield sample("drift_threshold", row["threshold"], **labels)


def of_performance(lake: Lake, project: Project) -> Iterator[Sample]:
    """Loss by version, and how many of the truths have arrived."""
    for service in project.services:
        table = f"performance/{service}"
        days = lake.days(table)
        if days:
            first = max(days) - FOLLOWED_FOR
            yield from _of_cohorts(newest(lake.read(table, first=first)), service, max(days))


def _of_cohorts(cohorts: pl.DataFrame, service: str, today: date) -> Iterator[Sample]:
    """cohorts: each as last looked at. today: the newest day that was judged."""
    recent = cohorts.filter(pl.col(COHORT) > today - timedelta(days=LOSS_DAYS))
    sums = recent.group_by("model_version").agg(pl.col("loss_sum", "labelled").sum()).filter(pl.col("labelled") > 0)
    for version, loss, labelled in sums.sort("model_version").iter_rows():
        yield sample("log_loss", loss / labelled, service=service, version=str(version))
    ages = cohorts.with_columns(age=(pl.lit(today) - pl.col(COHORT)).dt.total_days())
    counts = ages.group_by("age").agg(pl.col("resolved", "answered").sum()).sort("age")
    for age, resolved, answered in counts.iter_rows():
        if age <= MOST_AGE_DAYS and answered:
            yield sample("label_maturity", resolved / answered, service=service, age_days=str(age))
        if age == 0:
            yield sample("day_answers", answered, service=service)


def read_incidents(lake: Lake, project: Project, first: date | None = None) -> dict[str, pl.DataFrame]:
    """Service -> rows of its incidents from the day ``first`` on; services that never had any are left out."""
    tables = {service: f"incidents/{service}" for service in project.services}
    return {service: lake.read(table, first=first) for service, table in tables.items() if lake.exists(table)}


def of_incidents(lake: Lake, project: Project, pages: Pages, now: datetime) -> Iterator[Sample]:
    """Those that last, those that are over since a short time, and how many there were."""
    since = day_start(now.date() - timedelta(days=_ENDED_DAYS), project.timezone).date()
    for service, rows in read_incidents(lake, project).items():
        found = as_they_stand(rows)
        counts = Counter((one.kind, one.severity) for one in found)
        for (kind, severity), count in sorted(counts.items()):
            yield sample("incidents", count, service=service, kind=kind, severity=severity)
        for one in found:
            if one.closed_on is None or one.closed_on >= since:
                yield from _of_incident(one, project.timezone, pages)


def _of_incident(one: Incident, timezone: str, pages: Pages) -> Iterator[Sample]:
    """A severity that it does not have (any more) is told of with 0, so that an alert on it ends."""
    labels = {"service": one.service, "kind": one.kind, "asset": one.asset, "place": one.cause}
    for severity in _SEVERITIES:
        lasts = one.closed_on is None and one.severity == severity
        yield sample("incident_open", float(lasts), incident=one.id, **labels, severity=severity)
    seen = day_start(one.last_seen + timedelta(days=1), timezone).timestamp()
    sentence, link = without_examples(one.sentence), pages.dagster_asset(one.asset)
    yield sample("incident_told", seen, incident=one.id, sentence=sentence, link=link)
