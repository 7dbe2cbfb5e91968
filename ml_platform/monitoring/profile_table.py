"""Profiles at rest: a Delta table ``profiles/<family>/<name>`` for each table, one row a column, partitioned by day.

A row holds its column's bins beside its counts, so any set of days can be read and added up by itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.monitoring.profile import ColumnProfile, Floats, Ints, Layout
from ml_platform.stores.delta import PARTITION

COLUMNS: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "column": pl.String,
    "kind": pl.String,
    "version": pl.Int64,
    "learned_days": pl.Int64,
    "rows": pl.Int64,
    "missing": pl.Int64,
    "below": pl.Int64,
    "above": pl.Int64,
    "zeros": pl.Int64,
    "minimum": pl.Float64,
    "maximum": pl.Float64,
    "mean": pl.Float64,
    "m2": pl.Float64,
    "counts": pl.List(pl.Int64),
    "edges": pl.List(pl.Float64),
    "categories": pl.List(pl.Int64),
    PARTITION: pl.Date,
}
_MOMENTS = {"zeros": 0, "minimum": np.inf, "maximum": -np.inf, "mean": 0.0, "m2": 0.0}  # and what null means
_NUMBERS = ("rows", "missing", "below", "above", "zeros", "minimum", "maximum", "mean", "m2")


def table_of(asset: Sequence[str]) -> str:
    """The lake's name of the profiles of an asset's table: ``("raw", "weather")`` -> ``profiles/raw/weather``."""
    return "/".join(["profiles", *asset])


def to_rows(profiles: Iterable[ColumnProfile], day: date) -> pl.DataFrame:
    """A row each; least and greatest value are null where there is no finite number."""
    rows = [_row(found, day) for found in profiles]
    return pl.DataFrame(rows, schema=dict(COLUMNS))


def _row(found: ColumnProfile, day: date) -> dict[str, object]:
    layout = found.layout
    own = {name: getattr(found, name) for name in _NUMBERS}
    if found.minimum > found.maximum:
        own |= {"minimum": None, "maximum": None}
    return {
        "column": layout.column,
        "kind": layout.kind,
        "version": layout.version,
        "learned_days": layout.learned_days,
        **own,
        "counts": found.counts.tolist(),
        "edges": layout.edges.tolist(),
        "categories": layout.categories.tolist(),
        PARTITION: day,
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """A column's profiles of several days, counted in the same bins, in the order of the days: a row of ``counts`` and
    an entry of each other array a day. ``days``: datetime64[D]."""

    layout: Layout
    days: NDArray[np.datetime64]
    counts: Ints
    rest: Ints  # infinities below, above, missing values
    rows: Ints
    moments: Floats  # zeros, minimum, maximum, mean, m2

    def on(self, days: Iterable[date]) -> "History":
        """The same of these days alone."""
        return self._where(np.isin(self.days, np.array(list(days), dtype="datetime64[D]")))

    def between(self, first: date, last: date) -> "History":
        """The same of the days in [first, last]."""
        return self._where((self.days >= np.datetime64(first)) & (self.days <= np.datetime64(last)))

    def _where(self, kept: NDArray[np.bool_]) -> "History":
        return History(
            layout=self.layout,
            days=self.days[kept],
            counts=self.counts[kept],
            rest=self.rest[kept],
            rows=self.rows[kept],
            moments=self.moments[kept],
        )

    def profiles(self) -> Iterator[ColumnProfile]:
        """One a day."""
        for place in range(len(self.days)):
            below, above, missing = (int(n) for n in self.rest[place])
            zeros, minimum, maximum, mean, m2 = (float(value) for value in self.moments[place])
            yield ColumnProfile(
                layout=self.layout,
                rows=int(self.rows[place]),
                missing=missing,
                counts=self.counts[place],
                below=below,
                above=above,
                zeros=int(zeros),
                minimum=minimum,
                maximum=maximum,
                mean=mean,
                m2=m2,
            )

    def total(self) -> ColumnProfile:
        """The profile of all its days together, as `merge` gives it."""
        finite = self.counts.sum(axis=1)
        zeros, minimum, maximum, mean, m2 = self.moments.T
        held = int(finite.sum())
        with np.errstate(over="ignore", invalid="ignore"):  # values near the greatest number have no finite square
            centre = float(finite @ mean / held) if held else 0.0
            spread = float(m2.sum() + finite @ (mean - centre) ** 2) if held else 0.0
        below, above, missing = (int(n) for n in self.rest.sum(axis=0))
        return ColumnProfile(
            layout=self.layout,
            rows=int(self.rows.sum()),
            missing=missing,
            counts=self.counts.sum(axis=0),
            below=below,
            above=above,
            zeros=int(zeros.sum()),
            minimum=float(minimum.min(initial=np.inf)),
            maximum=float(maximum.max(initial=-np.inf)),
            mean=centre,
            m2=spread,
        )

    def full(self) -> Floats:
        """Counts by day, with what lies in no bin behind them, as `distances.with_rest` orders it."""
        return np.concatenate([self.counts, self.rest], axis=1).astype(np.float64)


def histories(rows: pl.DataFrame) -> dict[str, History]:
    """Column -> its profiles by day, in the bins of the newest day that has any: days counted in others are left out.

    rows: of one table, as ``to_rows`` makes them.
    """
    kept = _in_newest_bins(rows)
    if kept.is_empty():
        return {}
    columns, starts = kept["column"], kept["column"].rle_id().unique_counts().cum_sum()
    counts = kept["counts"].explode(empty_as_null=False, keep_nulls=False).to_numpy()
    bins = np.concatenate([[0], kept["counts"].list.len().cum_sum().to_numpy()])
    days, per_day = kept[PARTITION].to_numpy().astype("datetime64[D]"), kept["rows"].to_numpy()
    rest = kept.select("below", "above", "missing").to_numpy()
    moments = kept.select(pl.col(name).fill_null(null).cast(pl.Float64) for name, null in _MOMENTS.items()).to_numpy()
    found, first = {}, 0
    for last in starts.to_list():
        layout, part = layout_of(kept.row(last - 1, named=True)), slice(first, last)
        found[str(columns[first])] = History(
            layout=layout,
            days=days[part],
            counts=counts[bins[first] : bins[last]].reshape(last - first, layout.bins),
            rest=rest[part],
            rows=per_day[part],
            moments=moments[part],
        )
        first = last
    return found


def _in_newest_bins(rows: pl.DataFrame) -> pl.DataFrame:
    """By column and day; the versions alone would do but for two writers who learned at once."""
    ordered = rows.sort("column", PARTITION)
    if ordered.select(pl.struct("version", "learned_days").n_unique()).item() == 1:
        return ordered
    bins = ("version", "edges", "categories")
    return ordered.filter(pl.all_horizontal(pl.col(name) == pl.col(name).last().over("column") for name in bins))


def layout_of(row: Mapping[str, object]) -> Layout:
    """The bins that a row was counted in."""
    return Layout(
        column=str(row["column"]),
        kind=row["kind"],  # type: ignore[arg-type]
        edges=np.array(row["edges"], dtype=np.float64),
        categories=np.array(row["categories"], dtype=np.int64),
        version=int(row["version"]),  # type: ignore[call-overload]
        learned_days=int(row["learned_days"]),  # type: ignore[call-overload]
    )


def newest_layouts(rows: pl.DataFrame) -> list[Layout]:
    """The bins of the newest day, in the order of its rows; none where there are no rows."""
    if rows.is_empty():
        return []
    last = rows.filter(pl.col(PARTITION) == pl.col(PARTITION).max())
    return [layout_of(row) for row in last.iter_rows(named=True)]
