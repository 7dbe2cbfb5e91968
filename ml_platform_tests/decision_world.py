"""Days of answers with losses, and a champion that gave them; what decisions are asked with."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.decisions.past import Fact, Past, Served
from ml_platform.decisions.retraining import Decision, Estimate, decide
from ml_platform.monitoring.performance import COLUMNS
from ml_platform.spec import RetrainPolicy
from ml_platform.spec.calendar import day_start

NEW_YORK = "America/New_York"
FIRST = date(2024, 3, 1)
POLICY = RetrainPolicy(
    name="delay",
    window=timedelta(days=3),
    max_loss_ratio=1.2,
    min_rows=100,
    min_maturity=0.9,
    cooldown=timedelta(days=10),
)
CHAMPION = Served(
    version="4",
    first_day=FIRST,
    trained_at=datetime(2024, 2, 29, 5, tzinfo=UTC),
    last_training_at=datetime(2024, 2, 29, 5, tzinfo=UTC),
)
STANDS = Past(champion=CHAMPION)


def cohort(n: int, loss: float = 0.4, *, answers: int = 50, mature: float = 1.0, version: str = "4") -> dict[str, Any]:
    resolved = round(answers * mature)
    return {
        "cohort": FIRST + timedelta(days=n),
        "model_version": version,
        "answered": answers,
        "resolved": resolved,
        "labelled": resolved,
        "maturity": mature,
        "loss_sum": loss * resolved,
        "log_loss": loss if resolved else None,
        "auc": 0.7,
        "late_share": 0.2,
    }


def days(*losses: float, **changes: Any) -> list[dict[str, Any]]:
    return [cohort(n, loss, **changes) for n, loss in enumerate(losses)]


def midnight(n: int) -> datetime:
    """When the n-th day is over and is decided on."""
    return day_start(FIRST + timedelta(days=n), NEW_YORK)


def asked(
    cohorts: list[dict[str, Any]],
    days: int,
    policy: RetrainPolicy = POLICY,
    past: Past = STANDS,
    estimate: Estimate | None = None,
) -> Decision:
    """The decision when the champion has served ``days`` closed days."""
    frame = pl.DataFrame(cohorts, schema=COLUMNS)
    return decide(policy, frame, past, FIRST + timedelta(days=days - 1), midnight(days), NEW_YORK, estimate)


def fact(kind: str, n: float = 4, name: str = "inputs") -> Fact:
    """Something that happened once, on the n-th day."""
    words = {"request": "a new route opens", "review": "it is the new radar", "drift": "miles moved"}
    return Fact(kind=kind, at=midnight(0) + timedelta(days=n), reason=words[kind], name=name, line=7)  # type: ignore[arg-type]
