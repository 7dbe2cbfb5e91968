"""The rule that pages: an effect size beside the usual one, the same for every column, whatever their order."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.monitoring.sharp import day_score, sharp, sharp_threshold, standardised
from ml_platform.spec.alarms import SharpRule

DAY, RULE = date(2024, 3, 10), SharpRule()
SHARES = st.floats(0, 1)
COLUMN = st.tuples(st.one_of(st.none(), SHARES), st.one_of(st.none(), SHARES))


def table(*columns: tuple[float | None, float | None]) -> pl.DataFrame:
    rows = [(f"f{n}", "values", *found) for n, found in enumerate(columns)]
    schema = {"feature": pl.String, "of": pl.String, "distance": pl.Float64, "usual_maximum": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


@given(SHARES, st.floats(0.01, 0.9), st.floats(1, 9))
def test_the_threshold_asks_for_the_odds_and_can_be_reached(usual, least, odds):
    asked = float(sharp_threshold(usual, SharpRule(min_distance=least, odds=odds)))
    assert max(least, usual) - 1e-12 <= asked <= 1
    if least < asked < 1:
        assert asked / (1 - asked) == pytest.approx(odds * usual / (1 - usual))


@settings(max_examples=200, deadline=None)
@given(st.lists(COLUMN, max_size=12), st.randoms())
def test_each_column_is_judged_for_itself_whatever_the_order(columns, shuffle):
    verdict, told = sharp(table(*columns), DAY, "28 days", RULE)
    states = dict(told.select("feature", "verdict").iter_rows())
    for n, (distance, usual) in enumerate(columns):
        if distance is None or usual is None:
            assert states[f"f{n}"] == "unknown"
        else:
            assert (states[f"f{n}"] == "fail") is (distance >= float(sharp_threshold(usual, RULE)))
    mixed = table(*columns).sample(fraction=1, shuffle=True, seed=shuffle.randint(0, 9))
    assert sharp(mixed, DAY, "28 days", RULE)[1].equals(told)
    wanted = "fail" if "fail" in states.values() else "pass" if "pass" in states.values() else "unknown"
    assert verdict.state == wanted


def test_the_reason_names_the_columns_that_are_farthest_beyond():
    verdict, told = sharp(table((0.3, 0.1), (0.9, 0.1), (0.2, 0.2), (None, None)), DAY, "28 days", RULE)
    assert verdict.reason == (
        "2024-03-10: 2 of 3 features changed sharply against 28 days: "
        "values of f1 (0.90, usually at most 0.10), values of f0 (0.30, usually at most 0.10)"
    )
    assert told["feature"].to_list() == ["f1", "f0", "f2", "f3"]
    assert verdict.measures == {"features": 3, "features_drifted": 2, "largest_distance": 0.9}


def test_nothing_to_compare_is_unknown():
    for empty in (table(), table((None, None)), table((float("nan"), 0.1))):
        verdict, told = sharp(empty, DAY, "28 days", RULE)
        assert verdict.state == "unknown"
        assert told.height == empty.height
        assert set(told["verdict"]) <= {"unknown"}


def test_the_score_of_a_day_is_its_largest_multiple_of_the_usual_odds():
    assert day_score([0.5, 0.02], [0.2, 0.001]) == pytest.approx(4)
    assert standardised([0.02], [0.001])[0] < 0.5  # as little as that is what counting does
    assert day_score([np.nan, 0.2], [0.1, 0.2]) == pytest.approx(1)
    assert np.isfinite(day_score([1.0, 0.5], [1.0, 0.0]))
    assert day_score([np.nan], [0.1]) is None
    assert day_score([], []) is None


@given(st.floats(0.05, 0.98), st.floats(0.1, 0.998), st.floats(1, 9))
def test_pages_and_warnings_are_in_one_unit(usual, distance, odds):
    far, asked = standardised([distance], [usual])[0], float(sharp_threshold(usual, SharpRule(odds=odds)))
    if abs(far - odds) > 1e-9 and asked > 0.1:
        assert bool(far > odds) is bool(distance > asked)
