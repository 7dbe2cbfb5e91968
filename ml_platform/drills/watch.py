"""The platform's own detectors, called as production calls them, on one day of a year with or without a fault."""

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from ml_platform.decisions.past import Served
from ml_platform.decisions.windows import judge_losses
from ml_platform.drills.clean_year import PROBABILITY, CleanYear, Frames, referred
from ml_platform.drills.planting import Plant, source_with
from ml_platform.features.skew import compare, sampled
from ml_platform.features.skew import verdict as skew_verdict
from ml_platform.monitoring.performance import COHORT, cohorts, first_followed, truths_arrive
from ml_platform.sources.ingest import Batch, fetch
from ml_platform.spec import ASKED_AT, KNOWN_AT, SchemaChanged, SourceError, SourceTable, Verdict
from ml_platform.spec.calendar import day_start
from ml_platform.spec.expectations.base import PART
from ml_platform.spec.request_views import request_fields
from ml_platform.spec.verdict import State
from ml_platform.stores.delta import PARTITION
from ml_platform.training.training_set import LABEL, LABEL_KNOWN_AT, truths_at

# In the order in which a day's rows meet them.
INGEST, CONTRACT, FRESHNESS, SKEW = "ingest", "contract", "freshness", "skew"
PROFILE, DRIFT, ANSWERS, LABELS = "profile", "drift", "answers", "labels"
TRUTHS, PERFORMANCE = "truths", "performance"
_STATES: dict[str, State] = {"bad": "fail", "borne": "pass", "unknown": "unknown"}
_COMPARED_DAYS = 14  # of a champion's first days, and of the newest: twice what the policy compares
DETECTORS = (INGEST, CONTRACT, FRESHNESS, PROFILE, SKEW, DRIFT, ANSWERS, LABELS, TRUTHS, PERFORMANCE)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What the contract (or, where there were no rows to judge, reading them) said of a day's rows.

    batch: None where they could not be read, or were of other columns than declared.
    """

    by: str
    verdict: Verdict
    batch: Batch | None

    @property
    def ran(self) -> bool:
        """Whether the raw table was written."""
        return self.batch is not None and self.batch.refusal is None

    @property
    def failing(self) -> set[str]:
        """The rules that fail."""
        rules = {} if self.batch is None else self.batch.rules
        return {name for name, verdict in rules.items() if verdict.state == "fail"}


def contract(year: CleanYear, table: SourceTable, day: date, raw: Frames | None = None) -> Looked:
    """``raw/<table>`` of a day, as the asset makes it just after midnight, without writing.

    raw: the raw tables as they stand; by default the clean ones.
    """
    now, stands = year.closes(day), raw or year.raw
    references = {name: stands[name] for name in referred(table)}
    try:
        batch = fetch(
            table, day, day, now, year.project.timezone, references, before=before(stands, table, day), whole=True
        )
    except SchemaChanged as error:
        return Looked(by=CONTRACT, verdict=Verdict(state="fail", reason=str(error)), batch=None)
    except SourceError as error:
        return Looked(by=INGEST, verdict=Verdict(state="fail", reason=str(error)), batch=None)
    told = batch.refusal or "; ".join(dict.fromkeys(refusal.sentence for refusal in batch.refused))
    return Looked(by=CONTRACT, verdict=Verdict(state="fail", reason=told) if told else batch.contract, batch=batch)


def before(raw: Frames, table: SourceTable, day: date) -> pl.DataFrame | None:
    """The rows of the days before that rules look back at, as ``sources.ingest.read_before`` reads them."""
    back = max((rule.looks_back_days for rule in table.rules), default=0)
    if not back or not table.partitioned:
        return None
    rows = raw[table.name].filter(pl.col(PARTITION).is_between(day - timedelta(days=back), day - timedelta(days=1)))
    return rows.with_columns(pl.col(PARTITION).alias(PART)).sort(PART, KNOWN_AT, *table.key)


def planted_contract(year: CleanYear, plant: Plant, day: date, raw: Frames) -> Looked:
    """The same with the fault in the source."""
    table = year.project.tables[plant.fault.table]
    return contract(year, source_with(plant, table, year.project.timezone, year.closes(day)), day, raw)


def changed_rows(plant: Plant, year: CleanYear, day: date) -> int:
    """How many rows of the day the fault touches: those that are others, and those that are more."""
    table = year.project.tables[plant.fault.table]
    rows = year.raw[table.name]
    rows = rows.filter(pl.col(PARTITION) == day).drop(PARTITION) if table.partitioned else rows
    wrong = plant.on(rows, day)
    if wrong.schema != rows.schema:
        return wrong.height
    others = wrong.join(rows, on=rows.columns, how="anti", nulls_equal=True).height
    return max(others, wrong.height - rows.height)


def logged(year: CleanYear, rows: pl.DataFrame) -> pl.DataFrame:
    """Answers as they stand in the prediction log, as far as the skew replay reads them."""
    task, names = year.spec.task, year.features
    fields = tuple(request_fields(year.project.views_of(year.spec)))
    sent = rows.select(*dict.fromkeys([*task.entities, *fields]))
    entities = [json.dumps(row, sort_keys=True, default=lambda moment: moment.isoformat()) for row in sent.to_dicts()]
    return rows.select(
        pl.col(task.key).alias("prediction_id"),
        ASKED_AT,
        "as_of",
        pl.Series("entities", entities, dtype=pl.String),
        pl.lit(names, pl.List(pl.String)).alias("feature_names"),
        pl.concat_list(pl.col(names).cast(pl.Float64)).alias("features"),
    )


def compared(year: CleanYear, rows: pl.DataFrame, share: float | None = None) -> pl.DataFrame:
    """Those of the answers that the skew replay looks at: the service's share of them, chosen as it chooses."""
    key = year.spec.task.key
    chosen = sampled(rows.select(pl.col(key).alias("prediction_id")), share or year.service.skew_share)
    return rows.filter(pl.col(key).is_in(chosen["prediction_id"].implode()))


