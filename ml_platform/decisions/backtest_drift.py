"""What the platform's drift policy would have said of each replayed day; the same whatever version answers."""

import json
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from pathlib import Path

import polars as pl

from ml_platform.decisions.backtest_replay import Arena
from ml_platform.monitoring.drift import COLUMNS, drift
from ml_platform.monitoring.profiling import profiles_by_day
from ml_platform.spec import HAPPENS_AT, DriftPolicy, Verdict
from ml_platform.spec.calendar import days_between
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.stores.delta import PARTITION


def drift_verdicts(
    arena: Arena, policy: DriftPolicy, folder: Path, told: Callable[[date], object] = lambda _: None
) -> dict[date, Verdict]:
    """Each day's verdict; kept in the folder, found by its content. told: is told of each day that is judged."""
    moments = arena.history.questions.filter(pl.col("asked_on").is_between(arena.first, arena.last))[HAPPENS_AT]
    content = f"{fingerprint(policy)} {arena.started} {arena.history.digest(moments.item(0), moments.item(-1))}"
    kept = folder / f"drift-{sha256(content.encode()).hexdigest()[:24]}.json"
    if not kept.exists():
        found = _judged(arena, policy, told)
        folder.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".draft")
        draft.write_text(json.dumps({str(day): [one.state, one.reason] for day, one in found.items()}))
        draft.replace(kept)
    stored = json.loads(kept.read_text())
    return {date.fromisoformat(day): Verdict(state=state, reason=reason) for day, (state, reason) in stored.items()}


def _judged(arena: Arena, policy: DriftPolicy, told: Callable[[date], object]) -> dict[date, Verdict]:
    rows = arena.history.questions[arena.rows["row"].to_numpy()]
    served, days = arena.versions.at(arena.started).encoding.encoded(rows), rows["asked_on"]
    profiles = profiles_by_day(served, days)
    found, past = {}, pl.DataFrame(schema={**COLUMNS, PARTITION: pl.Date})
    for day in days_between(arena.first, arena.last):
        found[day], table = drift(profiles, day, policy, past)
        past = pl.concat([past, table.with_columns(pl.lit(day).alias(PARTITION))])
        told(day)
    return found
