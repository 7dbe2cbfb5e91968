"""What a replay did, read from the record alone: lake, ledger, registry."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from ml_platform import metrics
from ml_platform.features.skew import newest_skew
from ml_platform.replay.state import ReplayState
from ml_platform.resources.profiles import Profile
from ml_platform.serving.history import sentence
from ml_platform.spec import Project, Service, TooFewLabels
from ml_platform.spec.calendar import day_of
from ml_platform.stores.delta import Lake
from ml_platform.stores.ledger import Entry, Ledger
from ml_platform.stores.ledger_kinds import (
    ABORT,
    BEGIN,
    DECISION,
    FAILURE,
    PROMOTION,
    REFUSAL,
    ROLLBACK,
    ROLLOUT,
    SERVING,
    TRAINING,
)
from ml_platform.stores.ledger_serving import serving_now

_ROLLOUTS = (BEGIN, ROLLOUT, ROLLBACK, ABORT)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A retraining, promotion, refusal or rollout's step: local date, model version and the written reason."""

    date: str
    version: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A step that failed: the local date, what it was to make for which day, and the error's words."""

    date: str
    step: str
    partition: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All closed days of one service; ``auc`` and ``log_loss`` over the answers whose truth is known."""

    service: str
    model: str
    first_day: str | None
    last_day: str | None
    days: int
    predictions: int
    predictions_doubled: int
    labels: int
    judged: int
    auc: float | None
    log_loss: float | None
    champion: str | None
    versions: int
    retrainings: tuple[Event, ...]
    promotions: tuple[Event, ...]
    refusals: tuple[Event, ...]
    rollouts: tuple[Event, ...]
    failures: tuple[Failed, ...]
    values_compared: int
    values_mismatched: int
    seconds: float
    work_seconds: float
    orchestration_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return asdict(self)


def judged_answers(lake: Lake, service: str) -> pl.DataFrame:
    """Every logged answer with its truth as ``value``, if one arrived."""
    if not lake.exists(f"predictions/{service}"):
        return pl.DataFrame(schema={"asked_at": pl.Datetime("us", "UTC"), "probability": pl.Float64, "value": pl.Int64})
    columns = ["prediction_id", "asked_at", "model_version", "probability", "known_date"]
    answers = lake.scan(f"predictions/{service}").select(columns).collect()
    truths = lake.scan(f"labels/{service}").select("prediction_id", "value").collect()
    return answers.join(truths, on="prediction_id", how="left").sort("asked_at", "prediction_id")


def summarize(profile: Profile, project: Project, service: Service, state: ReplayState) -> Summary:
    """Read the record. Answers of a day count once the day is closed."""
    lake, ledger = Lake(profile.lake, profile.storage_options), Ledger(profile.ledger_path)
    answers = judged_answers(lake, service.name)
    judged = answers.filter(pl.col("value").is_not_null())
    truths, given = judged["value"].to_numpy(), judged["probability"].to_numpy()
    days = answers["known_date"].unique().sort() if answers.height else pl.Series([], dtype=pl.Date)
    spec = project.models[service.model]
    skew = newest_skew(ledger, service.name)
    promotions = ledger.entries(PROMOTION, spec.name)
    trainings = ledger.entries(TRAINING, spec.name)
    serving = serving_now(ledger.about(spec.name, SERVING))
    return Summary(
        service=service.name,
        model=spec.name,
        first_day=str(days[0]) if len(days) else None,
        last_day=str(days[-1]) if len(days) else None,
        days=len(days),
        predictions=answers.height,
        predictions_doubled=answers.height - answers["prediction_id"].n_unique() if answers.height else 0,
        labels=lake.count(f"labels/{service.name}"),
        judged=judged.height,
        auc=_or_none(metrics.auc, truths, given),
        log_loss=_or_none(metrics.log_loss, truths, given),
        champion=serving.champion if serving else None,
        versions=max((int(entry.body["version"]) for entry in trainings), default=0),
        retrainings=tuple(
            # A bootstrap that was killed and repeated trains anew; that is no retraining.
            _retraining(entry, ledger, spec.policy, project.timezone)
            for entry in trainings
            if entry.at > state.started
        ),
        promotions=tuple(_event(entry, project.timezone) for entry in promotions),
        refusals=tuple(_event(entry, project.timezone) for entry in ledger.entries(REFUSAL, spec.name)),
        rollouts=tuple(_step(entry, project.timezone) for entry in ledger.about(spec.name, _ROLLOUTS)),
        failures=tuple(_failed(entry, project.timezone) for entry in ledger.entries(FAILURE, project.name)),
        values_compared=sum(int(entry.body["compared"]) for entry in skew),
        values_mismatched=sum(int(entry.body["differing"]) for entry in skew),
        seconds=round(state.seconds, 1),
        work_seconds=round(state.work_seconds, 1),
        orchestration_seconds=round(state.orchestration_seconds, 1),
    )


def _or_none(metric: Any, truths: Any, given: Any) -> float | None:
    try:
        return round(float(metric(truths, given)), 5)
    except TooFewLabels:
        return None  # nothing to judge yet: there is no number, not a zero


def _event(entry: Entry, timezone: str) -> Event:
    body: Mapping[str, Any] = entry.body
    return Event(date=str(day_of(entry.at, timezone)), version=str(body["version"]), reason=str(body["reason"]))


def _step(entry: Entry, timezone: str) -> Event:
    """What happened to a rollout, in the words of the model's history."""
    canary = entry.body["before"] if entry.kind == ROLLBACK else entry.body["canary"]
    return Event(date=str(day_of(entry.at, timezone)), version=str(canary), reason=sentence(entry))


def _failed(entry: Entry, timezone: str) -> Failed:
    body = entry.body
    day = str(day_of(entry.at, timezone))
    return Failed(date=day, step=str(body["step"]), partition=body["partition"], reason=str(body["reason"]))


def _retraining(entry: Entry, ledger: Ledger, policy: str | None, timezone: str) -> Event:
    """A training with the reason of the decision that it answered."""
    number = int(entry.body["decision"])
    decided = [e for e in ledger.entries(DECISION, policy or "") if int(e.body["wanted"]) == number]
    reason = str(decided[0].body["reason"]) if number and decided else "asked for by hand, or its declaration changed"
    return Event(date=str(day_of(entry.at, timezone)), version=str(entry.body["version"]), reason=reason)