def skewed(year: CleanYear, rows: pl.DataFrame, frames: Frames) -> Verdict:
    """``skew/<service>`` of a day's answers against the raw tables."""
    views = {view.name: view for view in year.project.views_of(year.spec)}
    return skew_verdict(*compare(logged(year, rows), views, frames))


def losses(year: CleanYear, answers: pl.DataFrame, known: datetime) -> pl.DataFrame:
    """``performance/<service>`` of these answers, by the truths known at a moment."""
    named = answers.rename({year.spec.task.key: "prediction_id"})
    predictions = named.select("prediction_id", ASKED_AT, PROBABILITY, pl.lit("1").alias("model_version"))
    truths = named.filter(pl.col(LABEL_KNOWN_AT) <= known)
    labels = truths.select("prediction_id", pl.col(LABEL).cast(pl.Int64).alias("value"), known_at=LABEL_KNOWN_AT)
    return cohorts(predictions, labels, year.project.timezone)


def truths(year: CleanYear, outcomes: pl.DataFrame, day: date) -> Verdict:
    """The check ``truths_arrive`` of a day. outcomes: the label table as it stands."""
    task, known = year.spec.task, year.closes(day)
    asked = year.read(first_followed(day), day).drop(LABEL, LABEL_KNOWN_AT)
    found = asked.join(truths_at(task, outcomes, known), on=list(task.label.on), how="left")
    given = pl.lit(0.5).alias(PROBABILITY)  # how good the answers are is no matter
    looked_at = losses(year, found.with_columns(given), known)
    return truths_arrive(looked_at, day, year.service.truths_within)


def performed(year: CleanYear, history: pl.DataFrame, trained: date, day: date) -> Verdict:
    """What late labels say on a day about the champion of then: ``fail`` if they ask for another one.

    history: ``losses`` of what it answered.
    """
    name = year.spec.policy
    if name is None:
        return Verdict.unknown(f"model {year.spec.name} has no retraining policy, so nobody looks at late labels")
    policy, moment = year.project.retrain_policies[name], day_start(trained, year.project.timezone)
    served = Served(version="1", first_day=trained, trained_at=moment, last_training_at=moment)
    if policy.max_loss_ratio is None:
        return Verdict.unknown(f"retraining policy {name} looks at no losses")
    found = judge_losses(policy, history.filter(pl.col(COHORT) <= day), served, day)
    return Verdict(state=_STATES[found.state], reason=found.reason, measures=found.measures)


def noticed(year: CleanYear, answers: pl.DataFrame, trained: date, day: date) -> Verdict:
    """``performed`` on a day by what was known when it was closed."""
    first = pl.col(PARTITION) < trained + timedelta(days=_COMPARED_DAYS)
    judged = pl.col(PARTITION).is_between(day - timedelta(days=_COMPARED_DAYS), day)
    return performed(year, losses(year, answers.filter(first | judged), year.closes(day)), trained, day)
