"""Which row of a fact holds: a later row with the same key supersedes the earlier one, from its own ``known_at`` on.

A row of a source table is one version of the fact that its key names. As of a moment the newest version known by then
holds, alone; each version stands in windows where any row stands: at the later of its time and its ``known_at``. So a
version can only be superseded by rows known later, and no value depends on rows older than the windows reach.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ml_platform.spec import KNOWN_AT, Active, FeatureView

# When the next version of the row's fact became known, unix microseconds: from then on the row does not count.
ENDS = "_ends"


def counts(view: FeatureView) -> pl.Expr:
    """Whether a row (with the derived columns) counts in the view."""
    named = [pl.col(name).is_not_null() for name in view.entity_names]
    return pl.all_horizontal(*named, *([] if view.where is None else [view.where.fill_null(False)]))


def effective(time: str) -> pl.Expr:
    """From when a row counts that has its place at ``time``: nothing counts before it is known."""
    return pl.max_horizontal(time, KNOWN_AT).dt.epoch("us")


def contents(view: FeatureView) -> list[pl.Expr]:
    """What orders versions that became known at the same moment: all that the view makes of them. The greatest holds.

    A contract sets the second one aside, but a stream may bring both, in any order.
    """
    columns = dict.fromkeys(feature.column for feature in view.features if not isinstance(feature, Active))
    found = [counts(view), *map(pl.col, view.entity_names), effective(view.time), *map(pl.col, columns)]
    for feature in view.features:
        if isinstance(feature, Active):
            found += [*map(pl.col, feature.key), effective(feature.opened_at)]
    return found


def corrected(key: Sequence[str], rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of facts that have several versions; a row without a whole key is a fact of its own."""
    if not key or rows.is_empty():
        return rows.clear()
    columns = rows.select(key)
    if _all_differ(columns):
        return rows.clear()
    kept = (columns.to_series() if len(key) == 1 else columns).is_duplicated()
    return rows.filter(kept).drop_nulls(key)


def _all_differ(keys: pl.DataFrame) -> bool:
    """Surely no two alike: what costs little, since most tables hold no correction."""
    first = keys.to_series()
    if keys.width == 1 and first.dtype.is_integer() and not first.has_nulls() and _ascends(first):
        return True
    hashes = np.sort(keys.hash_rows().to_numpy())
    return not (hashes[1:] == hashes[:-1]).any()


def _ascends(numbers: pl.Series) -> bool:
    """Whether each is greater than the one before; chunk by chunk, since putting them together copies them."""
    last = None
    for chunk in numbers.get_chunks():
        some = chunk.to_numpy()
        if last is not None and len(some) and not last < some[0]:
            return False
        if not (some[1:] > some[:-1]).all():
            return False
        last = some[-1] if len(some) else last
    return True


def with_ends(view: FeatureView, rows: pl.DataFrame) -> pl.DataFrame:
    """The view's source rows (derived columns included) with ``ENDS``, if there is a correction among them."""
    place = "_version"
    if not view.key or rows.is_empty() or _all_differ(rows.select(view.key)):
        return rows  # mostly: a number for each row would be made in vain
    several = corrected(view.key, rows.with_row_index(place))
    if several.is_empty():
        return rows
    keys = [pl.col(name).alias(f"_key{n}") for n, name in enumerate(view.key)]
    order = [expression.alias(f"_content{n}") for n, expression in enumerate(contents(view))]
    versions = several.select(place, *keys, KNOWN_AT, *order)
    names = [name for name in versions.columns if name != place]
    next_known = pl.col(KNOWN_AT).dt.epoch("us").shift(-1).over([n for n in names if n.startswith("_key")])
    ends = versions.sort([*names, place]).select(place, next_known.alias(ENDS))
    return rows.with_row_index(place).join(ends, on=place, how="left", maintain_order="left").drop(place)


def newest(view: FeatureView, rows: pl.DataFrame) -> pl.DataFrame:
    """The view's source rows (derived columns included) that no other one among them supersedes."""
    ended = with_ends(view, rows)
    return ended.filter(pl.col(ENDS).is_null()).drop(ENDS) if ENDS in ended.columns else rows


def versions_of(key: Sequence[str], rows: pl.DataFrame, all_rows: pl.DataFrame) -> pl.DataFrame:
    """All versions, among ``all_rows``, of the facts that ``rows`` are versions of: without them some would hold on."""
    return all_rows.join(rows.select(key), on=list(key), how="semi", nulls_equal=True) if key else rows
