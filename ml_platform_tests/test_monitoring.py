"""Performance on late labels, and the monitoring assets: right at the boundaries, unknown where nothing is known."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform import asset_keys, metrics
from ml_platform.automation.partitions import RANGE_END_TAG, RANGE_START_TAG, daily
from ml_platform.features.skew import newest_skew
from ml_platform.monitoring.assets import monitoring_assets
from ml_platform.monitoring.performance import FOLLOWED_FOR, cohorts, newest
from ml_platform.monitoring.plots import performance_png
from ml_platform.monitoring.served import served_features
from ml_platform.resources.projects import load_project
from ml_platform.spec import Seasons
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
from ml_platform.stores.forgotten import forgotten_in
from ml_platform.stores.ledger import Ledger
from ml_platform.stores.prediction_log import LABEL_COLUMNS, PREDICTION_COLUMNS

NEW_YORK = "America/New_York"
TIME = pl.Datetime("us", "UTC")
DAY = date(2024, 3, 10)  # 23 hours long in New York
NOON = day_start(DAY, NEW_YORK) + timedelta(hours=11)


# Performance


def answered(*rows: tuple[str, datetime, str, float]) -> pl.DataFrame:
    schema = {"prediction_id": pl.String, "asked_at": TIME, "model_version": pl.String, "probability": pl.Float64}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def learned(*rows: tuple[str, int | None, datetime]) -> pl.DataFrame:
    schema = {"prediction_id": pl.String, "value": pl.Int64, "known_at": TIME}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def test_nothing_was_asked() -> None:
    assert cohorts(answered(), learned(), NEW_YORK).is_empty()
    assert cohorts(answered(), learned(("a", 1, NOON)), NEW_YORK).is_empty()


def test_no_label_is_no_loss_and_no_maturity() -> None:
    (row,) = cohorts(answered(("a", NOON, "1", 0.5)), learned(), NEW_YORK).to_dicts()
    assert (row["answered"], row["resolved"], row["labelled"], row["maturity"], row["loss_sum"]) == (1, 0, 0, 0.0, 0.0)
    assert [row[name] for name in ("log_loss", "auc", "late_share")] == [None] * 3


def test_a_truth_that_will_never_be_counts_as_arrived_only() -> None:
    found = cohorts(answered(("a", NOON, "1", 0.5), ("b", NOON, "1", 0.5)), learned(("a", None, NOON)), NEW_YORK)
    (row,) = found.to_dicts()
    assert (row["answered"], row["resolved"], row["labelled"], row["maturity"]) == (2, 1, 0, 0.5)
    assert row["log_loss"] is None


def test_one_class_has_a_loss_but_no_order() -> None:
    (row,) = cohorts(answered(("a", NOON, "1", 0.25)), learned(("a", 0, NOON)), NEW_YORK).to_dicts()
    assert row["log_loss"] == pytest.approx(-np.log(0.75))
    assert (row["auc"], row["late_share"]) == (None, 0.0)


def test_labels_of_unknown_predictions_change_nothing() -> None:
    rows = answered(("a", NOON, "1", 0.25))
    known = learned(("a", 0, NOON))
    strangers = learned(("b", 1, NOON), ("c", None, NOON))
    assert cohorts(rows, pl.concat([strangers, known]), NEW_YORK).equals(cohorts(rows, known, NEW_YORK))


def test_what_came_twice_counts_once_the_first_time() -> None:
    """A label posted again the next day, an answer given again by the next version."""
    rows = answered(("a", NOON, "1", 0.25), ("a", NOON + timedelta(days=1), "2", 0.9))
    known = learned(
        ("a", 1, NOON + timedelta(days=2)), ("a", 0, NOON + timedelta(hours=3)), ("a", 0, NOON + timedelta(days=1))
    )
    (row,) = cohorts(rows, known, NEW_YORK).to_dicts()
    assert (row["model_version"], row["answered"], row["resolved"], row["labelled"]) == ("1", 1, 1, 1)
    assert row["log_loss"] == pytest.approx(-np.log(0.75))


def test_a_cohort_is_a_local_day_also_when_clocks_change() -> None:
    for day in (DAY, date(2024, 11, 3)):
        start, end = day_start(day, NEW_YORK), day_start(day + timedelta(days=1), NEW_YORK)
        assert end - start != timedelta(hours=24)
        tick = timedelta(microseconds=1)
        rows = answered(*((str(n), at, "1", 0.5) for n, at in enumerate([start - tick, start, end - tick, end])))
        found = cohorts(rows, learned(), NEW_YORK)
        assert found.select("cohort", "answered").rows() == [
            (day - timedelta(days=1), 1),
            (day, 2),
            (day + timedelta(days=1), 1),
        ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from("12"), st.floats(0.01, 0.99), st.sampled_from([0, 1, None, "no label"])
        ),
        max_size=25,
    )
)
def test_cohorts_equal_counting_one_by_one(rows: list) -> None:
    predictions = answered(*((f"p{n}", NOON + timedelta(days=day), v, p) for n, (day, v, p, _) in enumerate(rows)))
    labels = learned(*((f"p{n}", truth, NOON) for n, (_, _, _, truth) in enumerate(rows) if truth != "no label"))
    found = {
        (row["cohort"], row["model_version"]): row
        for row in cohorts(predictions, labels, NEW_YORK).iter_rows(named=True)
    }
    assert set(found) == {(DAY + timedelta(days=day), version) for day, version, _, _ in rows}
    for (day, version), row in found.items():
        own = [(p, truth) for n, v, p, truth in rows if (DAY + timedelta(days=n), v) == (day, version)]
        judged = [(p, truth) for p, truth in own if truth in (0, 1)]
        assert (row["answered"], row["labelled"]) == (len(own), len(judged))
        assert row["resolved"] == len([truth for _, truth in own if truth != "no label"])
        losses = [-np.log(p if truth else 1 - p) for p, truth in judged]
        assert row["loss_sum"] == pytest.approx(sum(losses))
        if len({truth for _, truth in judged}) == 2:
            assert row["auc"] == pytest.approx(metrics.auc([t for _, t in judged], [p for p, _ in judged]))
        else:
            assert row["auc"] is None


def test_the_newest_look_at_a_cohort_holds() -> None:
    rows = cohorts(answered(("a", NOON, "1", 0.5)), learned(), NEW_YORK)
    later = cohorts(answered(("a", NOON, "1", 0.5)), learned(("a", 1, NOON)), NEW_YORK)
    looks = [rows.with_columns(known_date=pl.lit(DAY)), later.with_columns(known_date=pl.lit(DAY + timedelta(days=1)))]
    for history in (pl.concat(looks), pl.concat(looks[::-1])):
        assert newest(history)["labelled"].to_list() == [1]


def test_the_plot_needs_no_labels() -> None:
    png = b"\x89PNG"
    nothing = cohorts(answered(), learned(), NEW_YORK)
    assert performance_png(nothing).startswith(png)
    one = cohorts(answered(("a", NOON, "1", 0.5)), learned(("a", 1, NOON)), NEW_YORK)
    assert performance_png(one).startswith(png)
    assert performance_png(one) != performance_png(nothing)


# Served features


def predictions(day: date, count: int, names: list[str], values: Any, *, prefix: str = "") -> pl.DataFrame:
    at = day_start(day, NEW_YORK) + timedelta(hours=12)
    rows = [
        {
            "prediction_id": f"{prefix}{day}-{n}",
            "service": "desk",
            "model": "late",
            "model_version": "1",
            "probability": 0.25,
            "asked_at": at,
            "as_of": at,
            "answered_at": at,
            "entities": '{"line": "a", "trip": "t"}',
            "feature_names": names,
            "features": values(n),
        }
        for n in range(count)
    ]
    return pl.DataFrame(rows, schema=PREDICTION_COLUMNS).with_columns(known_date=pl.lit(day))


def test_each_row_keeps_its_day_whatever_the_order_and_another_models_features_are_left_out() -> None:
    old = predictions(DAY - timedelta(days=1), 3, ["a"], lambda n: [float(n)])
    new = [
        predictions(DAY + timedelta(days=d), 3, ["a", "b"], lambda n, d=d: [10.0 * d, None if n else 1.0])
        for d in range(3)
    ]
    rows = pl.concat([new[2], old, new[0], new[1], new[0]])  # out of order and one day twice
    served, days = served_features(rows)
    assert served.columns == ["a", "b"]
    assert served.height == 9
    assert all(a == 10.0 * (day - DAY).days for a, day in zip(served["a"], days, strict=True))
    assert served_features(rows.clear())[0].is_empty()


# The assets


def test_a_range_of_days_through_the_assets(tmp_path: Path) -> None:
    project = load_project("ml_platform_tests.trips")
    span = days_between(DAY - timedelta(days=8), DAY)
    policy = replace(project.drift_policies["inputs"], seasons=Seasons(recent_days=14, min_days=3))
    project = replace(project, drift_policies={"inputs": policy})
    lake, ledger, clock = Lake(str(tmp_path / "lake")), Ledger(tmp_path / "ledger.db"), Clock(tmp_path / "clock.json")
    clock.set(NOON + timedelta(days=1))
    for table in project.tables.values():
        rows = pl.DataFrame(schema=dict(table.columns) | {"known_date": pl.Date})
        lake.replace(f"raw/{table.name}", rows, span if table.partitioned else None)
    broken, silent = DAY - timedelta(days=2), DAY - timedelta(days=4)
    names = ["line_past__gone_1h"]
    parts = [
        predictions(day, 0 if day == silent else 40, names, lambda n, day=day: [9.0 if day == broken else n % 7.0])
        for day in span
    ]
    lake.replace("predictions/desk", pl.concat(parts), span)
    labels = pl.DataFrame(schema=LABEL_COLUMNS | {"known_date": pl.Date()})
    lake.replace("labels/desk", labels, span)
    assets = [a for a in monitoring_assets(project, daily(project)) if asset_keys.drift_report("inputs") not in a.keys]

    def made(first: date, last: date) -> dg.ExecuteInProcessResult:
        tags = {RANGE_START_TAG: str(first), RANGE_END_TAG: str(last)}
        resources = {"lake": lake, "ledger": ledger, "clock": clock, "forgotten": forgotten_in(tmp_path)}
        return dg.materialize(assets, resources=resources, tags=tags, raise_on_error=False)

    done = made(span[0], span[-1])
    checks = {found.asset_key: found for found in done.get_asset_check_evaluations()}
    # The last day is steady again, but the range holds a day that was not.
    assert not checks[asset_keys.drift("inputs")].passed
    assert str(broken) in str(checks[asset_keys.drift("inputs")].description)
    judged_days = lake.scan("drift/inputs").collect()
    assert set(judged_days.filter(pl.col("verdict") == "fail")["known_date"]) == {broken}
    assert silent not in judged_days["known_date"].to_list()
    # A feature that nobody declares any more: each answer is named, under its own day.
    assert not checks[asset_keys.skew("desk")].passed
    differing = lake.scan("skew/desk").collect()
    assert dict(differing.group_by("known_date").len().iter_rows()) == {day: 40 for day in span if day != silent}
    assert [entry.body["differing"] for entry in newest_skew(ledger, "desk")] == [40 * 8]
    history = newest(lake.scan("performance/desk").collect())
    assert history["cohort"].to_list() == [day for day in span if day != silent]
    assert set(history["labelled"]) == {0}
    assert history["known_date"].max() == DAY
    assert min(span) >= DAY - FOLLOWED_FOR

    # One day again, with a late label and after the cause was mended: that day's rows alone change.
    truth = {"prediction_id": f"{broken}-0", "service": "desk", "value": 1, "known_at": NOON, "known_date": DAY}
    lake.replace("labels/desk", pl.DataFrame([truth], schema=labels.schema), [DAY])
    lake.replace("predictions/desk", parts[-1].clear(), [DAY])
    done = made(DAY, DAY)
    checks = {found.asset_key: found for found in done.get_asset_check_evaluations()}
    assert checks[asset_keys.skew("desk")].metadata["verdict"].value == "unknown"
    assert not checks[asset_keys.skew("desk")].passed
    assert checks[asset_keys.drift("inputs")].metadata["verdict"].value == "unknown"
    assert DAY not in lake.days("skew/desk") | lake.days("drift/inputs")
    assert lake.days("skew/desk") == {day for day in span if day not in (silent, DAY)}
    history = newest(lake.scan("performance/desk").collect())
    assert history.filter(pl.col("labelled") > 0)["cohort"].to_list() == [broken]
