"""Values of a declaration as a column holds them: a suite file writes times as texts, and every number in one way."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import polars as pl


def members(values: Sequence[Any], dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
    """The values that a column of this type can hold, as it holds them; one that no row can equal is left out."""
    kept = [found for value in values if (found := _as_held(value, dtype)) is not None]
    return pl.Series(kept, dtype=dtype, strict=False)


def _as_held(value: Any, dtype: pl.DataType | type[pl.DataType]) -> Any:
    if dtype.is_temporal():
        return _time(value, dtype)
    if dtype == pl.Boolean:
        return bool(value) if value in (0, 1) else None
    if dtype.is_numeric():
        return _number(value, dtype.is_integer())
    return value if isinstance(value, str) or not dtype.is_(pl.String) else None


def _number(value: Any, whole: bool) -> Any:
    if not isinstance(value, int | float) or value != value:
        return None
    if not whole:
        return float(value)
    return int(value) if float(value).is_integer() else None


def _time(value: Any, dtype: Any) -> Any:
    if isinstance(value, str):
        value = datetime.fromisoformat(value) if len(value) > len("2024-01-01") else date.fromisoformat(value)
    if dtype == pl.Date:
        return value.date() if isinstance(value, datetime) else value
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
    zone = getattr(dtype, "time_zone", None)
    if zone is None:
        return moment.replace(tzinfo=None)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
