"""One look at what stands and what people know of it: what they miss is noted, and what is due is sent."""

from collections.abc import Callable, Iterable
from datetime import date, timedelta

import polars as pl

from ml_platform.monitoring.alerts import Behind, as_they_stand, told
from ml_platform.monitoring.conditions import Condition, alerts, conditions, over
from ml_platform.monitoring.events import events
from ml_platform.monitoring.exporter import of_checks
from ml_platform.monitoring.notify import Told, send_until_nothing_is_due
from ml_platform.monitoring.samples_lake import of_tables, read_incidents
from ml_platform.monitoring.samples_ledger import of_ledger
from ml_platform.resources.profiles import Profile
from ml_platform.spec import Project
from ml_platform.spec.alerts import Alert, of_incident
from ml_platform.spec.behind import behind
from ml_platform.spec.calendar import day_of
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.outbox import Outbox

# What began longer ago and is over cannot be told of any more; nobody was told of anything for that long.
LOOK_BACK = timedelta(days=90)


def tell_people(profile: Profile, project: Project) -> Told | None:
    """Look and send; None where no channel is set up. It may be called at any time, and be killed at any point.

    Raises:
        HomeDamaged, MissingHistory: what stands could not be read, so nothing was noted as begun or as over.
    """
    if not profile.channels.names:
        return None
    lake, ledger = Lake(profile.lake, profile.storage_options), Ledger(profile.ledger_path)
    clock, outbox = Clock(profile.clock_path), Outbox(profile.outbox_path)
    now = clock.now()
    today = day_of(now, project.timezone)
    rows = list(read_incidents(lake, project, today - LOOK_BACK).values())
    checks = of_checks(profile.dagster_home, profile.dagster_storage)
    samples = [*of_tables(lake, project), *checks, *of_ledger(ledger, project)]
    note(
        outbox,
        rows,
        conditions(samples, now),
        events(ledger, project, now),
        lambda place: behind(project, place),
        today,
        profile.channels.names,
    )
    return send_until_nothing_is_due(outbox, profile.channels, profile.pages, clock.wall().timestamp())


def teller(profile: Profile, project: Project) -> Callable[[], str] | None:
    """What a sensor calls: looks, sends, and says what came of it; None where no channel is set up."""

    def tell() -> str:
        found = tell_people(profile, project)
        return found.sentence if found else "no channel is set up"

    return tell if profile.channels.names else None


def note(
    outbox: Outbox,
    incidents: Iterable[pl.DataFrame],
    found: list[Condition],
    happened: list[Alert],
    behind: Behind,
    today: date,
    channels: Iterable[str],
) -> None:
    """Note what people are to be told, by what they were told already.

    incidents: rows of ``incidents/<service>``, a frame for each service. found: conditions that hold now. happened:
    events of late. today: the platform's local day.

    Of the very first look's past nobody is told: only of what lasts.
    """
    frames = [rows for rows in incidents if not rows.is_empty()]
    stands = [of_incident(one) for rows in frames for one in as_they_stand(rows)]
    noted, looked = outbox.noted(), outbox.looked()
    every = [*stands, *alerts(found, noted, today), *([] if looked is None else happened)]
    unknown = [one for one in told(every, behind, today) if one.id not in noted]
    new = [one for one in unknown if one.ended is None or (looked is not None and one.ended > looked)]
    ended = {one.id: one.ended for one in stands if one.ended is not None and _lasts(noted.get(one.id))}
    ended |= dict.fromkeys(over(found, noted), today)
    # By the days of the incidents and not by the clock: a day that is late is looked at when it comes.
    days = [looked or today - timedelta(days=1), *(rows[PARTITION].max() for rows in frames)]
    outbox.note(new, ended, tuple(channels), max(days))  # type: ignore[type-var, arg-type]


def _lasts(alert: Alert | None) -> bool:
    return alert is not None and alert.ended is None
