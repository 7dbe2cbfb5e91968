"""People are told of each incident once, whenever somebody looks, whatever is killed or cannot be reached meanwhile."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.monitoring import conditions
from ml_platform.monitoring.alerts import as_they_stand
from ml_platform.monitoring.notify import send_until_nothing_is_due
from ml_platform.monitoring.samples import Sample, sample
from ml_platform.monitoring.telling import note, tell_people
from ml_platform.resources.projects import load_project
from ml_platform.spec import NotDelivered
from ml_platform.spec.incidents import Incident, incident_rows
from ml_platform.stores.channels import Channels
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import PARTITION
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.ledger_kinds import ROLLBACK
from ml_platform.stores.outbox import LONGEST_WAIT, Outbox
from ml_platform.stores.pages import Pages
from ml_platform_tests.alert_world import PROJECT, Planted, Profile, incident
from ml_platform_tests.receivers import receivers

FIRST = date(2024, 3, 1)
LAST = 8  # days
MEMORY = Path("/dev/shm")  # each message is synced to the disk; here that says nothing
PAGES = Pages(mlflow="http://m", dagster="http://d")
BEHIND = {"raw/a.x": ("features/v.f", "raw/b.y"), "features/v.f": ()}


class Killed(BaseException):
    """The process is gone."""


@dataclass(frozen=True)
class Recorded(Channels):
    """Takes messages as a webhook does, or is away, or the process is killed before or after it took one."""

    taken: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)

    def post(self, body: Any, key: str) -> None:
        self._take(str(body["attachments"][0]["title"]))

    def mail(self, mail: EmailMessage) -> tuple[str, ...]:
        self._take(f"mail {mail['Subject']}")
        return ()

    def _take(self, title: str) -> None:
        what = self.plan.pop(0) if self.plan else "takes"
        if what == "away":
            raise NotDelivered("away")
        if what == "killed before":
            raise Killed
        self.taken.append(title)
        if what == "killed after":
            raise Killed


def rows_on(day: date, incidents: Sequence[Incident]) -> pl.DataFrame:
    """The day's partition, as the platform writes it."""
    shown = [
        replace(one, closed_on=one.closed_on if one.closed_on == day else None)
        for one in incidents
        if one.opened_on <= day and (one.closed_on is None or one.closed_on >= day)
    ]
    return incident_rows(shown).with_columns(pl.lit(day).alias(PARTITION))


@st.composite
def histories(draw: st.DrawFn) -> list[Incident]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["raw/a.x", "raw/b.y", "features/v.f"]),
                st.integers(0, LAST - 1),
                st.integers(1, LAST),
                st.sampled_from(["page", "warn"]),
            ),
            max_size=5,
        )
    )
    numbers = count()
    made = []
    for place, begins, lasts, severity in drawn:
        closed = FIRST + timedelta(days=begins + lasts) if begins + lasts < LAST else None
        opened = FIRST + timedelta(days=begins)
        made.append(incident(place, opened, id=f"i{next(numbers)}", severity=severity, closed_on=closed, kind="drift"))
    return made


def spoken_for(one: Incident, day: date, history: Sequence[Incident]) -> bool:
    """By brute force: another one, open on that day, stands before it and is no warning for a page."""
    return any(
        one.cause in BEHIND.get(other.cause, ())
        and not (other.severity == "warn" and one.severity == "page")
        and other.opened_on <= day
        and (other.closed_on is None or other.closed_on > day)
        for other in history
    )


def days_of(one: Incident, today: date) -> list[date]:
    last = one.closed_on - timedelta(days=1) if one.closed_on else today
    return [one.opened_on + timedelta(days=n) for n in range((last - one.opened_on).days + 1)]


