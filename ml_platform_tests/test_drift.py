"""Drift of served features: faults are found, a season is not, and too little to compare is unknown."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from ml_platform.monitoring.drift import COLUMNS, changed_most, drift, js_distance, reference
from ml_platform.monitoring.pages import write_drift_page
from ml_platform.spec import DriftPolicy

DAY = date(2024, 3, 10)
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


def test_days_with_too_few_answers_are_no_reference() -> None:
    _, days = a_fortnight(1)
    thin = DAY - timedelta(days=3)
    kept = days.filter((days != thin) | (pl.Series(range(len(days))) % 10 == 0))
    found = reference(kept, DAY, POLICY)
    assert found == [DAY - timedelta(days=n) for n in range(14, 0, -1) if n != 3]
    assert reference(kept, DAY, replace(POLICY, reference_days=5)) == found[-5:]


def test_what_changed_most_comes_first() -> None:
    frame, days = a_fortnight(1)
    before, current = frame.filter(days < DAY), frame.filter(days == DAY)
    current = current.with_columns(pl.col("temperature") * 1.6, always=pl.lit(8.0), gapped=pl.lit(None, pl.Float64))
    assert set(changed_most(before, current)[:3]) == {"temperature", "always", "gapped"}
    assert sorted(changed_most(before, current)) == sorted(frame.columns)


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
