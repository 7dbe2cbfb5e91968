"""How good the answers were, by the day they were asked, as far as the truth is known.

A cohort is the answers of one local day and one model version. It is looked at again each day, as late labels arrive;
what was known at every look is kept, so that cohorts can be compared at the same age.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.monitoring.grouped import groups
from ml_platform.spec import BusinessMetric, Slice, TooFewLabels, Verdict

COHORT = "cohort"
FOLLOWED_FOR = timedelta(days=10)  # labels arrive within 33 hours on flights; a cohort is looked at again this long
COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    COHORT: pl.Date,
    "model_version": pl.String,
    "answered": pl.Int64,
    "resolved": pl.Int64,
    "labelled": pl.Int64,
    "maturity": pl.Float64,
    "loss_sum": pl.Float64,
    "log_loss": pl.Float64,
    "auc": pl.Float64,
    "late_share": pl.Float64,
    "estimated_log_loss": pl.Float64,
    "estimated_auc": pl.Float64,
}
SLICE_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    COHORT: pl.Date,
    "model_version": pl.String,
    "slice": pl.String,
    "group": pl.String,
    "answered": pl.Int64,
    "labelled": pl.Int64,
    "ones": pl.Int64,
    "loss_sum": pl.Float64,
}
_ARRIVED = 0.999  # of the truths of a cohort that is old enough: one in a thousand may go lost without a word
_OF = [COHORT, "model_version"]
Metrics = Mapping[str, BusinessMetric]


def cost_sum(metric: str) -> str:
    """The column with a business metric's sum over the labelled answers."""
    return f"{metric}_sum"


def cohorts(
    predictions: pl.DataFrame, labels: pl.DataFrame, timezone: str, business: Metrics | None = None
) -> pl.DataFrame:
    """One row for each day of asking and model version: answers, arrived truths, losses.

    predictions: ``prediction_id``, ``asked_at``, ``model_version``, ``probability``.
    labels: ``prediction_id``, ``value`` (null: it is known that there is no truth, as for a cancelled flight),
        ``known_at``. Labels of other predictions are left out.
    business: by name, whose sums and means over the labelled answers are added.

    What was asked or posted twice, also on different days, counts once: the first time, as in the prediction log.
    ``estimated_log_loss`` and ``estimated_auc`` are of all answers and need no truth: they are what the probabilities
    promise of themselves, shown beside what came, and decide nothing.
    """
    rows = joined(predictions, labels, timezone)
    own = business or {}
    found = [_cohort(of, group, own) for of, group in rows.group_by(_OF, maintain_order=True)]
    added: dict[str, pl.DataType | type[pl.DataType]]
    added = {column: pl.Float64 for name in own for column in (cost_sum(name), name)}
    return pl.DataFrame(found, schema=COLUMNS | added, orient="row").sort(*_OF)


def joined(predictions: pl.DataFrame, labels: pl.DataFrame, timezone: str) -> pl.DataFrame:
    """Each prediction once, with its day of asking, truth (``value``), whether that is ``known``, and ``loss``."""
    day = pl.col("asked_at").dt.convert_time_zone(timezone).dt.date().alias(COHORT)
    first_known = labels.sort("known_at").unique("prediction_id", keep="first")
    truths = first_known.select("prediction_id", "value", pl.lit(True).alias("known"))
    asked_first = predictions.sort("asked_at").unique("prediction_id", keep="first", maintain_order=True)
    rows = asked_first.with_columns(day).join(truths, on="prediction_id", how="left", maintain_order="left")
    judged = rows["value"].is_not_null()
    losses = np.full(rows.height, np.nan)
    if judged.any():
        losses[judged.to_numpy()] = metrics.row_losses(rows["value"].filter(judged), rows["probability"].filter(judged))
    return rows.with_columns(pl.Series("loss", losses).fill_nan(None))


def _cohort(of: tuple[object, ...], group: pl.DataFrame, business: Metrics) -> tuple[object, ...]:
    judged = group.filter(pl.col("value").is_not_null())
    resolved = int(group["known"].sum())
    truths, given = judged["value"].to_numpy(), judged["probability"].to_numpy()
    sums = [_cost(judged, metric) for metric in business.values()]
    return (
        *of,
        group.height,
        resolved,
        judged.height,
        resolved / group.height,
        float(judged["loss"].sum()),
        judged["loss"].mean(),
        _auc_if_both_classes(truths, given),
        float(truths.mean()) if judged.height else None,
        metrics.expected_log_loss(group["probability"]),
        _expected_auc(group["probability"]),
        *(value for each in sums for value in (each, each / judged.height if judged.height else None)),
    )


def _cost(judged: pl.DataFrame, metric: BusinessMetric) -> float:
    return float(judged.with_columns(label=pl.col("value")).select(metric.value.cast(pl.Float64).sum()).item() or 0.0)


