"""What a retraining would gain, estimated in a second or two before anything is spent.

A cheap model trained from scratch is worse than the champion because it is cheap, so its loss says little. What is
trained instead is a correction: a few boosted trees that start from the champion's own answers, on answers that are
fresh to it and whose labels have arrived, judged on the newest labelled days against the champion alone. Where the
world has moved away from the champion, the correction finds something; where it has not, it finds noise, and loses
(boosting from given scores: Friedman 2001; the champion's scores are the offset). The family of the champion does not
matter. The rows are those of the prediction log: features as served, so none has to be computed.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from ml_platform import metrics
from ml_platform.evaluation.intervals import draw
from ml_platform.evaluation.steps import champion_of, load_version, trained_until
from ml_platform.spec import HAPPENS_AT, KNOWN_AT, ModelRefused, ModelSpec, Project, RetrainPolicy, Service, Verdict
from ml_platform.spec.calendar import day_of
from ml_platform.spec.verdict import State
from ml_platform.stores.delta import Lake
from ml_platform.stores.prediction_log import named_features
from ml_platform.stores.tracking import Tracking
from ml_platform.training.encoding import Encoding, Floats
from ml_platform.training.estimators import patient_threads
from ml_platform.training.model import Model
from ml_platform.training.training_set import LABEL, LABEL_KNOWN_AT

REACH = timedelta(days=45)  # older answers say little of what is new, and reading them takes time
MOST_ROWS = 20_000  # of those learned from, drawn by the model's seed
# Few and flat, so that little noise is learned.
_ROUNDS, _PARAMETERS = 30, {"learning_rate": 0.05, "num_leaves": 15, "feature_fraction": 0.5}
_ROWS_A_LEAF = 0.01  # of the rows learned from
_RESAMPLES = 1000
_LIKELY = 0.5
_FEWEST = 300  # rows to learn from; a correction of fewer is noise


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Rows to learn the correction from, and the newest, to judge it on."""

    learned: pl.DataFrame
    judged: pl.DataFrame


def estimator(
    lake: Lake,
    tracking: Tracking,
    project: Project,
    spec: ModelSpec,
    service: Service,
    policy: RetrainPolicy,
    now: datetime,
) -> Callable[[], Verdict]:
    """The estimate, made when it is called."""

    def made() -> Verdict:
        version = champion_of(tracking, spec.name)
        if version is None:
            return Verdict.unknown("no gain can be estimated: there is no champion")
        with tempfile.TemporaryDirectory() as scratch:
            try:
                champion = load_version(tracking, version, Path(scratch))
                rows = fresh_rows(lake, service.name, spec, champion.encoding, trained_until(version), now, project)
                return estimate_gain(rows, champion, spec, now, project.timezone, min_gain=policy.min_gain)
            except ModelRefused as error:
                return Verdict.unknown(f"no gain can be estimated: {error}")

    return made


def fresh_rows(
    lake: Lake,
    service: str,
    spec: ModelSpec,
    encoding: Encoding,
    trained_until: datetime,
    now: datetime,
    project: Project,
) -> pl.DataFrame:
    """Answers to events after the champion's last training row whose labels are known by ``now``, features as served.

    Columns: ``happens_at``, the inputs, ``label``, ``label_known_at``.
    """
    first = day_of(max(trained_until, now - REACH) - spec.task.lead, project.timezone)
    answers = lake.read(f"predictions/{service}", first=first).sort("asked_at", "prediction_id")
    answers = answers.unique("prediction_id", keep="first", maintain_order=True)
    answers = answers.with_columns((pl.col("asked_at") + spec.task.lead).alias(HAPPENS_AT))
    answers = answers.filter((pl.col(HAPPENS_AT) > trained_until) & (pl.col(HAPPENS_AT) < now))
    labels = lake.read(f"labels/{service}", first=first).filter(pl.col(KNOWN_AT) <= now).sort(KNOWN_AT)
    labels = labels.unique("prediction_id", keep="first").drop_nulls("value")
    truths = labels.select("prediction_id", pl.col("value").alias(LABEL), pl.col(KNOWN_AT).alias(LABEL_KNOWN_AT))
    known = answers.join(truths, on="prediction_id", how="inner", maintain_order="left")
    features = named_features(known).select("prediction_id", pl.exclude("prediction_id"))
    rows = known.select("prediction_id", HAPPENS_AT, LABEL, LABEL_KNOWN_AT, *_entities(encoding))
    return rows.join(features, on="prediction_id", how="left", maintain_order="left").drop("prediction_id")


def _entities(encoding: Encoding) -> list[pl.Expr]:
    """The categories as they were sent with the question."""
    found = []
    for name, values in encoding.categories.items():
        text = pl.col("entities").str.json_path_match(f"$.{name}")
        found.append((text if all(isinstance(one, str) for one in values) else text.cast(pl.Int64)).alias(name))
    return found


