"""Answers by group, what mistakes cost, what probabilities promise, and whether old answers have their truths."""

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform import metrics
from ml_platform.monitoring.asked import columns_of, followed
from ml_platform.monitoring.performance import (
    COHORT,
    SLICE_COLUMNS,
    changed_groups,
    cohorts,
    joined,
    newest,
    sliced,
    truths_arrive,
)
from ml_platform.monitoring.plots import performance_png
from ml_platform.resources.projects import load_project
from ml_platform.spec import BusinessMetric, Slice, TooFewLabels
from ml_platform_tests.test_monitoring import DAY, NEW_YORK, NOON, answered, learned

PRICE = BusinessMetric(
    value=pl.when(pl.col("probability") >= 0.5).then(1 - pl.col("label")).otherwise(3 * pl.col("label")),
    low=0, high=3, margin=0.1, description="",
)  # fmt: skip
PROBABILITIES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=12)


# Estimates without labels


@given(PROBABILITIES)
def test_the_expected_auc_equals_going_through_all_pairs(values: list[float]) -> None:
    pairs = [(p, q) for i, p in enumerate(values) for j, q in enumerate(values) if i != j]
    chance = sum(p * (1 - q) for p, q in pairs)
    if chance < 1e-9:
        return
    right = sum(p * (1 - q) * ((p > q) + (p == q) / 2) for p, q in pairs)
    assert metrics.expected_auc(values) == pytest.approx(right / chance, abs=1e-9)


@pytest.mark.parametrize("values", [[0.3], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_without_a_pair_of_one_and_zero_no_auc_is_expected(values: list[float]) -> None:
    with pytest.raises(TooFewLabels):
        metrics.expected_auc(values)


def test_of_right_probabilities_the_promise_comes_true_and_of_wrong_ones_not() -> None:
    draw = np.random.default_rng(7)
    given_ = draw.beta(1, 3, 60_000)
    labels = draw.random(given_.size) < given_
    assert metrics.expected_log_loss(given_) == pytest.approx(metrics.log_loss(labels, given_), abs=0.005)
    assert metrics.expected_auc(given_) == pytest.approx(metrics.auc(labels, given_), abs=0.005)
    moved = draw.random(given_.size) < np.minimum(1, given_ * 2)  # the world changed, the probabilities did not
    assert metrics.log_loss(moved, given_) > metrics.expected_log_loss(given_) + 0.1


# Cohorts


def test_what_mistakes_cost_and_what_is_estimated_stand_beside_the_loss() -> None:
    rows = answered(("a", NOON, "1", 0.9), ("b", NOON, "1", 0.2), ("c", NOON, "1", 0.2), ("d", NOON, "1", 0.7))
    found = cohorts(rows, learned(("a", 0, NOON), ("b", 1, NOON), ("c", 0, NOON)), NEW_YORK, {"price": PRICE})
    (row,) = found.to_dicts()
    assert (row["price_sum"], row["price"]) == (4.0, pytest.approx(4 / 3))
    assert row["estimated_log_loss"] == pytest.approx(metrics.expected_log_loss([0.9, 0.2, 0.2, 0.7]))
    assert row["estimated_auc"] == pytest.approx(metrics.expected_auc([0.9, 0.2, 0.2, 0.7]))


def test_without_labels_there_is_an_estimate_and_no_cost() -> None:
    (row,) = cohorts(answered(("a", NOON, "1", 0.5)), learned(), NEW_YORK, {"price": PRICE}).to_dicts()
    assert (row["log_loss"], row["price"], row["price_sum"], row["estimated_auc"]) == (None, None, 0.0, None)
    assert row["estimated_log_loss"] == pytest.approx(np.log(2))


# Groups


TRUTH = st.sampled_from([0, 1, None, "no label"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0.01, 0.99), TRUTH, st.integers(0, 1)), max_size=20))
def test_groups_equal_counting_one_by_one(rows: list) -> None:
    predictions = answered(*((f"p{n}", NOON + timedelta(days=day), "1", p) for n, (_, p, _, day) in enumerate(rows)))
    labels = learned(*((f"p{n}", truth, NOON) for n, (_, _, truth, _) in enumerate(rows) if truth != "no label"))
    named = dict(zip((f"p{n}" for n in range(len(rows))), (group for group, *_ in rows), strict=True))
    asked = joined(predictions, labels, NEW_YORK)
    columns = pl.DataFrame({"city": pl.Series([named[name] for name in asked["prediction_id"]], dtype=pl.String)})
    columns = columns.with_columns(happens_at=asked["asked_at"])
    found = sliced(asked, columns, {"city": Slice(by=pl.col("city"))}, NEW_YORK)
    assert found.schema == pl.Schema(SLICE_COLUMNS)
    assert found["answered"].sum() == len(rows)
    for row in found.iter_rows(named=True):
        own = [(p, t) for g, p, t, d in rows if (g, DAY + timedelta(days=d)) == (row["group"], row[COHORT])]
        judged = [(p, t) for p, t in own if t in (0, 1)]
        assert (row["answered"], row["labelled"]) == (len(own), len(judged))
        assert (row["ones"] or 0) == sum(t for _, t in judged)
        assert (row["loss_sum"] or 0) == pytest.approx(-sum(np.log(p if t else 1 - p) for p, t in judged))


