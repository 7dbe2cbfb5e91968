"""Two views of one table that share no value column, and a source whose columns can be spoiled for a day and mended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from ml_platform import asset_keys
from ml_platform.automation import ticks
from ml_platform.automation.conditions import each_day
from ml_platform.automation.freshness import with_policies
from ml_platform.automation.instance import open_instance, write_dagster_yaml
from ml_platform.automation.partitions import daily
from ml_platform.features.assets import feature_assets
from ml_platform.sources.assets import source_assets
from ml_platform.spec import KNOWN_AT, Entity, FeatureView, Project, SourceTable, Window
from ml_platform.spec import expectations as gxe
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.online import OnlineStore
from ml_platform.stores.tiles import SqliteTiles

NY = "America/New_York"
TIME = pl.Datetime("us", "UTC")
FIRST, LAST = date(2024, 3, 4), date(2024, 3, 15)  # clocks change on the 10th
RAW = asset_keys.raw("reports")
HEAT, WIND, BELOW_HEAT, BELOW_WIND = (
    asset_keys.features("heat"), asset_keys.features("wind"), asset_keys.model("below_heat"),
    asset_keys.model("below_wind"),
)  # fmt: skip
COLUMNS = {"id": pl.String, "place": pl.String, "temp": pl.Float64, "wind": pl.Float64, "note": pl.String}
HOT = [pl.col("temp") * 10]
D = [FIRST + timedelta(days=n) for n in range(10)]


def clean(day: date) -> pl.DataFrame:
    """Two places, a report every two hours; values that differ from day to day."""
    start = day_start(day, NY)
    rows = [
        (f"{place}{day:%d}{n:02}", place, 50.0 + day.day + n, 5.0 + n, "fine", start + timedelta(hours=2 * n))
        for n in range(11)
        for place in ("a", "b")
    ]
    return pl.DataFrame(rows, {**COLUMNS, KNOWN_AT: TIME}, orient="row")


@dataclass
class Source:
    """What the source says of each day: ``spoiled`` maps a day to what is done to its rows."""

    spoiled: dict[date, "list[pl.Expr] | str"] = field(default_factory=dict)

    def read(self, start: datetime, end: datetime) -> pl.DataFrame:
        days = [self._of(day) for day in days_between(FIRST - timedelta(days=1), LAST + timedelta(days=1))]
        rows = pl.concat(days, how="diagonal_relaxed")
        return rows.filter(pl.col(KNOWN_AT).is_between(start, end, closed="left")).pipe(self._without, start)

    def _of(self, day: date) -> pl.DataFrame:
        change = self.spoiled.get(day, [])
        return clean(day) if isinstance(change, str) else clean(day).with_columns(change)

    def _without(self, rows: pl.DataFrame, start: datetime) -> pl.DataFrame:
        """A column that a day lacks: the source gives days one by one, so its absence is that day's."""
        change = next((c for d, c in self.spoiled.items() if day_start(d, NY) == start), None)
        return rows.drop(change) if isinstance(change, str) else rows


def project(source: Source) -> Project:
    table = SourceTable(
        name="reports", read=source.read, columns={**COLUMNS, KNOWN_AT: TIME}, key=("id",), description="Reports.",
        known_at_source="the report", max_quarantined=0.1, fresh_within=timedelta(hours=26),
        rules=(
            gxe.ExpectColumnValuesToBeBetween(column="temp", min_value=-60, max_value=130, action="stop"),
            gxe.ExpectColumnValuesToBeBetween(column="wind", min_value=0, max_value=100),
            gxe.ExpectColumnValuesToNotBeNull(column="id", action="stop"),
            gxe.ExpectColumnValueRunsToBeAtMost(column="note", longest=999),
        ),
    )  # fmt: skip
    place = Entity(name="place")

    def view(name: str, column: str, hours: int) -> FeatureView:
        window = Window(column, "mean", over=(timedelta(hours=hours),))
        return FeatureView(
            name=name, source="reports", entities=(place,), features=(window,), description=name, key=("id",)
        )

    return Project(
        name="reports", features="nothing", timezone=NY, starts=FIRST, ready_from=FIRST, serves_from=LAST,
        replay_until=LAST, ends=LAST, tables={"reports": table},
        views={"heat": view("heat", "temp", 30), "wind": view("wind", "wind", 6)},
    )  # fmt: skip


@dataclass
class World:
    """Real assets on real stores, driven by ticks."""

    home: Path
    source: Source
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    lake: Lake
    clock: Clock
    cursor: str | None = None

    def midnight_after(self, day: date, hours: float = 0) -> ticks.TickResult:
        return self.tick(day_start(day + timedelta(days=1), NY) + timedelta(minutes=1, hours=hours))

    def tick(self, at: datetime) -> ticks.TickResult:
        self.clock.set(at.astimezone(UTC))
        result = ticks.tick(self.definitions, self.instance, at, self.cursor)
        self.cursor = result.cursor
        return result

    def made(self, key: dg.AssetKey) -> set[str]:
        return self.instance.get_materialized_partitions(key)

    def rows(self, name: str) -> pl.DataFrame:
        frame = self.lake.scan(name).collect()
        return frame.sort(frame.columns)


@contextmanager
def opened(home: Path) -> Iterator[World]:
    write_dagster_yaml(home / "dagster", replayed=True)
    source = Source()
    declared = project(source)
    days = daily(declared)
    lake, clock = Lake(str(home / "lake")), Clock(home / "clock.json")

    def below(key: dg.AssetKey, above: dg.AssetKey) -> dg.AssetsDefinition:
        @dg.asset(key=key, deps=[above], partitions_def=days, automation_condition=each_day())
        def made() -> None: ...

        return made

    resources = {
        "lake": lake, "clock": clock, "forgotten": forgotten_in(home), "tiles": SqliteTiles(home / "live.db"),
        "online": OnlineStore(home / "online.db", "reports"),
    }  # fmt: skip
    features = [asset for asset in feature_assets(declared, days) if asset.key in (HEAT, WIND)]
    assets = [*source_assets(declared, days), *features, below(BELOW_HEAT, HEAT), below(BELOW_WIND, WIND)]
    definitions = with_policies(dg.Definitions(assets=assets, resources=resources))
    with open_instance(home / "dagster") as instance:
        yield World(home, source, definitions, instance, lake, clock)
