"""Has a table changed? A day's profiles against those of days of its season, column by column.

What fails, and pages, is a *sharp* change: a Jensen-Shannon distance far beyond what the reference days show among
themselves (see `sharp.py`). The share of missing values is judged apart as well: weather moves so much from day to day
that losing it altogether would drown in what is usual. What is merely unusual warns, within the policy's budget (see
`conformal.py`). Kolmogorov-Smirnov's, Wasserstein's distance and PSI are told beside it and decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from ml_platform.monitoring.conformal import followed
from ml_platform.monitoring.distances import distances, joined, joins, js_distance
from ml_platform.monitoring.profile import Floats, Ints
from ml_platform.monitoring.profile_table import History, histories
from ml_platform.monitoring.seasons import References, references
from ml_platform.monitoring.sharp import day_score, sharp, sharp_threshold, standardised
from ml_platform.spec import DriftPolicy, SharpRule, Verdict
from ml_platform.stores.delta import PARTITION

VALUES, MISSING, JOINT, SCORE = "values", "missing values", "what belongs together", "score"
ALL = "all features"  # the feature's name in rows about the day as a whole
_ALL_APART = 0.99  # the largest distance that there is, but for a few rows around midnight
_NEARLY_ALL = 0.95  # of the steps from day to day
_FEWEST_DAYS = 2  # with one reference day there is no other to say what is usual
COLUMNS: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "feature": pl.String,
    "of": pl.String,
    "distance": pl.Float64,
    "usual_maximum": pl.Float64,
    "threshold": pl.Float64,
    "verdict": pl.String,
    "ks": pl.Float64,
    "psi": pl.Float64,
    "wasserstein": pl.Float64,
    "missing_share": pl.Float64,
    "note": pl.String,
}
_TOLD = ("ks", "psi", "wasserstein", "missing_share", "note")


@dataclass(frozen=True, kw_only=True)
class Together:
    """How far the columns of a view are from belonging to the others as usual (0..1), and were on earlier days."""

    distances: Mapping[str, float]
    earlier: Mapping[str, Sequence[float]]


def drift(
    profiles: pl.DataFrame,
    day: date,
    policy: DriftPolicy,
    past: pl.DataFrame | None = None,
    together: Together | None = None,
) -> tuple[Verdict, pl.DataFrame]:
    """Judge ``day`` against the days of its season before it.

    profiles: rows of `profile_table.COLUMNS`, of the day and of earlier ones. past: what this function found on earlier
        days, with ``known_date``.

    Returns:
        The verdict and rows of ``COLUMNS``: one a feature (``of`` says whether its values or its missing values came
        closer to their threshold, or went further beyond it), one about the day (``of`` is *score*: the largest
        distance in multiples of the usual odds, and from which on it warns), one a view where it was looked at whether
        it belongs to the others. *unknown*: too few rows, too few days, or a feature that came or went.
    """
    watched = profiles.filter(pl.col("column").is_in(policy.columns)) if policy.columns else profiles
    rows = rows_by_day(watched)
    if rows.get(day, 0) < policy.min_rows:
        return Verdict.unknown(f"{rows.get(day, 0)} rows on {day}; {policy.min_rows} are needed"), nothing()
    found = compared_with(rows, day, policy)
    if not found.enough or len(found.days) < _FEWEST_DAYS:
        needed = "" if found.why.startswith("only") else f"; {_FEWEST_DAYS} are needed"
        return Verdict.unknown(f"{day}: {found.why}{needed}", reference_days=len(found.days)), nothing()
    columns = histories(watched.filter(pl.col(PARTITION).is_in([*found.days, day])))
    told = [_column(name, history, day, found, policy.sharp) for name, history in sorted(columns.items())]
    if together is not None:
        told += [_together(view, far, together.earlier, policy) for view, far in together.distances.items()]
    judged, table = sharp(pl.DataFrame(told, schema=_given()), day, found.why, policy.sharp)
    usual, by_day = _score(table, day, policy, past)
    table = pl.concat([table, by_day]).select(list(COLUMNS))
    return _verdict(judged, usual, table, day, len(found.days)), table


def nothing() -> pl.DataFrame:
    """No rows of ``COLUMNS``."""
    return pl.DataFrame(schema=dict(COLUMNS))


def rows_by_day(profiles: pl.DataFrame) -> dict[date, int]:
    """How many rows the table held on each day."""
    return dict(profiles.group_by(PARTITION).agg(pl.col("rows").max()).iter_rows())


def compared_with(rows: Mapping[date, int], day: date, policy: DriftPolicy) -> References:
    """The days of its season that hold rows enough."""
    return references((day,), [known for known, count in rows.items() if count >= policy.min_rows], policy.seasons)


def _given() -> dict[str, pl.DataType | type[pl.DataType]]:
    return {name: dtype for name, dtype in COLUMNS.items() if name not in ("threshold", "verdict")}


def _column(name: str, history: History, day: date, found: References, rule: SharpRule) -> dict[str, object]:
    """What is told of a feature; without distance where there is nothing to compare, and why in the note.

    history: of the day and of the days that it is compared with.
    """
    current, reference = history.between(day, day), history.between(date.min, day - timedelta(days=1))
    told: dict[str, object] = {"feature": name, "of": VALUES}
    if not len(current.days):
        return told | {"note": "not there any more"}
    if 2 * len(reference.days) < max(len(found.days), 2 * _FEWEST_DAYS):
        return told | {"note": f"there on {len(reference.days)} of the days it is compared with"}
    before, now = reference.total(), current.total()
    if not now.rows or not before.rows or (now.missing == now.rows and before.missing == before.rows):
        return told | {"note": "never had a value"}
    groups = joins(before.counts, before.layout)
    of, distance, usual = _worse(reference, current, groups, rule)
    apart = distances(now, before, groups)
    return told | {
        "of": of, "distance": distance, "usual_maximum": usual, "ks": apart.ks, "psi": apart.psi,
        "wasserstein": apart.wasserstein, "missing_share": now.missing / now.rows,
    }  # fmt: skip


def _worse(reference: History, current: History, groups: Ints, rule: SharpRule) -> tuple[str, float, float]:
    """(of what, distance, usual maximum): the values, or the missing ones, whichever is nearer to failing.

    Values of which no day has those of another (a count of hours, a number that grows) say nothing.
    """
    days = np.concatenate([reference.full(), current.full()])
    missing = np.column_stack([days[:, :-1].sum(axis=1), days[:, -1]])
    judged = [(of, *_apart(part)) for of, part in ((VALUES, joined(days, groups)), (MISSING, missing))]
    if judged[0][2] >= _ALL_APART or _grows(reference):
        return judged[1]
    return max(judged, key=lambda one: one[1] / float(sharp_threshold(one[2], rule)))


def _grows(history: History) -> bool:
    """Whether least and greatest value go up from nearly every day to the next."""
    _, minimum, maximum, _, _ = history.moments[history.counts.sum(axis=1) > 0].T
    if history.layout.kind != "number" or len(minimum) <= _FEWEST_DAYS:
        return False
    return bool(np.mean((np.diff(minimum) > 0) & (np.diff(maximum) > 0)) >= _NEARLY_ALL)


def _apart(days: Floats) -> tuple[float, float]:
    """(distance, usual maximum) of the last row of counts: from the sum of the others, and of each of them from the
    rest."""
    total = days[:-1].sum(axis=0)
    return float(js_distance(days[-1], total)), float(js_distance(days[:-1], total - days[:-1]).max())


def _together(
    view: str, distance: float, before: Mapping[str, Sequence[float]], policy: DriftPolicy
) -> dict[str, object]:
    earlier = [value for value in before.get(view, ()) if np.isfinite(value)]
    known = len(earlier) >= max(policy.seasons.alike_days, _FEWEST_DAYS)
    note = None if known else f"{len(earlier)} earlier days say what is usual; {policy.seasons.alike_days} are needed"
    usual = max(earlier) if known else None
    return {"feature": view, "of": JOINT, "distance": distance, "usual_maximum": usual, "note": note}


def _score(
    table: pl.DataFrame, day: date, policy: DriftPolicy, past: pl.DataFrame | None
) -> tuple[Verdict, pl.DataFrame]:
    """Whether the day is unusual enough to warn, and the row about it."""
    compared = table.drop_nulls(["distance", "usual_maximum"])
    score = day_score(compared["distance"], compared["usual_maximum"])
    found = followed([*_scores(past, day), (day, score)], policy.budget)[-1][1]
    threshold = found.measures.get("threshold")
    row = {"feature": ALL, "of": SCORE, "distance": score, "threshold": threshold, "verdict": found.state}
    return found, pl.DataFrame([row], schema=table.schema)


def _scores(past: pl.DataFrame | None, day: date) -> list[tuple[date, float | None]]:
    if past is None:
        return []
    own = past.filter(pl.col("of") == SCORE, pl.col(PARTITION) < day).sort(PARTITION)
    return list(own.select(PARTITION, "distance").iter_rows())


def earlier_joint(past: pl.DataFrame, day: date, within: timedelta) -> dict[str, list[float]]:
    """View -> its distances from belonging to the others on the days before ``day``, as far back as ``within``."""
    kept = past.filter(pl.col("of") == JOINT, pl.col(PARTITION) < day, pl.col(PARTITION) >= day - within)
    return dict(kept.drop_nulls("distance").group_by("feature").agg("distance").iter_rows())


def _verdict(judged: Verdict, usual: Verdict, table: pl.DataFrame, day: date, reference_days: int) -> Verdict:
    """A sharp change fails, else what is unusual warns; a feature that came or went leaves the day *unknown*."""
    measures = {**judged.measures, "reference_days": reference_days}
    measures |= {name: usual.measures[name] for name in ("score", "threshold") if name in usual.measures}
    gone = table.filter(pl.col("note").is_not_null(), pl.col("of") == VALUES)
    dead = gone.filter(pl.col("note") == "never had a value")
    left_out = gone.filter(pl.col("note") != "never had a value")
    beside = f"; never had a value: {_named(dead)}" if dead.height else ""
    if judged.state == "fail":
        return Verdict(state="fail", reason=judged.reason, measures=measures)
    if judged.state == "unknown":
        return Verdict(state="unknown", reason=judged.reason + beside, measures=measures)
    if left_out.height:
        named = "; ".join(f"{row['feature']}: {row['note']}" for row in left_out.head(3).iter_rows(named=True))
        reason = f"{judged.reason}; {left_out.height} could not be compared ({named})"
        return Verdict(state="unknown", reason=reason, measures=measures)
    if usual.state == "warn":
        compared = table.drop_nulls(["distance", "usual_maximum"])
        far = standardised(compared["distance"], compared["usual_maximum"])
        worst = compared.row(int(np.argmax(far)), named=True)
        reason = f"{usual.reason}: {worst['of']} of {worst['feature']}"
        return Verdict(state="warn", reason=reason + beside, measures=measures)
    return Verdict(state="pass", reason=judged.reason + beside, measures=measures)


def _named(rows: pl.DataFrame) -> str:
    shown = ", ".join(rows["feature"].head(3))
    return f"{shown} and {rows.height - 3} more" if rows.height > 3 else shown
