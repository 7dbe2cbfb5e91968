"""Which answers can be compared with the raw tables as they are now: those given since the newest forgetting.

An answer of before may have counted events that are gone since, in the windows of entities that nobody forgot. What it
was given cannot be computed again, so it is left out, and the verdict says so.
"""

from dataclasses import replace
from datetime import datetime

import polars as pl

from ml_platform.spec import Verdict


def given_since(served: pl.DataFrame, moment: datetime | None) -> pl.DataFrame:
    """The answers given (``answered_at``, the wall's time) at this moment or later; all of them without one."""
    return served if moment is None else served.filter(pl.col("answered_at") >= moment)


def telling_of_others(found: Verdict, others: int) -> Verdict:
    """The verdict with how many answers were left out."""
    if not others:
        return found
    left_out = f"{others} answers were given before an entity was forgotten and are not compared"
    only = found.measures.get("values_compared") == 0
    reason = f"all {left_out}" if only else f"{found.reason}; {left_out}"
    return replace(found, reason=reason, measures={**found.measures, "answers_not_compared": others})
