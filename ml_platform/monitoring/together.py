"""Do the features that were served on a day belong together as on the days that it is compared with?"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from ml_platform.monitoring.joins import join_distances
from ml_platform.monitoring.served import served_features
from ml_platform.monitoring.two_sample import Floats, joint_distance, two_sample_auc
from ml_platform.spec import JointRule
from ml_platform.stores.delta import Lake

_MOST_DAYS = 14  # of twelve weeks every sixth one, so all weekdays are among them


def how_far(lake: Lake, service: str, day: date, days: Sequence[date], rule: JointRule, whole: str) -> dict[str, float]:
    """How far the rows are from what they were, 0 (as usual) to 1; nothing where there is too little to say.

    Where features of several views are served, for each view how much less it hangs together with the others: what is
    looked for are rows joined wrongly. Else any difference, of ``whole``.
    """
    chosen = spread(days)
    most = most_of_each(chosen, rule)
    parts = [_sample(lake, service, one, most) for one in chosen]
    return apart(_sample(lake, service, day, rule.rows), parts, rule, day, whole)


def most_of_each(days: Sequence[date], rule: JointRule) -> int:
    """How many rows of each reference day are looked at: half of the days to learn from, half to judge."""
    return -(-4 * rule.rows // max(1, len(days)))


def apart(
    current: pl.DataFrame, reference_days: Sequence[pl.DataFrame], rule: JointRule, day: date, whole: str
) -> dict[str, float]:
    """``how_far`` of rows in memory: served features, of the day and of each day that it is compared with."""
    names = current.columns
    # Of days on which a model version answered that was given other features there is nothing to compare.
    parts = [part for part in reference_days if {*names} <= {*part.columns}]
    if not parts or not names:
        return {}
    reference = np.concatenate([_matrix(part, names) for part in parts])
    of_day = np.repeat(np.arange(len(parts)), [part.height for part in parts])
    views, seed = views_of(names), day.toordinal()
    if len(views) > 1:
        far = join_distances(_matrix(current, names), reference, of_day, list(views.values()), rule, seed)
        return {} if far is None else dict(zip(views, far.tolist(), strict=True))
    auc = two_sample_auc(_matrix(current, names), reference, rule, seed)
    return {} if auc is None else {whole: joint_distance(auc)}


def views_of(names: Sequence[str]) -> dict[str, list[int]]:
    """View -> the places of its features (``view__feature``)."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name.partition("__")[0], []).append(place)
    return found


def spread(days: Sequence[date]) -> list[date]:
    """So many of them as can be read in a tenth of a second, evenly spread."""
    places = np.unique(np.linspace(0, len(days) - 1, min(_MOST_DAYS, len(days))).astype(np.int64))
    return [days[place] for place in places]


def _sample(lake: Lake, service: str, day: date, most: int) -> pl.DataFrame:
    """So many of the day's rows, evenly spread over it."""
    rows = lake.read(f"predictions/{service}", first=day, last=day)
    places = np.linspace(0, rows.height - 1, min(most, rows.height)).astype(np.int64)
    order = rows.select(pl.arg_sort_by("asked_at", "prediction_id")).to_series()
    return served_features(rows[order.gather(places)])[0]


def _matrix(rows: pl.DataFrame, names: Sequence[str]) -> Floats:
    return rows.select(pl.col(list(names)).cast(pl.Float64)).to_numpy()
