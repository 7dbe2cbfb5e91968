"""Whether a raw table that could not be made is noticed by its deadline, by Dagster's own policy."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from ml_platform import asset_keys
from ml_platform.automation.freshness import DEADLINE, judge, with_policies
from ml_platform.automation.runs import clock_tags
from ml_platform.spec import SourceTable, Verdict


def stale(table: SourceTable, made: Sequence[datetime], at: datetime) -> Verdict:
    """The deadline of ``raw/<table>`` as of ``at``, if it was made at these moments (platform time)."""
    if table.fresh_within is None:
        return Verdict.unknown(f"raw/{table.name} has no deadline")
    key = asset_keys.raw(table.name)
    hours = table.fresh_within.total_seconds() / 3600

    @dg.asset(key=key, metadata={DEADLINE: hours})
    def raw_table() -> None:
        """Made when the drill says so."""

    silent = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    definitions = with_policies(dg.Definitions(assets=[raw_table]))
    with dg.DagsterInstance.ephemeral() as instance:
        for moment in made:
            dg.materialize([raw_table], instance=instance, tags=dict(clock_tags(moment)), run_config=silent)
        late = judge(definitions, instance, at)
    age = (at - made[-1]).total_seconds() / 3600
    told = f"raw/{table.name} was last made {age:.0f} hours ago; its deadline is {hours:.0f} hours"
    return Verdict(state="fail" if key in late else "pass", reason=told, measures={"age_hours": round(age, 1)})
