"""The prediction log on its way into the lake, day by day; replaced as a whole, so however often it is done it is once.

Files whose records the lake holds are let go after a while, unless a rollout that began before is still open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Literal

import polars as pl

from ml_platform.resources.profiles import Profile
from ml_platform.serving.rollout_files import rollout_file
from ml_platform.spec import Service
from ml_platform.spec.calendar import day_of
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.log_moved import let_go, moved_days
from ml_platform.stores.prediction_log import Reading

Moved = Literal["predictions", "labels"]
# Column whose local day a row belongs to, and the one that says which of doubles came first.
_DAY_BY = {"predictions": "asked_at", "labels": "known_at"}
_FIRST_BY = {"predictions": "answered_at", "labels": "known_at"}


@dataclass(frozen=True)
class Stored:
    """The days' rows as the lake holds them now, and the table's version."""

    rows: pl.DataFrame
    version: int


def store(
    lake: Lake, log: Path, stream: Moved, service: str, reading: Reading, days: Sequence[date], timezone: str
) -> Stored:
    """Replace these days of a log's table by what was read, and what stood there of days whose files were let go."""
    table = f"{stream}/{service}"
    dated = pl.col(_DAY_BY[stream]).dt.convert_time_zone(timezone).dt.date().alias(PARTITION)
    rows = reading.frame.with_columns(dated)
    moved = sorted(moved_days(log, stream, service) & set(days))
    if moved:
        before = lake.read(table, first=moved[0], last=moved[-1]).filter(pl.col(PARTITION).is_in(moved))
        both = pl.concat([before, rows], how="diagonal").sort(_FIRST_BY[stream], maintain_order=True)
        rows = both.unique("prediction_id", keep="first", maintain_order=True)
    return Stored(rows, lake.replace(table, rows, days))


def kept_from(profile: Profile, service: Service, now: datetime, timezone: str) -> date | None:
    """The first local day whose files are kept; None: all are."""
    if service.keep_log is None:
        return None
    first = day_of(now - service.keep_log, timezone)
    rollout = rollout_file(profile, service.name).read()
    return first if rollout is None or rollout.closed else min(first, day_of(rollout.begun, timezone))


def let_go_of_old(lake: Lake, log: Path, service: Service, before: date | None) -> None:
    """The files of days before this one, of answers and truths only as far as the lake holds them."""
    if before is None:
        return

    for stream in _DAY_BY:
        table = f"{stream}/{service.name}"

        def held(day: date, table: str = table) -> set[str]:
            return set(lake.read(table, first=day, last=day)["prediction_id"]) if lake.exists(table) else set()

        let_go(log, stream, service.name, before, held)  # type: ignore[arg-type]  # the two are streams
    let_go(log, "failures", service.name, before, None)
    let_go(log, "shadow", service.name, before, None)
