"""A person asks for a retraining: the line that says so, the decision, and the alarm where Dagster runs."""

from datetime import timedelta

import polars as pl

from ml_platform import asset_keys
from ml_platform.decisions import record
from ml_platform.decisions.opened import Here
from ml_platform.decisions.retraining import decide
from ml_platform.decisions.reviews import request
from ml_platform.monitoring.performance import COLUMNS
from ml_platform.spec.calendar import day_of
from ml_platform.stores.ledger import Entry


def ask(here: Here, model: str, by: str, reason: str) -> tuple[Entry, Entry, bool]:
    """The request's line, the decision's, and whether the alarm was raised in Dagster.

    After a kill between any two of them the next daily decision does the rest.

    Raises:
        WordRefused: a name or a reason is missing.
    """
    asked = request(here.ledger, model, by, reason, here.now)
    return asked, *follow(here, model, asked)


def asked_for(decision: Entry, *, raised: bool) -> str:
    """What a decision on a person's word leads to."""
    when = "its alarm is raised" if raised else "the next decision raises its alarm"
    return f"line {decision.number}: retraining {decision.body['wanted']} is wanted; {when}"


def follow(here: Here, model: str, said: Entry) -> tuple[Entry, bool]:
    """Decide at once on what a person said, besides the daily decision: of losses nothing is looked at."""
    policy, timezone = here.policy(model), here.project.timezone
    past = record.past(here.ledger, policy, model, timezone)
    day = day_of(here.now, timezone) - timedelta(days=1)
    found = decide(policy, pl.DataFrame(schema=COLUMNS), past, day, here.now, timezone)
    key = f"{day} line {said.number}"
    line = record.write(here.ledger, policy, model, key, here.now, found, timezone)
    return line, found.answer == "retrain" and _raised(here, policy.name, line)


def _raised(here: Here, policy: str, line: Entry) -> bool:
    """Raise the alarm without a run. Not on a replayed state: its conditions would take the wall clock for its own."""
    from ml_platform.automation.made import alarm
    from ml_platform.stores.clock import Clock

    if Clock(here.profile.clock_path).replayed() is not None:
        return False
    told: dict[str, str | int] = {
        "reason": str(line.body["reason"]),
        "wanted": int(line.body["wanted"]),
        "decided_on": line.key,
    }
    return alarm(here.profile.dagster_home, asset_keys.retrain(policy), told)