@settings(max_examples=120, deadline=None)
@given(
    histories(),
    st.sets(st.integers(0, LAST - 1)),
    st.lists(st.sampled_from(["takes", "takes", "away", "killed before", "killed after"]), max_size=25),
)
def test_each_is_told_once_whatever_happens_between(history: list[Incident], looks: set[int], plan: list[str]) -> None:
    """Looks on some days, each of which may be killed; on the last day until all is said."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        outbox, channels = Outbox(Path(folder) / "alerts.db"), Recorded(webhook="http://x", plan=[*plan])
        kills = Counter(plan)["killed after"]
        wall, seen = 0.0, [FIRST + timedelta(days=n) for n in sorted(looks | {LAST - 1})]
        for day in seen:
            rows = pl.concat(rows_on(FIRST + timedelta(days=n), history) for n in range((day - FIRST).days + 1))
            for _ in range(len(plan) + 2 if day == seen[-1] else 1):
                wall += LONGEST_WAIT
                try:
                    note(outbox, [rows], [], [], lambda place: BEHIND.get(place, ()), day, ["webhook"])
                    send_until_nothing_is_due(outbox, channels, PAGES, wall)
                except Killed:
                    pass
        told = told_by_then(history, seen)
        ended = {one.id for one in history if one.id in told and one.closed_on and one.closed_on <= seen[-1]}
        expected = Counter({("opened", one): 1 for one in told} | {("ended", one): 1 for one in ended})
        found = Counter((kept.part, kept.alert) for kept in outbox.messages())
        assert found == expected
        assert all(kept.taken is not None for kept in outbox.messages())
        extra = len(channels.taken) - len(expected)
        assert 0 <= extra <= kills  # a kill between taking and noting: once more, and never less


def told_by_then(history: Sequence[Incident], looks: Sequence[date]) -> set[str]:
    """Nobody is told of what had ended when somebody first looked, nor of what was always spoken for."""
    last = looks[-1]
    begun = [one for one in history if one.opened_on <= last]
    stands = [one if one.closed_on is None or one.closed_on <= last else replace(one, closed_on=None) for one in begun]
    lasted = (one for one in stands if one.closed_on is None or one.closed_on > looks[0])
    return {one.id for one in lasted if not all(spoken_for(one, day, stands) for day in days_of(one, last))}


def test_an_incident_that_a_day_made_anew_knows_nothing_of_is_over() -> None:
    one, other = incident("raw/a.x", FIRST), incident("raw/b.y", FIRST)
    rows = pl.concat([rows_on(FIRST, [one, other]), rows_on(FIRST + timedelta(days=1), [other])])
    stands = {found.id: found.closed_on for found in as_they_stand(rows)}
    assert stands == {one.id: FIRST + timedelta(days=1), other.id: None}
    assert as_they_stand(rows.clear()) == []


# Beside incidents


NOW = datetime(2024, 3, 5, 6, tzinfo=UTC)


def standing(age_hours: float, *, check: str = "pass", waits_hours: float = 0.0) -> list[Sample]:
    return [
        sample("table_newest_timestamp_seconds", NOW.timestamp() - age_hours * 3600, asset="raw/weather"),
        sample("table_fresh_within_seconds", 26 * 3600, asset="raw/weather"),
        *(
            sample("check_state", state == check, asset="services/delay", check="ledger_intact", state=state)
            for state in ("pass", "fail")
        ),
        sample("check_state", 1, asset="raw/weather", check="contract", state="fail"),
        sample(
            "retraining_wanted_timestamp_seconds",
            NOW.timestamp() - waits_hours * 3600 if waits_hours else 0.0,
            policy="delay",
            model="m",
        ),
    ]


def test_conditions_hold_from_their_limit_on() -> None:
    assert conditions.conditions(standing(26), NOW) == []
    stale, failing, waits = conditions.conditions(standing(26.1, check="fail", waits_hours=49), NOW)
    assert (stale.place, stale.severity, failing.place, waits.place) == (
        "raw/weather",
        "page",
        "services/delay",
        "retrain/delay",
    )
    assert "26 hours ago; 26 are allowed" in stale.sentence
    assert waits.signal == "operation"
    person = [
        sample("reviews_open", 1, policy="delay", model="m"),
        sample("decision_held", 1, policy="delay", model="m", by="breaker"),
        sample("decision_held", 1, policy="delay", model="m", by="cooldown"),
    ]
    assert [one.name for one in conditions.conditions(person, NOW)] == ["drift waits for a word", "retraining stopped"]
    assert conditions.conditions([sample("reviews_open", 0, policy="delay", model="m")], NOW) == []
    assert conditions.conditions(standing(1, waits_hours=48), NOW) == []


def test_a_condition_that_lasts_is_one_alert_and_one_that_returns_is_another(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "alerts.db")
    for day, hours in enumerate([1, 30, 54, 1, 30, 30]):
        found = conditions.conditions(standing(hours), NOW)
        note(outbox, [], found, [], lambda place: (), FIRST + timedelta(days=day), ["mail"])
    noted = {one: alert.ended for one, alert in outbox.noted().items()}
    assert noted == {"stale/raw/weather@2024-03-02": date(2024, 3, 4), "stale/raw/weather@2024-03-05": None}


def test_an_incident_speaks_for_the_same_place_and_for_what_is_behind(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "alerts.db")
    feed = incident("raw/weather", FIRST, kind="feed")
    note(
        outbox,
        [rows_on(FIRST, [feed])],
        conditions.conditions(standing(40), NOW),
        [],
        lambda place: (),
        FIRST,
        ["mail"],
    )
    assert list(outbox.noted()) == [feed.id]


# Everything together


def test_a_state_folder_s_incidents_and_events_reach_real_receivers(tmp_path: Path) -> None:
    with receivers() as (webhook, mail):
        channels = Channels(
            webhook=webhook.url,
            smtp=f"smtp://127.0.0.1:{mail.port}",
            sender="p@example.com",
            receivers=("a@example.com",),
        )
        profile = replace(Profile.at(tmp_path, project=PROJECT), channels=channels)
        project, clock = load_project(PROJECT), Clock(profile.clock_path)
        planted = Planted(profile, date(2013, 4, 1))
        clock.set(datetime(2013, 4, 2, 5, tzinfo=UTC))
        assert tell_people(replace(profile, channels=Channels()), project) is None
        assert not profile.outbox_path.exists()
        found = tell_people(profile, project)
        assert found is not None
        assert found.sentence == "0 messages were taken, 0 wait"

        cause, symptom = (
            incident("raw/weather.temp", planted.day),
            incident("features/weather_now.temp_last_6h", planted.day),
        )
        planted.plant(cause, symptom)
        body = {"version": "1", "before": "2", "reason": "it was worse"}
        Ledger(profile.ledger_path).write(ROLLBACK, "delay_lightgbm", "x", clock.now(), body)
        tell_people(profile, project)
        titles = ["[page] contract: raw/weather.temp", "[warn] version rolled back: models/delay_lightgbm"]
        assert sorted(webhook.titles.elements()) == sorted(mail.subjects.elements()) == titles
        planted.end(cause, symptom)
        clock.set(datetime(2013, 4, 3, 5, tzinfo=UTC))
        tell_people(profile, project)
        tell_people(profile, project)
        assert sorted(webhook.titles.elements()) == ["[ended] contract: raw/weather.temp", *titles]


def test_what_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    profile = replace(Profile.at(tmp_path, project=PROJECT), channels=Recorded(webhook="http://x"))
    planted = Planted(profile, datetime.now(UTC).date())
    planted.plant(incident("raw/weather.temp", planted.day))
    tell_people(profile, load_project(PROJECT))
    for file in (tmp_path / "lake" / "incidents" / "delay").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(Exception, match="cannot be read any more"):
        tell_people(profile, load_project(PROJECT))
    assert [alert.ended for alert in Outbox(profile.outbox_path).noted().values()] == [None]
