"""What the platform's drift policy would have said of each replayed day's inputs; the same whatever version answers.

Profiles are kept and judged by the functions of the assets, in a lake of their own that is thrown away. Whether
features belong together is not looked at: it takes as long as everything else.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path

from ml_platform.decisions.backtest_replay import Arena
from ml_platform.monitoring.profiling import keep_profiles
from ml_platform.monitoring.watched import judge_days, source_of
from ml_platform.spec import HAPPENS_AT, DriftPolicy, Verdict
from ml_platform.spec.calendar import days_between
from ml_platform.spec.fingerprint import fingerprint
from ml_platform.stores.delta import Lake


def drift_verdicts(
    arena: Arena, policy: DriftPolicy, folder: Path, told: Callable[[date], object] = lambda _: None
) -> dict[date, Verdict]:
    """Each day's verdict; kept in the folder, found by its content. told: is told of each day that is judged."""
    moments = arena.history.questions.filter(arena.history.questions["asked_on"].is_between(arena.first, arena.last))
    span = arena.history.digest(moments[HAPPENS_AT].item(0), moments[HAPPENS_AT].item(-1))
    content = f"{fingerprint(policy)} {arena.started} {span}"
    kept = folder / f"drift-{sha256(content.encode()).hexdigest()[:24]}.json"
    if not kept.exists():
        found = _judged(arena, replace(policy, joint=None), told)
        folder.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(".draft")
        draft.write_text(json.dumps({str(day): [one.state, one.reason] for day, one in found.items()}))
        draft.replace(kept)
    stored = json.loads(kept.read_text())
    return {date.fromisoformat(day): Verdict(state=state, reason=reason) for day, (state, reason) in stored.items()}


def _judged(arena: Arena, policy: DriftPolicy, told: Callable[[date], object]) -> dict[date, Verdict]:
    rows = arena.history.questions[arena.rows["row"].to_numpy()]
    served, days = arena.versions.at(arena.started).encoding.encoded(rows), rows["asked_on"]
    results, found = f"drift/{policy.name}", {}
    with tempfile.TemporaryDirectory() as scratch:
        lake = Lake(scratch)
        for day in days_between(arena.first, arena.last):
            keep_profiles(lake, source_of(policy), [day], lambda asked: served.filter(days == asked))
            (one,) = judge_days(lake, policy, [day], results)
            lake.replace(results, one.rows, [day])
            found[day] = one.verdict
            told(day)
    return found
