"""Performance on late labels and drift of served features: right at the boundaries, unknown where nothing is known."""

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
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from ml_platform import asset_keys, metrics
from ml_platform.automation.partitions import RANGE_END_TAG, RANGE_START_TAG, daily
from ml_platform.features.skew import newest_skew
from ml_platform.monitoring.assets import monitoring_assets, served_features
from ml_platform.monitoring.drift import COLUMNS, drift, js_distance
from ml_platform.monitoring.pages import write_drift_page
from ml_platform.monitoring.performance import FOLLOWED_FOR, cohorts, newest
from ml_platform.monitoring.plots import performance_png
from ml_platform.resources.projects import load_project
from ml_platform.spec import DriftPolicy
from ml_platform.spec.calendar import day_start, days_between
from ml_platform.stores.clock import Clock
from ml_platform.stores.delta import Lake
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


# Drift

POLICY = DriftPolicy(name="inputs", service="desk", min_rows=50, reference_days=14, min_days=7)
HISTOGRAMS = arrays(np.int64, st.shared(st.integers(1, 12), key="bins"), elements=st.integers(0, 50))


@settings(max_examples=300, deadline=None)
@given(HISTOGRAMS, HISTOGRAMS)
def test_the_distance_is_scipys(one: np.ndarray, other: np.ndarray) -> None:
    found = js_distance(one.astype(float), other.astype(float))
    assert 0 <= found <= 1
    if one.sum() and other.sum():
        assert found == pytest.approx(jensenshannon(one, other, base=2), abs=1e-7)
        assert found == js_distance(other.astype(float), one.astype(float))


def test_the_ends_of_the_distance() -> None:
    assert js_distance(np.array([3.0, 1.0]), np.array([6.0, 2.0])) == 0
    assert js_distance(np.array([3.0, 0.0]), np.array([0.0, 2.0])) == 1
    assert js_distance(np.array([0.0, 0.0]), np.array([0.0, 2.0])) == 1


def a_fortnight(seed: int, rows: int = 120, length: int = 15) -> tuple[pl.DataFrame, pl.Series]:
    """Stationary features of every shape, day by day; ``weather`` has a level of its own each day."""
    chance = np.random.default_rng(seed)
    days = np.repeat(np.arange(length), rows)
    n = len(days)
    gaps = chance.random(n) < 0.1
    frame = pl.DataFrame(
        {
            "temperature": chance.normal(60, 8, n),
            "weather": chance.uniform(0, 100, length)[days] + chance.normal(0, 1, n),
            "gapped": np.where(gaps, np.nan, chance.exponential(5, n)),
            "rare": np.where(chance.random(n) < 0.02, 1.0, 0.0),
            "always": np.full(n, 7.0),
            "count": chance.poisson(3, n).astype(float),
            "gone": np.full(n, np.nan),
        }
    ).fill_nan(None)
    return frame, pl.Series("known_date", [DAY + timedelta(days=int(day) - length + 1) for day in days])


def judged(frame: pl.DataFrame, days: pl.Series, policy: DriftPolicy = POLICY) -> dict[str, str]:
    table = drift(frame, days, DAY, policy)[1]
    return dict(table.select("feature", "verdict").iter_rows())


def today(frame: pl.DataFrame, days: pl.Series, feature: str, value: pl.Expr) -> pl.DataFrame:
    return frame.with_columns(pl.when(days == DAY).then(value).otherwise(pl.col(feature)).alias(feature))