def test_groups_are_told_by_how_much_they_became_worse() -> None:
    rows = [
        {COHORT: DAY + timedelta(days=day), "model_version": "1", "slice": "city", "group": group, "answered": 100,
         "labelled": 100, "ones": 20, "loss_sum": 100 * loss}
        for day in range(35) for group, loss in (("a", 0.5), ("b", 0.4 if day < 28 else 0.7), ("c", 0.3))
    ]  # fmt: skip
    rows = [{**row, "labelled": 1} if row["group"] == "c" else row for row in rows]
    found = changed_groups(pl.DataFrame(rows, schema=SLICE_COLUMNS), DAY + timedelta(days=34), 7, 28, least=100)
    assert found["group"].to_list() == ["b", "a"]  # of c too little is known
    assert found["rise"].to_list() == pytest.approx([0.3, 0.0])
    assert changed_groups(pl.DataFrame(schema=SLICE_COLUMNS), DAY, 7, 28, 1).is_empty()


def test_the_newest_look_at_a_group_holds() -> None:
    one = {COHORT: DAY, "model_version": "1", "slice": "city", "group": "a", "answered": 1, "labelled": 0, "ones": 0,
           "loss_sum": 0.0}  # fmt: skip
    looks = pl.DataFrame([one, {**one, "labelled": 1}], schema=SLICE_COLUMNS)
    looks = looks.with_columns(known_date=pl.Series([DAY, DAY + timedelta(days=1)]))
    assert newest(looks, (COHORT, "model_version", "slice", "group"))["labelled"].to_list() == [1]


def test_what_was_asked_as_columns_of_a_training_set() -> None:
    project = load_project("ml_platform_tests.trips")
    spec = project.models["late"]
    asked = {"trip": "t", "line": "L3", "happens_at": "2024-03-10T12:00:00+00:00"}
    log = pl.DataFrame(
        {
            "prediction_id": ["a", "b"],
            "entities": [json.dumps(asked), json.dumps({"trip": "u", "line": None})],
            "feature_names": [["line_past__gone_1h"], []],
            "features": [[2.0], []],
        },
        schema_overrides={"feature_names": pl.List(pl.String), "features": pl.List(pl.Float64)},
    )
    names = ["happens_at", "line", "line_past__gone_1h", "line_past__absent"]
    found = columns_of(log, names, project, spec)
    assert found.to_dict(as_series=False) == {
        "happens_at": [datetime.fromisoformat(str(asked["happens_at"])), None],
        "line": ["L3", None],
        "line_past__gone_1h": [2.0, None],
        "line_past__absent": [None, None],
    }
    slices = {
        "line": Slice(by=pl.col("line")),
        "hour": Slice(by=pl.col("happens_at").dt.hour()),
        "label": Slice(by=pl.col("label")),  # nobody knows it when asked
    }
    assert list(followed(slices, project, spec)) == ["line", "hour"]


# Truths that never come


def looked_at(*rows: tuple[int, int, int]) -> pl.DataFrame:
    """(days before DAY, answered, resolved)."""
    columns = {COHORT: [DAY - timedelta(days=back) for back, _, _ in rows]}
    return pl.DataFrame(
        {**columns, "answered": [a for _, a, _ in rows], "resolved": [r for _, _, r in rows]},
        schema={COHORT: pl.Date, "answered": pl.Int64, "resolved": pl.Int64},
    )


@pytest.mark.parametrize(
    ("rows", "within", "state", "says"),
    [
        ([(0, 10, 0), (4, 900, 900)], 3, "pass", "900 of 900"),
        ([(0, 10, 0), (3, 900, 0)], 3, "unknown", "no answer is older than 3 days"),
        ([], 3, "unknown", "no answer is older"),
        ([(5, 900, 886), (4, 900, 900)], 3, "fail", "14 of 900 answers of 2024-03-05 have no truth 5 days later"),
        ([(5, 2000, 1999)], 3, "pass", "1999 of 2000"),  # one in a thousand may go lost
        ([(5, 10, 0)], None, "unknown", "truths_within"),
    ],
)
def test_whether_truths_arrive(rows: list[Any], within: int | None, state: str, says: str) -> None:
    found = truths_arrive(looked_at(*rows), DAY, None if within is None else timedelta(days=within))
    assert (found.state, says in found.reason) == (state, True), found.reason


def test_versions_of_a_day_are_judged_together() -> None:
    """Two versions answer during a rollout; a few answers of one must not make the day fail or hide it."""
    rows = pl.concat([looked_at((4, 1, 0)), looked_at((4, 1999, 1999))])
    assert truths_arrive(rows, DAY, timedelta(days=3)).state == "pass"
    assert truths_arrive(pl.concat([rows, looked_at((4, 0, 0))]), DAY, timedelta(days=3)).state == "pass"


def test_the_picture_has_a_panel_for_what_mistakes_cost() -> None:
    rows = answered(("a", NOON, "1", 0.5), ("b", NOON, "2", 0.5))
    labels = learned(("a", 1, NOON))
    plain, priced = (cohorts(rows, labels, NEW_YORK, business) for business in (None, {"price": PRICE}))
    heights = [int.from_bytes(performance_png(each)[20:24]) for each in (plain, priced)]
    assert heights[1] > heights[0]