def estimate_gain(
    rows: pl.DataFrame, champion: Model, spec: ModelSpec, now: datetime, timezone: str, *, min_gain: float = 0.0
) -> Verdict:
    """*pass*: a correction of the champion surely gains log-loss on the newest days; *warn*: it may; *fail*: hardly.

    rows: as ``fresh_rows`` makes them. Judged are the days that a gate would look at (``spec.gate.holdout``); a label
    that became known only within them is not learned from. Sure is a gain above ``min_gain`` with the confidence that
    the gate asks for, in resamples of whole days; hardly one is less likely than not. Too few rows are *unknown*.
    """
    parts = _split(rows, spec, now)
    fewest = max(_FEWEST, spec.min_rows)
    days = parts.judged[HAPPENS_AT].dt.convert_time_zone(timezone).dt.date()
    if parts.learned.height < fewest or parts.judged.height < spec.gate.min_rows or days.n_unique() < 2:
        return Verdict.unknown(
            f"no gain can be estimated: {parts.learned.height} labelled answers are fresh to the champion and "
            f"{parts.judged.height} newer ones to judge by; {fewest} and {spec.gate.min_rows} are needed"
        )
    champion.encoding.refuse_missing(rows)
    before, after = _corrected(parts, champion, spec)
    truths = parts.judged[LABEL].to_numpy().astype(np.float64)
    gains = metrics.row_losses(truths, before) - metrics.row_losses(truths, after)
    return _verdict(gains, days, spec, parts, min_gain)


def _split(rows: pl.DataFrame, spec: ModelSpec, now: datetime) -> _Parts:
    held_from = now - spec.gate.holdout
    judged = rows.filter(pl.col(HAPPENS_AT) >= held_from)
    learned = rows.filter((pl.col(HAPPENS_AT) < held_from) & (pl.col(LABEL_KNOWN_AT) <= held_from))
    if learned.height > MOST_ROWS:
        learned = learned.sample(MOST_ROWS, seed=spec.seed)
    return _Parts(learned=learned, judged=judged)


def _corrected(parts: _Parts, champion: Model, spec: ModelSpec) -> tuple[Floats, Floats]:
    """Of the judged rows: what the champion says, and what it says corrected."""
    patient_threads()
    import lightgbm as lgb

    inputs, asked = (champion.encoding.frame_matrix(part) for part in (parts.learned, parts.judged))
    leaf = max(20, round(_ROWS_A_LEAF * len(inputs)))
    told = {"objective": "binary", "verbose": -1, "num_threads": 1, "seed": spec.seed, "deterministic": True}
    parameters = {**told, **_PARAMETERS, "min_data_in_leaf": leaf, "force_row_wise": True}
    labels = parts.learned[LABEL].to_numpy()
    learned = lgb.Dataset(inputs, labels, init_score=_log_odds(champion.predict_matrix(inputs)), params=parameters)
    trees = lgb.train(parameters, learned, num_boost_round=_ROUNDS)
    before = champion.predict_matrix(asked)
    scores = _log_odds(before) + np.asarray(trees.predict(asked, raw_score=True))
    return before, 1 / (1 + np.exp(-scores))


def _log_odds(given: Floats) -> Floats:
    bounded = np.clip(given, 1e-6, 1 - 1e-6)
    scores: Floats = np.log(bounded / (1 - bounded))
    return scores


def _judged(sure: float, confidence: float) -> tuple[State, str]:
    """An uncertain gain is left to the gate: to hold it back would cost half of the promotions (decision 0025)."""
    if sure >= confidence:
        return "pass", "it pays"
    return ("warn", "it may pay") if sure >= _LIKELY else ("fail", "it would not pay")


def _verdict(gains: Floats, days: pl.Series, spec: ModelSpec, parts: _Parts, min_gain: float) -> Verdict:
    draws = draw(days.to_numpy(), seed=spec.seed, resamples=_RESAMPLES)
    sums, rows = draws.summed(gains), draws.summed(np.ones_like(gains))
    drawn = (draws.counts @ sums) / (draws.counts @ rows)
    low, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))
    gain, sure = float(gains.mean()), float((drawn > min_gain).mean())
    found = (
        f"a correction learned from {parts.learned.height} fresh labelled answers gains {gain:+.4f} log-loss (95% "
        f"interval {low:+.4f} to {high:+.4f}) on the {parts.judged.height} of the last {days.n_unique()} days"
    )
    state, word = _judged(sure, spec.gate.confidence)
    asked = f"a gain above {min_gain:g} has probability {sure:.0%}"
    measures = {"estimated_gain": round(gain, 5), "estimated_low": round(low, 5), "estimated_high": round(high, 5)}
    return Verdict(
        state=state,
        reason=f"{word}: {found}; {asked}",
        measures={**measures, "estimated_sure": round(sure, 4), "estimated_rows": parts.learned.height},
    )
