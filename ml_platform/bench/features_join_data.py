"""What the join is measured on: questions, change logs with late corrections, and a Feast repository for each store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from deltalake import write_deltalake
from numpy.random import Generator

TTL = timedelta(days=30)
FEATURES = ("amount", "share", "count")
QUESTIONS = "questions.parquet"
_YEAR_SECONDS = 365 * 86_400
_START_SECONDS = 1_704_067_200  # 2024 begins
_CORRECTED = 0.02  # share of rows that come again with other values, up to three days later
_SEED = 20130101
_STORES = {
    "ours": "ml_platform.features.feast_offline.DeltaOfflineStore",
    "duckdb": "duckdb",
}


@dataclass(frozen=True)
class View:
    """A feature view's table: rows spread evenly over a year and its keys; ``text`` keys are strings."""

    name: str
    rows: int
    keys: int
    text: bool = False

    @property
    def key(self) -> str:
        """The key's column."""
        return f"{self.name}_id"

    @property
    def references(self) -> list[str]:
        """Its features as Feast names them."""
        return [f"{self.name}:{self.name}_{feature}" for feature in FEATURES]


@dataclass(frozen=True)
class Case:
    """Questions about some views at once."""

    name: str
    questions: int
    views: tuple[View, ...]


_AIRCRAFT, _ROUTE = View("aircraft", 336_000, 4_000), View("route", 336_000, 6_000, text=True)
CASES = {
    case.name: case
    for case in (
        Case("336k x 2", 336_000, (_AIRCRAFT, _ROUTE)),
        Case("3.4M x 3", 3_400_000, (_AIRCRAFT, _ROUTE, View("customer", 3_000_000, 60_000))),
        Case("10M x 2", 10_000_000, (_ROUTE, View("customer", 3_000_000, 60_000))),
        Case("quick", 20_000, (View("aircraft", 20_000, 300), View("route", 20_000, 300, text=True))),
    )
}


def write_case(case: Case, folder: Path) -> None:
    """Questions, tables (Delta, plain parquet, parquet sorted by key and time) and a repository for each store."""
    chance = np.random.default_rng(_SEED)
    folder.mkdir(parents=True)
    asked = {view.key: _keys(chance.integers(0, view.keys, case.questions), view) for view in case.views}
    asked["event_timestamp"] = _moments(chance.integers(0, _YEAR_SECONDS, case.questions))
    pl.DataFrame(asked).with_row_index("row").cast({"row": pl.Int64}).write_parquet(folder / QUESTIONS)
    for view in case.views:
        rows = _rows(view, chance)
        write_deltalake(str(folder / view.name), rows.to_arrow())
        _link_files(folder / view.name, folder / "plain" / view.name)
        (folder / "sorted" / view.name).mkdir(parents=True)
        rows.sort(view.key, "at").write_parquet(folder / "sorted" / view.name / "0.parquet", row_group_size=100_000)


def _rows(view: View, chance: Generator) -> pl.DataFrame:
    corrected = int(view.rows * _CORRECTED)
    first = view.rows - corrected
    seconds = chance.integers(0, _YEAR_SECONDS, first)
    known = seconds + chance.integers(0, 7_200, first)
    again = chance.choice(first, corrected, replace=False)
    late = known[again] + chance.integers(1, 3 * 86_400, corrected)
    numbers = chance.integers(0, view.keys, first)
    values = {
        f"{view.name}_amount": chance.normal(size=view.rows),
        f"{view.name}_share": chance.random(view.rows),
        f"{view.name}_count": chance.integers(0, 1_000, view.rows),
    }
    rows = pl.DataFrame(
        {
            view.key: _keys(np.append(numbers, numbers[again]), view),
            "at": _moments(np.append(seconds, seconds[again])),
            "known_at": _moments(np.append(known, late)),
            **values,
        }
    )
    # Two rows of one moment that became known at the same moment have no newest: every store may choose.
    return rows.unique([view.key, "at", "known_at"], keep="first", maintain_order=True).sort("known_at")


def _keys(numbers: Any, view: View) -> pl.Series:
    if not view.text:
        return pl.Series(numbers)
    names = pl.Series([f"{view.name}-{number:06}" for number in range(view.keys)])
    return names.gather(pl.Series(numbers).cast(pl.UInt32))


def _moments(seconds: Any) -> pl.Series:
    return pl.Series((seconds + _START_SECONDS) * 1_000_000).cast(pl.Datetime("us", "UTC"))


def _link_files(table: Path, folder: Path) -> None:
    """The table's active files alone, for a reader that knows no Delta."""
    folder.mkdir(parents=True)
    for file in table.glob("*.parquet"):
        (folder / file.name).hardlink_to(file)


def open_store(store: str, case: Case, folder: Path, parquet: str = "plain") -> Any:
    """A Feast store over the case's tables with its views registered.

    store: ``ours`` or ``duckdb``; parquet: which of the parquet folders the latter reads.
    """
    from feast import FeatureStore

    repository = folder / f"repository_{store}_{parquet}"
    if not repository.exists():
        repository.mkdir()
        (repository / "feature_store.yaml").write_text(
            f"project: bench\nprovider: local\nregistry: registry.db\nonline_store: null\n"
            f"offline_store: {{type: {_STORES[store]}}}\nentity_key_serialization_version: 3\n"
        )
        FeatureStore(str(repository)).apply(_declared(store, case.views, folder, parquet))
    return FeatureStore(str(repository))


def _declared(store: str, views: Sequence[View], folder: Path, parquet: str) -> list[Any]:
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, Int64, String

    from ml_platform.features.feast_source import DeltaSource

    times: dict[str, Any] = {"timestamp_field": "at", "created_timestamp_column": "known_at"}
    found: list[Any] = []
    for view in views:
        kind = ValueType.STRING if view.text else ValueType.INT64
        entity = Entity(name=view.key, join_keys=[view.key], value_type=kind)
        path = folder / view.name if store == "ours" else folder / parquet / view.name / "*.parquet"
        source = (DeltaSource if store == "ours" else FileSource)(path=str(path), **times)
        names = {f"{view.name}_amount": Float64, f"{view.name}_share": Float64, f"{view.name}_count": Int64}
        schema = [Field(name=view.key, dtype=String if view.text else Int64)]
        schema += [Field(name=name, dtype=dtype) for name, dtype in names.items()]
        found += [entity, FeatureView(name=view.name, entities=[entity], schema=schema, source=source, ttl=TTL)]
    return found