def _auc_if_both_classes(truths: np.ndarray, given: np.ndarray) -> float | None:
    try:
        return metrics.auc(truths, given)
    except TooFewLabels:
        return None  # one class only: there is no order to judge


def _expected_auc(given: pl.Series) -> float | None:
    try:
        return metrics.expected_auc(given)
    except TooFewLabels:
        return None


def sliced(rows: pl.DataFrame, columns: pl.DataFrame, slices: Mapping[str, Slice], timezone: str) -> pl.DataFrame:
    """Each cohort's answers and losses by the groups of each slice.

    rows: as ``joined`` gives them. columns: what the slices read, a row for each of ``rows``.
    """
    parts = [
        rows.with_columns(grouped.alias("group"), pl.lit(name).alias("slice"))
        .group_by(*_OF, "slice", "group")
        .agg(
            pl.len().alias("answered"),
            pl.col("value").count().alias("labelled"),
            pl.col("value").sum().alias("ones"),
            pl.col("loss").sum().alias("loss_sum"),
        )
        for name, grouped in (groups(columns, slices, timezone).to_dict().items() if slices else ())
    ]
    none = pl.DataFrame(schema=SLICE_COLUMNS)
    made = [part.select(pl.col(name).cast(kind) for name, kind in SLICE_COLUMNS.items()) for part in parts]
    return pl.concat([none, *made]).sort(*_OF, "slice", "group")


def changed_groups(history: pl.DataFrame, last: date, days: int, before: int, least: int) -> pl.DataFrame:
    """Groups by how much their log-loss rose: the cohorts of ``days`` days until ``last`` against ``before`` earlier.

    history: groups of cohorts, each as last looked at. least: labels that a group must have on both sides.
    """
    first = last - timedelta(days=days - 1)
    age = pl.when(pl.col(COHORT) >= first).then(pl.lit("now")).otherwise(pl.lit("before")).alias("part")
    kept = history.filter(pl.col(COHORT).is_between(first - timedelta(days=before), last)).with_columns(age)
    sums = kept.group_by("slice", "group", "part").agg(pl.col("labelled", "loss_sum").sum())
    sums = sums.filter(pl.col("labelled") >= least).with_columns(log_loss=pl.col("loss_sum") / pl.col("labelled"))
    now, past = (sums.filter(pl.col("part") == part).drop("part", "loss_sum") for part in ("now", "before"))
    both = now.join(past, on=["slice", "group"], suffix="_before")
    return both.with_columns(rise=pl.col("log_loss") - pl.col("log_loss_before")).sort(
        pl.col("rise"), "slice", "group", descending=[True, False, False]
    )


def newest(history: pl.DataFrame, of: Sequence[str] = (COHORT, "model_version")) -> pl.DataFrame:
    """Each cohort as it was last looked at. ``history``: all days of the performance table."""
    last = history.sort("known_date").unique(of, keep="last")
    return last.sort(of)


def first_followed(day: date) -> date:
    """The oldest cohort that is looked at on this day."""
    return day - FOLLOWED_FOR


def truths_arrive(looked_at: pl.DataFrame, day: date, within: timedelta | None) -> Verdict:
    """Whether the truths of the cohorts that are old enough are there: a feed of labels that lost some is seen by this.

    looked_at: the cohorts as known at the end of ``day``. within: how long after the day of asking the last truth, or
    the word that there is none, may take; None: nobody said, so nothing can be judged.
    """
    if within is None:
        return Verdict.unknown("the service does not say within what time truths arrive (truths_within)")
    old = looked_at.filter(pl.col(COHORT) < day - within).group_by(COHORT).agg(pl.col("answered", "resolved").sum())
    answered, resolved = int(old["answered"].sum()), int(old["resolved"].sum())
    measures = {"old_answers": answered, "old_answers_without_truth": answered - resolved}
    if not answered:
        return Verdict.unknown(f"no answer is older than {within.days} days on {day}", **measures)
    short = old.filter(pl.col("resolved") < _ARRIVED * pl.col("answered")).sort(COHORT)
    if short.is_empty():
        found = f"the truths of {resolved} of {answered} answers that are older than {within.days} days are there"
        return Verdict(state="pass", reason=found, measures=measures)
    worst = short.row(-1, named=True)
    reason = (
        f"{worst['answered'] - worst['resolved']} of {worst['answered']} answers of {worst[COHORT]} have no truth "
        f"{(day - worst[COHORT]).days} days later, nor the word that there is none ({answered - resolved} of all that "
        f"are older than {within.days} days): labels were lost, or their feed stands still"
    )
    return Verdict(state="fail", reason=reason, measures=measures)
