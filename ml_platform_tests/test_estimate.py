"""What a retraining would gain: found where the world moved, not found where it did not, from what is known by now."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml_platform.decisions.estimate import MOST_ROWS, estimate_gain, fresh_rows
from ml_platform.spec import HAPPENS_AT, GatePolicy, ModelRefused, ModelSpec
from ml_platform.spec.calendar import day_of
from ml_platform.stores.delta import PARTITION, Lake
from ml_platform.stores.prediction_log import LABEL_COLUMNS, PREDICTION_COLUMNS
from ml_platform.training.encoding import Encoding
from ml_platform.training.lightgbm_trees import Trees, fit_trees
from ml_platform.training.training_set import LABEL, LABEL_KNOWN_AT
from ml_platform_tests.trips import project as package
from ml_platform_tests.trips.models.late import late

NOW = datetime(2024, 5, 1, 4, tzinfo=UTC)
NEW_YORK = package.timezone
SPEC: ModelSpec = replace(late, name="late", gate=GatePolicy(holdout=timedelta(days=7), min_rows=200))
A_DAY = 150


def rows(days: int, until: datetime, seed: int, slope: float = 1.0) -> pl.DataFrame:
    """Answers whose truth follows ``planned__miles`` by ``slope``, and is known three hours later."""
    draw, count = np.random.default_rng(seed), days * A_DAY
    at = [until - timedelta(days=days) + timedelta(days=days) * (n / count) for n in range(count)]
    miles, noise = draw.normal(size=count), draw.normal(size=count)
    late_ones = draw.uniform(size=count) < 1 / (1 + np.exp(-2 * slope * miles))
    return pl.DataFrame(
        {
            HAPPENS_AT: at,
            "line": draw.choice(["A", "B"], count),
            "planned__miles": miles,
            "planned__noise": noise,
            LABEL: late_ones.astype(np.int64),
            LABEL_KNOWN_AT: [moment + timedelta(hours=3) for moment in at],
        },
        schema_overrides={HAPPENS_AT: pl.Datetime("us", "UTC"), LABEL_KNOWN_AT: pl.Datetime("us", "UTC")},
    )


@pytest.fixture(scope="module")
def champion() -> Trees:
    return fit_trees(SPEC, rows(60, NOW - timedelta(days=30), 1), 40, threads=1)


def test_a_world_that_moved_pays(champion: Trees) -> None:
    moved = rows(21, NOW, 2, slope=-0.3)
    found = estimate_gain(moved, champion, SPEC, NOW, NEW_YORK)
    assert found.state == "pass"
    assert found.measures["estimated_low"] > 0  # type: ignore[operator]
    assert found.reason.startswith("it pays: a correction learned from 2")
    assert estimate_gain(moved, champion, SPEC, NOW, NEW_YORK, min_gain=5.0).state == "fail"


def test_a_world_that_stayed_does_not_pay(champion: Trees) -> None:
    """The correction of noise costs more than it gains: seldom is it taken for a gain."""
    found = [estimate_gain(rows(21, NOW, seed), champion, SPEC, NOW, NEW_YORK) for seed in range(3, 15)]
    assert sum(one.state != "fail" for one in found) <= 4
    assert sum(one.state == "pass" for one in found) <= 1
    assert all(one.state != "unknown" for one in found)
    assert found[0].reason.startswith("it would not pay: ")


def test_the_same_rows_give_the_same_answer(champion: Trees) -> None:
    moved = rows(21, NOW, 2, slope=0.2)
    assert estimate_gain(moved, champion, SPEC, NOW, NEW_YORK) == estimate_gain(moved, champion, SPEC, NOW, NEW_YORK)


def test_a_label_that_arrived_within_the_judged_days_is_not_learned_from(champion: Trees) -> None:
    """Else what is learned could know of the days that it is judged on."""
    moved, held_from = rows(21, NOW, 2, slope=-1), NOW - SPEC.gate.holdout
    late_labels = moved.with_columns(
        pl.when(pl.col(HAPPENS_AT) < held_from)
        .then(held_from + timedelta(seconds=1))
        .otherwise(LABEL_KNOWN_AT)
        .alias(LABEL_KNOWN_AT)
    )
    found = estimate_gain(late_labels, champion, SPEC, NOW, NEW_YORK)
    assert (found.state, found.reason) == (
        "unknown",
        f"no gain can be estimated: 0 labelled answers are fresh to the champion and {7 * A_DAY} newer ones to judge "
        f"by; 300 and 200 are needed",
    )


@pytest.mark.parametrize("days", [0, 1, 7])
def test_too_few_rows_are_unknown(champion: Trees, days: int) -> None:
    assert estimate_gain(rows(21, NOW, 2)[: days * A_DAY], champion, SPEC, NOW, NEW_YORK).state == "unknown"


def test_one_row_and_one_class(champion: Trees) -> None:
    some = rows(21, NOW, 2)
    assert estimate_gain(some[:1], champion, SPEC, NOW, NEW_YORK).state == "unknown"
    always = some.with_columns(pl.lit(1).alias(LABEL))
    assert estimate_gain(always, champion, SPEC, NOW, NEW_YORK).state in ("pass", "fail")
    nothing = some.with_columns(pl.lit(None, pl.Float64).alias("planned__miles"))
    assert estimate_gain(nothing, champion, SPEC, NOW, NEW_YORK).state in ("pass", "fail")


def test_a_champion_that_cannot_answer_the_rows_is_told(champion: Trees) -> None:
    with pytest.raises(ModelRefused, match="planned__miles"):
        estimate_gain(rows(21, NOW, 2).drop("planned__miles"), champion, SPEC, NOW, NEW_YORK)


def test_many_rows_are_sampled(champion: Trees) -> None:
    many = pl.concat(rows(28, NOW, seed, slope=-1) for seed in range(9))
    assert many.height > MOST_ROWS
    found = estimate_gain(many, champion, SPEC, NOW, NEW_YORK)
    assert (found.state, found.measures["estimated_rows"]) == ("pass", MOST_ROWS)


# From the prediction log


def logged(lake: Lake, made: pl.DataFrame) -> None:
    """The answers and truths as a service logs them."""
    asked = made.with_row_index("id").with_columns(
        prediction_id=pl.format("t{}", "id"), asked_at=pl.col(HAPPENS_AT) - SPEC.task.lead
    )
    answers = pl.DataFrame(
        {
            "prediction_id": asked["prediction_id"],
            "asked_at": asked["asked_at"],
            "entities": asked.select(pl.concat_str(pl.lit('{"line":"'), "line", pl.lit('"}'))).to_series(),
            "feature_names": [["planned__miles", "planned__noise"]] * asked.height,
            "features": asked.select(pl.concat_list("planned__miles", "planned__noise")).to_series(),
        },
        schema_overrides={name: PREDICTION_COLUMNS[name] for name in ("asked_at", "feature_names", "features")},
    )
    truths = asked.select(
        "prediction_id",
        pl.lit("desk").alias("service"),
        pl.col(LABEL).alias("value"),
        pl.col(LABEL_KNOWN_AT).alias("known_at"),
    ).cast({"known_at": LABEL_COLUMNS["known_at"]})
    for name, frame, moment in (("predictions", answers, "asked_at"), ("labels", truths, "known_at")):
        days = frame[moment].dt.convert_time_zone(NEW_YORK).dt.date().alias(PARTITION)
        dated = frame.with_columns(days)
        lake.replace(f"{name}/desk", dated, sorted(set(days.to_list())))


def test_what_was_logged_comes_back_and_nothing_that_is_known_later(tmp_path: Path) -> None:
    lake, made = Lake(str(tmp_path)), rows(14, NOW, 5)
    logged(lake, made)
    encoding = Encoding(categories={"line": ["A", "B"]}, numbers=["planned__miles", "planned__noise"])
    until, now = NOW - timedelta(days=10), NOW - timedelta(days=2)
    found = fresh_rows(lake, "desk", SPEC, encoding, until, now, package)
    fresh = (pl.col(HAPPENS_AT) > until) & (pl.col(HAPPENS_AT) < now) & (pl.col(LABEL_KNOWN_AT) <= now)
    expected = made.filter(fresh)
    assert found.select(expected.columns).sort(HAPPENS_AT).equals(expected.sort(HAPPENS_AT))
    assert found.filter(pl.col(LABEL_KNOWN_AT) > now).is_empty()
    assert day_of(until, NEW_YORK) == date(2024, 4, 21)
