"""What a service would have answered by, had its stream been wrong: through the real live windows."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from ml_platform.drills.clean_year import CleanYear
from ml_platform.drills.planting import Plant
from ml_platform.features.live import LiveViews
from ml_platform.features.request_values import RequestPlan
from ml_platform.spec import KNOWN_AT, FeatureView
from ml_platform.spec.features import feature_name
from ml_platform.stores.delta import PARTITION
from ml_platform.stores.tiles_redis import tile_store

_PLANNED = timedelta(days=2)  # a timetable is known a day before what it plans


def served_live(year: CleanYear, plant: Plant, rows: pl.DataFrame) -> pl.DataFrame:
    """The questions with what the live windows give for them after events with the fault; the rest is as it was.

    rows: as in ``CleanYear.asked``, of one day.
    """
    table, spec = plant.fault.table, year.spec
    views = [view for view in year.project.feature_views_of(spec) if view.is_live and table in view.sources]
    if rows.is_empty() or not views:
        return rows
    with TemporaryDirectory() as folder:
        live = LiveViews(views, tile_store(None, Path(folder) / "live", year.project.name))
        for name in dict.fromkeys(source for view in views for source in view.sources):
            live.apply(name, _events(year, plant, name, views, rows))
        values = [live.values(asked, moment) for asked, moment in _questions(views, rows)]
    made = {
        feature_name(view.name, name): [one[place][name] for one in values]
        for place, view in enumerate(views)
        for name in view.schema()
    }
    served = rows.with_columns(pl.Series(name, given, dtype=rows.schema[name]) for name, given in made.items())
    plan = RequestPlan(year.project.views_of(spec))
    return served.with_columns(plan.of_frame(served).get_columns()) if plan.names else served


def _questions(
    views: Iterable[FeatureView], rows: pl.DataFrame
) -> Iterable[tuple[list[tuple[str, tuple[Any, ...]]], datetime]]:
    """What is asked of the windows for each row, and as of when."""
    for row in rows.iter_rows(named=True):
        yield [(view.name, tuple(row[name] for name in view.entity_names)) for view in views], row["as_of"]


def _events(year: CleanYear, plant: Plant, name: str, views: list[FeatureView], rows: pl.DataFrame) -> pl.DataFrame:
    """What the stream brought of a table until the last question, as far back as its windows look."""
    back = max(view.lookback for view in views) + _PLANNED
    first, last = rows["as_of"].min(), rows["as_of"].max()
    held = year.raw[name].filter(pl.col(KNOWN_AT).is_between(first - back, last))  # type: ignore[operator]  # not empty
    if name != plant.fault.table:
        return held.drop(PARTITION)
    parts = held.partition_by(PARTITION, as_dict=True, maintain_order=True)
    return pl.concat(_wrong(plant, day, part.drop(PARTITION)) for (day,), part in parts.items())


def _wrong(plant: Plant, day: date, rows: pl.DataFrame) -> pl.DataFrame:
    return plant.on(rows, day).select(rows.columns)