FAULTS = {
    "another unit": ("temperature", pl.col("temperature") * 1.6),
    "another unit, of what moves daily": ("weather", (pl.col("weather") + 300) * 1.6),
    "lost": ("temperature", pl.lit(None)),
    "lost, of what moves daily": ("weather", pl.lit(None)),
    "lost, of what had gaps": ("gapped", pl.lit(None)),
    "a default instead of the gaps": ("gapped", pl.col("gapped").fill_null(0)),
    "stuck inside its range": ("temperature", pl.lit(60.0)),
    "stuck, of a count": ("count", pl.lit(3.0)),
    "one where zero was usual": ("rare", pl.lit(1.0)),
    "a constant that changed upwards": ("always", pl.lit(8.0)),
    "a constant that changed downwards": ("always", pl.lit(6.0)),
    "sign flipped": ("temperature", -pl.col("temperature")),
    "there for the first time": ("gone", pl.lit(1.0)),
    "infinite": ("temperature", pl.lit(float("inf"))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_nothing_beside_it(fault: str) -> None:
    feature, value = FAULTS[fault]
    for seed in range(3):
        frame, days = a_fortnight(seed)
        if "300" in str(value):
            frame = frame.with_columns(pl.when(days < DAY).then(pl.col("weather") + 300).otherwise(pl.col("weather")))
        verdict, table = drift(today(frame, days, feature, value), days, DAY, POLICY)
        assert verdict.state == "fail"
        assert table.filter(pl.col("verdict") == "fail")["feature"].to_list() == [feature]
        assert table["feature"][0] == feature
        assert f"of {feature} (" in verdict.reason


def test_the_same_season_raises_no_alarm() -> None:
    alarms = [seed for seed in range(50) if drift(*a_fortnight(seed), DAY, POLICY)[0].state != "pass"]
    assert len(alarms) <= 1, alarms


def test_missing_and_not_a_number_are_the_same() -> None:
    frame, days = a_fortnight(1)
    assert drift(frame.fill_null(float("nan")), days, DAY, POLICY)[1].equals(drift(frame, days, DAY, POLICY)[1])


def test_too_short_a_reference_is_unknown() -> None:
    frame, days = a_fortnight(1)
    for first, state in ((DAY - timedelta(days=7), "pass"), (DAY - timedelta(days=6), "unknown"), (DAY, "unknown")):
        verdict, table = drift(frame.filter(days >= first), days.filter(days >= first), DAY, POLICY)
        assert verdict.state == state
        assert table.is_empty() == (state == "unknown")
        assert table.schema == pl.Schema(COLUMNS)
    assert verdict.reason == "0 days to compare 2024-03-10 with; 7 are needed"


def test_days_with_few_answers_are_no_reference_and_are_not_judged() -> None:
    frame, days = a_fortnight(1)
    thin = (days != DAY - timedelta(days=1)) | (pl.Series(range(len(days))) % 4 == 0)
    measures = drift(frame.filter(thin), days.filter(thin), DAY, POLICY)[0].measures
    assert measures["reference_days"] == 13
    quiet = (days != DAY) | (pl.Series(range(len(days))) % 4 == 0)
    verdict, _ = drift(frame.filter(quiet), days.filter(quiet), DAY, POLICY)
    assert (verdict.state, verdict.reason) == ("unknown", "30 answers on 2024-03-10; 50 are needed")
    assert drift(frame, days, DAY + timedelta(days=1), POLICY)[0].state == "unknown"
    assert drift(frame.clear(), days.clear(), DAY, POLICY)[0].state == "unknown"


def test_one_day_says_nothing_about_what_is_usual() -> None:
    """With a single reference day nothing could ever fail, so it must not pass either."""
    frame, days = a_fortnight(1, length=2)
    verdict, _ = drift(frame, days, DAY, replace(POLICY, min_days=1))
    assert (verdict.state, verdict.reason) == ("unknown", "1 days to compare 2024-03-10 with; 2 are needed")


def test_answers_without_features_are_unknown() -> None:
    _, days = a_fortnight(1)
    assert drift(pl.DataFrame(), days, DAY, POLICY)[0].state == "unknown"


def test_order_of_rows_does_not_matter() -> None:
    frame, days = a_fortnight(2)
    order = pl.Series(np.random.default_rng(0).permutation(len(days)))
    assert drift(frame[order], days[order], DAY, POLICY)[1].equals(drift(frame, days, DAY, POLICY)[1])


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


# The page for people


def test_a_page_with_nothing_to_show_says_so(tmp_path: Path) -> None:
    frame, days = a_fortnight(1)
    target = tmp_path / "reports" / "page.html"
    assert "nothing was served yet" in write_drift_page(frame.clear(), days.clear(), POLICY, target)
    recent = days > DAY - timedelta(days=7)
    assert "nothing was served before 2024-03-04" in write_drift_page(
        frame.filter(recent), days.filter(recent), POLICY, target
    )
    assert "no feature has values" in write_drift_page(frame.select("gone"), days, POLICY, target)
    assert not target.exists()


@pytest.mark.slow  # Evidently takes 10 seconds to import and to draw
def test_the_page_is_made_by_evidently(tmp_path: Path) -> None:
    frame, days = a_fortnight(1)
    target = tmp_path / "reports" / "page.html"
    said = write_drift_page(frame, days, POLICY, target)
    assert said.endswith("; without gone, which had no value in one of them")
    assert [entry.name for entry in target.parent.iterdir()] == ["page.html"]
    page = target.read_text()
    assert len(page) > 100_000
    assert all(feature in page for feature in ("temperature", "weather", "always"))


# The assets


def test_a_range_of_days_through_the_assets(tmp_path: Path) -> None:
    project = load_project("ml_platform_tests.trips")
    span = days_between(DAY - timedelta(days=8), DAY)
    policy = replace(project.drift_policies["inputs"], min_days=3)
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
    assets = [a for a in monitoring_assets(project, daily(project)) if a.key != asset_keys.drift_report("inputs")]

    def made(first: date, last: date) -> dg.ExecuteInProcessResult:
        tags = {RANGE_START_TAG: str(first), RANGE_END_TAG: str(last)}
        resources = {"lake": lake, "ledger": ledger, "clock": clock}
        return dg.materialize(assets, resources=resources, tags=tags)

    done = made(span[0], span[-1])
    checks = {found.asset_key: found for found in done.get_asset_check_evaluations()}
    # The last day is steady again, but the range holds a day that was not.
    assert not checks[asset_keys.drift("inputs")].passed
    assert str(broken) in str(checks[asset_keys.drift("inputs")].description)
    judged_days = lake.scan("drift/inputs").collect()
    assert sorted(judged_days.filter(pl.col("verdict") == "fail")["known_date"]) == [broken]
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
