"""Drift: faults are found, a season is not, and too little to compare is unknown."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml_platform.monitoring.drift import ALL, COLUMNS, JOINT, SCORE, Together, drift, earlier_joint
from ml_platform.monitoring.drift_plot import drift_png
from ml_platform.monitoring.layouts import learn
from ml_platform.monitoring.pages import changed_most, write_drift_page
from ml_platform.monitoring.profile import Layout
from ml_platform.monitoring.profile_table import COLUMNS as PROFILED
from ml_platform.monitoring.profiling import profiles_by_day
from ml_platform.spec import AlarmBudget, DriftPolicy, Seasons, SharpRule, Verdict

DAY = date(2024, 3, 10)
POLICY = DriftPolicy(name="inputs", service="desk", min_rows=50, seasons=Seasons(recent_days=14, min_days=7))


def a_fortnight(seed: int, rows: int = 120, length: int = 15) -> tuple[pl.DataFrame, pl.Series]:
    """Stationary features of every shape, day by day; ``weather`` has a level of its own each day."""
    chance = np.random.default_rng(seed)
    days = np.repeat(np.arange(length), rows)
    n = len(days)
    gaps = chance.random(n) < 0.3
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


def profiles(frame: pl.DataFrame, days: pl.Series, layouts: list[Layout] | None = None) -> pl.DataFrame:
    """In bins of the days before."""
    return profiles_by_day(frame, days, layouts or learn(frame.filter(days < DAY), days=days.n_unique()))


def judged(
    frame: pl.DataFrame, days: pl.Series, policy: DriftPolicy = POLICY, day: date = DAY
) -> tuple[Verdict, pl.DataFrame]:
    return drift(profiles(frame, days), day, policy)


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
        verdict, table = judged(today(frame, days, feature, value), days)
        assert verdict.state == "fail"
        assert table.filter(pl.col("verdict") == "fail")["feature"].to_list() == [feature]
        assert table["feature"][0] == feature
        assert f"of {feature} (" in verdict.reason


def test_the_same_season_raises_no_alarm() -> None:
    alarms = [seed for seed in range(20) if judged(*a_fortnight(seed))[0].state != "pass"]
    assert len(alarms) <= 1, alarms


def test_all_four_distances_are_told_and_a_dead_column_is_named() -> None:
    frame, days = a_fortnight(1)
    verdict, table = judged(today(frame, days, "temperature", pl.col("temperature") + 30), days)
    assert table.schema == pl.Schema(COLUMNS)
    moved = table.row(0, named=True)
    assert all(moved[name] > 0.9 for name in ("distance", "ks", "psi", "wasserstein"))
    rows = {row["feature"]: row for row in table.iter_rows(named=True)}
    assert (rows["gone"]["verdict"], rows["gone"]["note"], rows["gone"]["ks"]) == ("unknown", "never had a value", None)
    verdict, _ = judged(frame, days)
    assert (verdict.state, verdict.reason.endswith("; never had a value: gone")) == ("pass", True)


def test_missing_and_not_a_number_are_the_same() -> None:
    frame, days = a_fortnight(1)
    assert judged(frame.fill_null(float("nan")), days)[1].equals(judged(frame, days)[1])


def test_too_short_a_reference_is_unknown() -> None:
    frame, days = a_fortnight(1)
    for first, state in ((DAY - timedelta(days=7), "pass"), (DAY - timedelta(days=6), "unknown"), (DAY, "unknown")):
        kept = frame.filter(days >= first), days.filter(days >= first)
        verdict, table = drift(profiles(*kept, learn(frame, days=1)), DAY, POLICY)
        assert verdict.state == state
        assert table.is_empty() == (state == "unknown")
        assert table.schema == pl.Schema(COLUMNS)
    assert "only 0 days" in verdict.reason
    assert "7 are needed" in verdict.reason


def test_days_with_few_rows_are_no_reference_and_are_not_judged() -> None:
    frame, days = a_fortnight(1)
    thin = (days != DAY - timedelta(days=1)) | (pl.Series(range(len(days))) % 4 == 0)
    assert judged(frame.filter(thin), days.filter(thin))[0].measures["reference_days"] == 13
    quiet = (days != DAY) | (pl.Series(range(len(days))) % 4 == 0)
    verdict, _ = judged(frame.filter(quiet), days.filter(quiet))
    assert (verdict.state, verdict.reason) == ("unknown", "30 rows on 2024-03-10; 50 are needed")
    assert judged(frame, days, day=DAY + timedelta(days=1))[0].state == "unknown"
    assert drift(pl.DataFrame(schema=dict(PROFILED)), DAY, POLICY)[0].state == "unknown"


def test_one_row_is_not_judged_and_no_reference() -> None:
    frame, days = a_fortnight(1)
    one = (days != DAY) | (pl.Series(range(len(days))) == len(days) - 1)
    assert judged(frame.filter(one), days.filter(one))[0].reason == "1 rows on 2024-03-10; 50 are needed"
    # A policy that takes any day still says nothing silly: a single row is far from anything, or like it.
    verdict, table = judged(frame.filter(one), days.filter(one), replace(POLICY, min_rows=1))
    assert verdict.state in ("fail", "pass")
    assert table["distance"].is_finite().all()


def test_one_day_says_nothing_about_what_is_usual() -> None:
    """With a single reference day nothing could ever fail, so it must not pass either."""
    frame, days = a_fortnight(1, length=2)
    verdict, _ = judged(frame, days, replace(POLICY, seasons=Seasons(recent_days=14, min_days=1)))
    assert (verdict.state, "2 are needed" in verdict.reason) == ("unknown", True)


def test_a_feature_that_came_or_went_leaves_the_day_unknown_and_is_named() -> None:
    frame, days = a_fortnight(1)
    layouts = learn(frame, days=15)
    before = profiles(frame.filter(days < DAY).drop("count"), days.filter(days < DAY), layouts)
    now = profiles(frame.filter(days == DAY), days.filter(days == DAY), layouts)
    verdict, table = drift(pl.concat([before, now]), DAY, POLICY)
    assert (verdict.state, "count: there on 0 of the days it is compared with" in verdict.reason) == ("unknown", True)
    assert table.filter(pl.col("feature") == "count")["verdict"].to_list() == ["unknown"]
    before = profiles(frame.filter(days < DAY), days.filter(days < DAY), layouts)
    verdict, _ = drift(pl.concat([before, now.filter(pl.col("column") != "count")]), DAY, POLICY)
    # Its days before are no rows of this day, so the feature is seen to be gone.
    assert (verdict.state, "count: not there any more" in verdict.reason) == ("unknown", True)


def test_a_sharp_change_fails_though_another_feature_went() -> None:
    frame, days = a_fortnight(1)
    frame = today(frame, days, "temperature", pl.col("temperature") * 1.6)
    rows = profiles(frame, days)
    kept = rows.filter((pl.col("column") != "count") | (pl.col("known_date") < DAY))
    assert drift(kept, DAY, POLICY)[0].state == "fail"


def test_huge_counts_of_categories_are_compared() -> None:
    days = pl.Series("known_date", [DAY - timedelta(days=14 - n // 500) for n in range(7500)])
    ids = pl.DataFrame({"id": [f"row {n}" for n in range(7500)], "line": ["AB"[n % 2] for n in range(7500)]})
    assert judged(ids, days)[0].state == "pass"
    renamed = today(ids, days, "line", pl.col("line").replace("A", "a"))
    assert judged(renamed, days)[0].state == "fail"


def test_a_number_that_grows_from_day_to_day_is_judged_by_its_missing_values_alone() -> None:
    frame, days = a_fortnight(1)
    hours = pl.Series("hour", [24.0 * (day - DAY).days + n % 24 for n, day in enumerate(days)])
    grows = frame.select("always").with_columns(hours)
    verdict, table = judged(grows, days)
    assert (verdict.state, table.filter(pl.col("feature") == "hour")["of"].to_list()) == ("pass", ["missing values"])
    lost, table = judged(today(grows, days, "hour", pl.lit(None)), days)
    assert (lost.state, table["feature"][0], table["of"][0]) == ("fail", "hour", "missing values")


def test_order_of_rows_does_not_matter() -> None:
    frame, days = a_fortnight(2)
    order = pl.Series(np.random.default_rng(0).permutation(len(days)))
    one, other = judged(frame[order], days[order])[1], judged(frame, days)[1]
    assert one["feature"].to_list() == other["feature"].to_list()
    assert np.allclose(one["distance"].drop_nulls(), other["distance"].drop_nulls(), atol=1e-12)


def test_a_policy_watches_the_columns_that_it_names() -> None:
    frame, days = a_fortnight(1)
    broken = today(frame, days, "temperature", pl.col("temperature") * 1.6)
    assert judged(broken, days, replace(POLICY, columns=("count", "rare")))[0].state == "pass"
    assert judged(broken, days, replace(POLICY, columns=("count", "temperature")))[0].state == "fail"


def test_what_is_unusual_warns_within_the_budget_once_enough_periods_have_closed() -> None:
    """The score of each day is kept beside the features, and is all that the threshold is made of."""
    frame, days = a_fortnight(1)
    budget = AlarmBudget(share=0.2, period_days=1, min_periods=5)
    policy = replace(POLICY, budget=budget, sharp=SharpRule(min_distance=0.5, odds=30.0))
    moved = today(frame, days, "temperature", pl.col("temperature") + 10)
    rows = {"feature": [ALL] * 9, "of": [SCORE] * 9, "distance": [1.0 + n * 4 % 9 / 50 for n in range(9)]}
    past = pl.DataFrame(rows).with_columns(known_date=pl.lit(DAY) - pl.duration(days=pl.int_range(9, 0, -1)))
    past = pl.concat([pl.DataFrame(schema={**COLUMNS, "known_date": pl.Date}), past], how="diagonal_relaxed")
    verdict, table = drift(profiles(moved, days), DAY, policy, past)
    assert verdict.state == "warn"
    assert "20% of the periods may warn" in verdict.reason
    assert verdict.reason.endswith("values of temperature; never had a value: gone")
    told = table.filter(pl.col("of") == SCORE).row(0, named=True)
    assert (told["verdict"], told["distance"] > told["threshold"] > 1.0) == ("warn", True)
    calm, _ = drift(profiles(frame, days), DAY, policy, past)
    assert calm.state == "pass"
    short, table = drift(profiles(moved, days), DAY, policy, past.head(3))
    assert short.state == "pass"  # it is not sharp, and nobody knows yet what is unusual
    assert table.filter(pl.col("of") == SCORE)["verdict"].to_list() == ["unknown"]


def test_rows_that_do_not_belong_together_fail_by_what_was_usual_before() -> None:
    frame, days = a_fortnight(1)
    rows = profiles(frame, days)
    usual = [0.05 + n / 100 for n in range(10)]

    def looked_at(far: float, earlier: list[float]) -> Together:
        return Together(distances={"plane": far, "route": 0.1}, earlier={"plane": earlier, "route": usual})

    verdict, _ = drift(rows, DAY, POLICY, together=looked_at(0.5, usual))
    assert (verdict.state, f"{JOINT} of plane (0.50, usually at most 0.14)" in verdict.reason) == ("fail", True)
    assert "route" not in verdict.reason
    assert drift(rows, DAY, POLICY, together=looked_at(0.15, usual))[0].state == "pass"
    verdict, table = drift(rows, DAY, POLICY, together=looked_at(0.5, usual[:3]))
    assert verdict.state == "pass"
    states = table.filter(pl.col("of") == JOINT).select("feature", "verdict")
    assert dict(states.iter_rows()) == {"plane": "unknown", "route": "pass"}
    past = table.with_columns(known_date=pl.lit(DAY - timedelta(days=1)))
    assert earlier_joint(past, DAY, timedelta(days=7)) == {"plane": [0.5], "route": [0.1]}
    assert earlier_joint(past, DAY, timedelta(0)) == {}


def test_the_plot_of_days_and_features_is_drawn_also_of_days_without_comparison() -> None:
    frame, days = a_fortnight(1)
    _, table = judged(today(frame, days, "temperature", pl.lit(60.0)), days)
    rows = table.with_columns(known_date=pl.lit(DAY))
    later = table.with_columns(known_date=pl.lit(DAY + timedelta(days=1)), distance=pl.lit(None, pl.Float64))
    for shown in (rows, pl.concat([rows, later])):
        assert drift_png(shown)[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_policy_that_could_never_judge_says_so() -> None:
    assert POLICY.problems() == []
    wrong = {
        "names a service or a table": DriftPolicy(),
        "one of the two": DriftPolicy(service="desk", table="asked"),
        "a table has no labels": DriftPolicy(table="asked", of="labels"),
        "could never judge": DriftPolicy(service="desk", seasons=Seasons(recent_days=5, min_days=7)),
        "a budget is a share": DriftPolicy(service="desk", budget=AlarmBudget(share=1.5)),
    }
    for says, policy in wrong.items():
        assert says in "; ".join(policy.problems())


def test_what_changed_most_comes_first() -> None:
    frame, days = a_fortnight(1)
    before, current = frame.filter(days < DAY), frame.filter(days == DAY)
    current = current.with_columns(pl.col("temperature") * 1.6, always=pl.lit(8.0), gapped=pl.lit(None, pl.Float64))
    assert {"temperature", "always", "gapped"} < set(changed_most(before, current)[:4])  # each day has its weather
    assert sorted(changed_most(before, current)) == sorted(frame.columns)


# The page for people


def test_a_page_with_nothing_to_show_says_so(tmp_path: Path) -> None:
    frame, days = a_fortnight(1)
    target = tmp_path / "reports" / "page.html"
    assert "nothing was served yet" in write_drift_page(frame.clear(), days.clear(), target)
    recent = days > DAY - timedelta(days=7)
    said = write_drift_page(frame.filter(recent), days.filter(recent), target)
    assert "nothing was served before 2024-03-04" in said
    assert "no feature has values" in write_drift_page(frame.select("gone"), days, target)
    assert not target.exists()


@pytest.mark.slow  # Evidently takes 10 seconds to import and to draw
def test_the_page_is_made_by_evidently(tmp_path: Path) -> None:
    frame, days = a_fortnight(1)
    target = tmp_path / "reports" / "page.html"
    said = write_drift_page(frame, days, target)
    assert said.endswith("; without gone, which had no value in one of them")
    assert [entry.name for entry in target.parent.iterdir()] == ["page.html"]
    page = target.read_text()
    assert len(page) > 100_000
    assert all(feature in page for feature in ("temperature", "weather", "always"))
