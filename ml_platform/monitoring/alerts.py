"""Which alerts people are told of: incidents as they stand, without those that an earlier place speaks for."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import date, timedelta

import polars as pl

from ml_platform.spec.alerts import Alert
from ml_platform.spec.calendar import days_between
from ml_platform.spec.incidents import Incident, incidents_of
from ml_platform.stores.delta import PARTITION

Behind = Callable[[str], Collection[str]]


def as_they_stand(rows: pl.DataFrame) -> list[Incident]:
    """Each incident by its newest row, the oldest first.

    rows: days of the table ``incidents/<service>``, ``known_date`` included. What was open and is not told of on the
    newest day has ended: a day that is made anew may find that it never was.
    """
    if rows.is_empty():
        return []
    newest = rows.sort(PARTITION).unique("id", keep="last", maintain_order=True)
    last = rows[PARTITION].max()
    gone = {row["id"] for row in newest.filter(pl.col(PARTITION) < last).select("id").iter_rows(named=True)}
    found = [
        replace(one, closed_on=last) if one.id in gone and one.closed_on is None else one  # type: ignore[arg-type]
        for one in incidents_of(newest)
    ]
    return sorted(found, key=lambda one: (one.opened_on, one.id))


def told(alerts: Iterable[Alert], behind: Behind, today: date) -> list[Alert]:
    """The alerts of which people are told: those that on some day of theirs no other one spoke for.

    One speaks, on its own days, for all data that stand behind its place, an incident also for what else is wrong at
    its place; but a warning never for a page. What ended before anybody looked is told of like what lasts, so that it
    does not matter when somebody looks.
    """
    given = sorted(alerts, key=lambda alert: (alert.began, alert.id))
    data = [(alert, frozenset(behind(alert.place))) for alert in given if alert.signal == "data"]
    return [alert for alert in given if _days(alert, today) - _spoken_for(alert, data, today)]


def _spoken_for(alert: Alert, others: Iterable[tuple[Alert, frozenset[str]]], today: date) -> frozenset[date]:
    if alert.signal != "data":
        return frozenset()
    speaking = (other for other, reach in others if _speaks(other, reach, alert))
    return frozenset[date]().union(*(_days(other, today) for other in speaking))


def _speaks(one: Alert, reach: frozenset[str], other: Alert) -> bool:
    if one.severity == "warn" and other.severity == "page":
        return False
    is_its_sign = one.place == other.place and one.is_incident and not other.is_incident
    return is_its_sign or other.place in reach


def _days(alert: Alert, today: date) -> frozenset[date]:
    """On which it lasted: at least the first one."""
    last = alert.ended - timedelta(days=1) if alert.ended else today
    return frozenset(days_between(alert.began, max(alert.began, last)))
