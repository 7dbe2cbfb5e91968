"""What a contract asks of a day as a whole beyond Great Expectations' vocabulary: as many rows as usual, and fresh."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ClassVar

import polars as pl

from ml_platform.spec.expectations.base import PART, Around, BatchExpectation, Observed, Schema

_KNOWN_AT = "known_at"
_WEEK = 7
_NEWEST, _ROWS = "newest", "rows"


@dataclass(frozen=True, kw_only=True)
class _ByGroup(BatchExpectation):
    """by: columns of the groups that are looked at apart; one that the days before had and this one lacks fails."""

    by: Sequence[str] = ()

    own: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The groups."""
        return tuple(self.by)

    def measured(self, schema: Schema) -> pl.Expr:
        """All rows; the groups are in the summary."""
        return pl.len()

    def told(self, row: dict[str, Any], what: str) -> str:
        """What is to be said of a group."""
        return ": ".join([*([", ".join(str(row[name]) for name in self.by)] if self.by else []), what])


@dataclass(frozen=True, kw_only=True)
class ExpectTableRowCountToBeUsual(_ByGroup):
    """As many rows as on the same weekdays before: their median times a ratio between both bounds.

    weeks: how many of them count. least: with fewer nothing is said.
    """

    min_ratio: float
    max_ratio: float
    weeks: int = 4
    least: int = 2

    def check(self) -> None:
        """The usual itself is right."""
        if not 0 <= self.min_ratio <= 1 <= self.max_ratio:
            self.refuse("min_ratio is at most 1 and max_ratio at least 1")

    def default_name(self) -> str:
        """With the groups."""
        return "_by_".join(["row_count_usual", *(["_".join(self.by)] if self.by else [])])

    @property
    def looks_back_days(self) -> int:
        """The weeks."""
        return self.weeks * _WEEK

    def summary(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of each part and group."""
        return rows.group_by(PART, *self.by).agg(pl.len().alias(_ROWS))

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed | None:
        """Whether every group has as many; nothing while there are too few such weekdays."""
        counts = around.summaries[self.name]
        if not isinstance(part, date):
            return None
        past = [part - timedelta(weeks=n) for n in range(1, self.weeks + 1)]
        held = counts.filter(pl.col(PART).is_in(past))
        days = held[PART].n_unique()
        if days < self.least:
            return None
        keys = list(self.by)
        today = counts.filter(pl.col(PART) == part).select(*keys, pl.col(_ROWS).alias("found"))
        if keys:  # a group that a day lacks had no rows on it
            usual = held.group_by(keys).agg(pl.col(_ROWS).extend_constant(0, days - pl.len()).median().alias("usual"))
            both = usual.join(today, on=keys, how="left").with_columns(pl.col("found").fill_null(0)).sort(keys)
        else:
            both = today.with_columns(usual=pl.lit(held[_ROWS].median()))
        ratio = pl.col("found") / pl.col("usual")
        odd = both.filter((pl.col("usual") > 0) & ~ratio.is_between(self.min_ratio, self.max_ratio))
        told = [self.told(row, f"{row['found']} instead of {row['usual']:g}") for row in odd.to_dicts()]
        return Observed(success=odd.is_empty(), value=value, details={"unusual": told} if told else {})


@dataclass(frozen=True, kw_only=True)
class ExpectTableToBeFresh(_ByGroup):
    """When a day is over, its newest row is not older than ``within``: a feed that stopped during the day is not.

    time: the column that says how new a row is.
    """

    within: timedelta
    time: str = _KNOWN_AT

    def default_name(self) -> str:
        """With the groups."""
        return "_by_".join(["fresh", *(["_".join(self.by)] if self.by else [])])

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column is too old, which none names."""
        return ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The groups and the time."""
        return (*self.by, self.time)

    @property
    def looks_back_days(self) -> int:
        """Who else there is to hear from."""
        return _WEEK if self.by else 0

    def summary(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Newest row of each part and group."""
        return rows.group_by(PART, *self.by).agg(pl.col(self.time).max().alias(_NEWEST))

    def judge(self, value: Any, schema: Schema, around: Around, part: Any) -> Observed | None:
        """Whether every group's is new enough."""
        if part not in around.ends:
            return None
        found, end = around.summaries[self.name], around.ends[part]
        if self.by:  # whoever was heard of before and is not today
            known = found.filter(pl.col(PART) <= part).select(self.by).unique()
            found = known.join(found.filter(pl.col(PART) == part), on=list(self.by), how="left").sort(self.by)
        else:
            found = found.filter(pl.col(PART) == part)
        old = found.filter((pl.col(_NEWEST) < end - self.within).fill_null(True))
        told = [self.told(row, f"newest {row[_NEWEST]}") for row in old.to_dicts()]
        newest = found[_NEWEST].max()
        good = old.is_empty() and newest is not None
        return Observed(success=good, value=str(newest), details={"old": told} if told else {})
