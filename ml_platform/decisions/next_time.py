"""When a model could be retrained next, by the rules that its last decision was made with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_platform.decisions import record
from ml_platform.decisions.past import Past
from ml_platform.decisions.rests import Rest, in_days, rests
from ml_platform.spec import RetrainPolicy
from ml_platform.spec.cron import next_tick
from ml_platform.stores.ledger import Entry
from ml_platform.stores.ledger_lines import Lines


@dataclass(frozen=True, kw_only=True)
class Next:
    """wanted: one is wanted already. held: what holds back. asks: what would begin one. due: when time asks for one."""

    wanted: bool
    held: tuple[Rest, ...]
    asks: tuple[str, ...]
    due: datetime | None

    @property
    def not_before(self) -> datetime | None:
        """When the last that holds back is over; None: now, or not by itself."""
        ends = [rest.until for rest in self.held]
        return None if None in ends else max((end for end in ends if end), default=None)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        held = [
            {"kind": rest.kind, "until": rest.until.isoformat() if rest.until else None, "reason": rest.reason}
            for rest in self.held
        ]
        return {
            "wanted": self.wanted,
            "held": held,
            "not_before": self.not_before.isoformat() if self.not_before else None,
            "due": self.due.isoformat() if self.due else None,
        }


def next_time(lines: Lines, model: str, decided: Sequence[Entry], at: datetime) -> Next | None:
    """None: no decision was ever made, or by rules that were not written down."""
    rules = decided[-1].body.get("rules") if decided else None
    if rules is None:
        return None
    policy, timezone = RetrainPolicy.of_rules(rules), str(decided[-1].body.get("timezone", "UTC"))
    past = record.past(lines, policy, model, timezone)
    return Next(
        wanted=past.wanted > 0,
        held=tuple(rests(policy, past, at)),
        asks=tuple(_asks(policy, decided[-1])),
        due=_due(policy, past, at, timezone),
    )


def _asks(policy: RetrainPolicy, last: Entry) -> list[str]:
    """What would begin a retraining."""
    found = []
    if policy.max_loss_ratio is not None:
        ratio = last.body["measures"].get("ratio")
        now = f" (now {float(ratio):.2f})" if ratio is not None else ""
        windows = "" if policy.of == 1 else f" in {policy.bad} of the last {policy.of} windows and the latest"
        found.append(f"the losses are above {policy.max_loss_ratio:g} times the first window's{now}{windows}")
    if policy.triggers:
        found.append(f"{' or '.join(f'drift/{name}' for name in policy.triggers)} fails")
    if policy.deadline:
        found.append(f"the champion is {in_days(policy.deadline)} old")
    if policy.every or policy.cron:
        found.append("time asks for it")
    return [*found, "a person asks for it"]


def _due(policy: RetrainPolicy, past: Past, at: datetime, timezone: str) -> datetime | None:
    looked = [one.began for one in past.trainings] + [one for one in (past.spared_at,) if one]
    found = []
    if policy.every is not None and looked:
        found.append(max(max(looked) + policy.every, at))
    tick = next_tick(policy.cron, at, timezone) if policy.cron else None
    return min([*found, *([tick] if tick else [])], default=None)
