"""Training-serving skew: served vectors against vectors recomputed from the raw tables by the slow, obvious way."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

import polars as pl

from ml_platform.features.corrections import corrected, versions_of
from ml_platform.features.oracle import Oracle, Value
from ml_platform.features.request_oracle import Answer, RequestOracle
from ml_platform.spec import KNOWN_AT, Active, FeatureView, Latest, RequestView, Verdict, View
from ml_platform.stores.ledger import Entry, Ledger, without_examples
from ml_platform.stores.ledger_kinds import SKEW

COLUMNS = {
    "prediction_id": pl.String,
    "feature": pl.String,
    "served": pl.Float64,
    "recomputed": pl.Float64,
}


def compare(
    served: pl.DataFrame, views: Mapping[str, View], frames: Mapping[str, pl.DataFrame]
) -> tuple[int, pl.DataFrame]:
    """How many values were compared, and each that differs in any bit (missing against zero differs, too).

    A served feature that no view declares cannot be recomputed and counts as differing. A request feature is made anew
    of the row that was sent and of recomputed values, never of served ones.

    served: predictions as logged (``entities`` as JSON, ``asked_at``, ``as_of``, ``feature_names``, ``features``).
    frames: raw tables by name, reaching back from the first ``as_of`` as far as the views' windows.
    """
    if served.is_empty():
        return 0, pl.DataFrame(schema=COLUMNS)
    asked = [json.loads(text) for text in served["entities"]]
    first: datetime = min(served["as_of"].to_list())
    stored = {name: view for name, view in views.items() if isinstance(view, FeatureView)}
    tables = {(view.source, view.key) for view in stored.values()}
    several = {(table, key): corrected(key, frames[table]) for table, key in tables}
    oracles = {
        name: Oracle(view, _within_reach(view, frames, several[view.source, view.key], first, asked), since=first)
        for name, view in stored.items()
    }
    made = {name: RequestOracle(view, stored) for name, view in views.items() if isinstance(view, RequestView)}
    memory: dict[tuple[str, tuple[Any, ...], datetime], dict[str, Value]] = {}

    def looked_up(entities: Mapping[str, Any], as_of: datetime, full_name: str) -> Value:
        view_name, _, feature = full_name.partition("__")
        entity = tuple(entities[name] for name in stored[view_name].entity_names)
        place = (view_name, entity, as_of)
        if place not in memory:
            memory[place] = oracles[view_name].values(entity, as_of)
        return memory[place][feature]

    columns = served.select("prediction_id", "feature_names", "features")
    lookups = [partial(looked_up, row, as_of) for row, as_of in zip(asked, served["as_of"], strict=True)]
    answers = list(map(Answer, asked, served["asked_at"], lookups))
    uses = [{name.partition("__")[0] for name in names} for names in served["feature_names"]]
    of_request: dict[str, dict[int, dict[str, Value]]] = {}
    for view_name, oracle in made.items():
        places = [n for n, used in enumerate(uses) if view_name in used]
        of_request[view_name] = dict(zip(places, oracle.values([answers[n] for n in places]), strict=True))
    compared = 0
    differing: list[tuple[str, str, float | None, Value]] = []
    for n, (prediction, names, values) in enumerate(columns.iter_rows()):
        for full_name, value in zip(names, values, strict=True):
            view_name, _, feature = full_name.partition("__")
            compared += 1
            if view_name not in views or feature not in views[view_name].schema():
                differing.append((prediction, full_name, value, None))
                continue
            expected = of_request[view_name][n][feature] if view_name in made else lookups[n](full_name)
            if value != (None if expected is None else float(expected)):
                differing.append((prediction, full_name, value, expected))
    return compared, pl.DataFrame(differing, schema=COLUMNS, orient="row")


def sampled(served: pl.DataFrame, share: float) -> pl.DataFrame:
    """The share (0..1) of the predictions that is compared, chosen by a hash of their ids: each time the same ones."""
    if share >= 1:
        return served
    chosen = [int.from_bytes(sha256(name.encode()).digest()[:8]) < share * 2**64 for name in served["prediction_id"]]
    return served.filter(pl.Series(chosen, dtype=pl.Boolean))


def _within_reach(
    view: FeatureView,
    frames: Mapping[str, pl.DataFrame],
    several: pl.DataFrame,
    first: Any,
    asked: list[dict[str, Any]],
) -> dict[str, pl.DataFrame]:
    """Rows that can matter: going through a month of all rows for a window of an hour takes minutes.

    several: rows of the view's table whose fact has more than one.
    """
    main = frames[view.source]
    if not any(isinstance(feature, Latest) for feature in view.features):
        # What is known long before it happens (a timetable) is in reach by its time, not by when it became known.
        moments = [view.time, KNOWN_AT, *(f.opened_at for f in view.features if isinstance(f, Active))]
        newest = main.with_columns(**view.derive).select(pl.max_horizontal(moments)).to_series()
        main = main.filter(newest >= first - view.lookback - timedelta(days=1))
    names = [name for name in view.entity_names if name not in view.derive]
    if names:
        columns = {name: pl.Series([row[name] for row in asked]).cast(main.schema[name]) for name in names}
        main = main.join(pl.DataFrame(columns).unique(), on=names, how="semi")
    if several.height:  # what supersedes a row may name another entity, or lie at another time
        main = versions_of(view.key, main, frames[view.source])
    return {**frames, view.source: main}


def verdict(compared: int, differing: pl.DataFrame) -> Verdict:
    """Zero differences pass; the reason names the features that differ and one example."""
    measures = {"values_compared": compared, "values_differing": differing.height}
    if compared == 0:
        return Verdict.unknown("nothing was served, so nothing could be compared", **measures)
    if differing.is_empty():
        return Verdict(state="pass", reason=f"all {compared} served values equal the recomputed", measures=measures)
    worst = differing["feature"].value_counts(sort=True).head(3)
    named = ", ".join(f"{feature} ({count})" for feature, count in worst.iter_rows())
    one = differing.row(0, named=True)
    reason = (
        f"{differing.height} of {compared} served values differ from the recomputed: {named}; for example "
        f"{one['prediction_id']} was served {one['feature']} = {one['served']}, recomputed {one['recomputed']}"
    )
    return Verdict(state="fail", reason=reason, measures=measures)


def note_skew(ledger: Ledger, service: str, days: str, at: datetime, found: Verdict) -> Entry:
    """Write the verdict on these days down; where a later look finds otherwise, its own line holds."""
    body = {
        "days": days,
        "compared": found.measures["values_compared"],
        "differing": found.measures["values_differing"],
        "reason": without_examples(found.reason),
    }
    before = [entry for entry in ledger.entries(SKEW, service) if _days(entry) == days]
    if before and before[-1].body == body:
        return before[-1]
    return ledger.write(SKEW, service, f"{days} ({len(before) + 1})" if before else days, at, body)


def newest_skew(ledger: Ledger, service: str) -> list[Entry]:
    """The line that holds for each span of days."""
    return list({_days(entry): entry for entry in ledger.entries(SKEW, service)}.values())


def newest_look(ledger: Ledger, service: str) -> Entry | None:
    """The newest look that compared anything; None: there was none."""
    looks = [entry for entry in newest_skew(ledger, service) if int(entry.body["compared"])]
    return max(looks, key=lambda entry: str(entry.body["days"]), default=None)


def _days(entry: Entry) -> str:
    return str(entry.body.get("days", entry.key))
