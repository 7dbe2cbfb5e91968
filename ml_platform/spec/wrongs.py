"""What can be wrong with rows, as pure functions for a ``Fault``: each changes what it names and nothing else."""

from datetime import timedelta

import polars as pl

from ml_platform.spec.faults import Planted, Wrong
from ml_platform.spec.tables import KNOWN_AT

Where = pl.Expr | bool


def value(column: str, becomes: pl.Expr, *, where: Where = True) -> Wrong:
    """The column's value is another one, of the same type, in the rows of ``where``."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        changed = becomes.cast(rows.schema[column], strict=False)
        return rows.with_columns(pl.when(where).then(changed).otherwise(pl.col(column)).alias(column))

    return wrong


def scaled(column: str, factor: float, *, add: float = 0.0, where: Where = True) -> Wrong:
    """Another unit: ``factor`` times the value, and ``add``."""
    return value(column, pl.col(column) * factor + add, where=where)


def stuck(column: str, *, by: str, where: Where = True) -> Wrong:
    """A sensor repeats the first value of the day; each value of the column ``by`` is a sensor of its own."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        first = pl.col(column).sort_by(KNOWN_AT).drop_nulls().first().over(by)
        return rows.with_columns(pl.when(where).then(first).otherwise(pl.col(column)).alias(column))

    return wrong


def renamed(column: str, old: str, new: str) -> Wrong:
    """A code is written otherwise."""
    return value(column, pl.lit(new), where=pl.col(column) == old)


def shifted(*columns: str, by: timedelta) -> Wrong:
    """Clocks go wrong: these times are all earlier or later by as much."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        return rows.with_columns(pl.col(name) + by for name in columns)

    return wrong


def kept(where: pl.Expr) -> Wrong:
    """The other rows are lost."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        return rows.filter(where)

    return wrong


def thinned(share: float) -> Wrong:
    """So many of the rows (0..1), by chance, are lost."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        lot = pl.Series(range(rows.height), dtype=pl.Int64).shuffle(seed=planted.seed + planted.day)
        return rows.filter(lot >= share * rows.height)

    return wrong


def doubled(share: float = 1.0) -> Wrong:
    """So many of the rows (0..1) come twice."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        return pl.concat([rows, rows.sample(fraction=share, seed=planted.seed + planted.day)])

    return wrong


def redelivered(column: str, becomes: pl.Expr, *, after: timedelta) -> Wrong:
    """Each row comes again ``after`` it was known, corrected."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        later = value(column, becomes)(rows, planted).with_columns(pl.col(KNOWN_AT) + after)
        return pl.concat([rows, later])

    return wrong


def dropped(column: str) -> Wrong:
    """The column is no longer given."""
    return lambda rows, planted: rows.drop(column)


def retyped(column: str, dtype: type[pl.DataType]) -> Wrong:
    """The column is given as another type."""
    return lambda rows, planted: rows.with_columns(pl.col(column).cast(dtype))


def permuted(*columns: str) -> Wrong:
    """A join by the wrong key: these columns, together, stand beside another row of the day."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        others = rows.select(columns).sample(fraction=1.0, shuffle=True, seed=planted.seed + planted.day)
        return rows.with_columns(others.get_columns())

    return wrong


def missing(column: str, *, share: float, growing: float = 0.0, becomes: float | None = None) -> Wrong:
    """A share of the values (0..1) is missing, ``growing`` by so much each day; or ``becomes`` a number instead."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        lot = pl.Series(range(rows.height), dtype=pl.Int64).shuffle(seed=planted.seed + planted.day)
        chosen = lot < (share + growing * planted.day) * rows.height
        new = pl.lit(becomes, rows.schema[column])
        return rows.with_columns(pl.when(chosen).then(new).otherwise(pl.col(column)).alias(column))

    return wrong


def together(*wrongs: Wrong) -> Wrong:
    """One after the other."""

    def wrong(rows: pl.DataFrame, planted: Planted) -> pl.DataFrame:
        for each in wrongs:
            rows = each(rows, planted)
        return rows

    return wrong
