"""Rows in the groups that a project declares: those of a report, of the gate, and of what was answered."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import polars as pl

from ml_platform.spec import HAPPENS_AT, Slice

MISSING = "(missing)"


def groups(rows: pl.DataFrame, slices: Mapping[str, Slice], timezone: str) -> pl.DataFrame:
    """A column of group names for each slice; a null has a group of its own."""
    told = [HAPPENS_AT] if HAPPENS_AT in rows.columns else []
    local = rows.with_columns(pl.col(told).dt.convert_time_zone(timezone))
    return local.select(_group(each).alias(name) for name, each in slices.items())


def _group(declared: Slice) -> pl.Expr:
    if not declared.bands:
        return declared.by.cast(pl.String).fill_null(MISSING)
    edges = sorted(declared.bands)
    names = [f"below {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(edges))]
    cases = [pl.when(declared.by < edge).then(pl.lit(name)) for edge, name in zip(edges, names, strict=True)]
    above = pl.when(declared.by >= edges[-1]).then(pl.lit(f"{edges[-1]:g} and more"))
    return pl.coalesce(*cases, above, pl.lit(MISSING))


def in_order(column: pl.Series) -> list[str]:
    """The groups of a slice: numbers by size, bands from the lowest, names by alphabet, what is missing last."""

    def place(group: str) -> tuple[int, float, str]:
        first = group.split(" ")[0]
        if group.startswith("below "):
            return (0, -np.inf, group)
        number = first.removeprefix("-").replace(".", "", 1)
        return (0, float(first), group) if number.isdecimal() else (2 if group == MISSING else 1, 0.0, group)

    return sorted(column.unique().to_list(), key=place)
