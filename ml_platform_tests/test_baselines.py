"""Baselines against scikit-learn on the same design, and on rows that are strange."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.evaluation import baselines
from ml_platform.evaluation.baselines import fit_logistic
from ml_platform.metrics import log_loss
from ml_platform.spec import ModelRefused, TooFewLabels
from ml_platform_tests.test_training import SPEC, START, rows_of, world_of

ROWS = rows_of(world_of(40), START + timedelta(days=40))


def test_it_is_the_optimum_that_scikit_learn_finds() -> None:
    from sklearn.linear_model import LogisticRegression

    fitted = fit_logistic(SPEC, ROWS, close=1e-5)
    design = baselines._design(baselines._numbers(fitted.encoding, fitted.odds, ROWS), fitted.columns)
    assert design.shape == (ROWS.height, 6)  # line, by_line's a and n, by_stop's a with gaps, and the constant
    peer = LogisticRegression(tol=1e-8, max_iter=1000).fit(design[:, :-1], ROWS["label"])
    np.testing.assert_allclose(fitted.weights[:-1], peer.coef_[0], atol=1e-3)
    assert fitted.weights[-1] == pytest.approx(peer.intercept_[0], abs=1e-3)
    np.testing.assert_allclose(fitted.predict(ROWS), peer.predict_proba(design[:, :-1])[:, 1], atol=1e-3)


@pytest.mark.parametrize("every", [2, 50])
def test_the_usual_end_is_close_to_it_for_common_and_rare_ones(every: int) -> None:
    rare = ROWS.with_columns(label=pl.when(pl.int_range(pl.len()) % every == 0).then("label").otherwise(0))
    usual = log_loss(rare["label"], fit_logistic(SPEC, rare).predict(rare))
    optimum = log_loss(rare["label"], fit_logistic(SPEC, rare, close=1e-6, most_steps=5000).predict(rare))
    assert usual == pytest.approx(optimum, abs=1e-4)


def test_unknown_categories_and_odd_numbers_have_answers() -> None:
    fitted = fit_logistic(SPEC, ROWS)
    odd = ROWS[:5].with_columns(
        line=pl.Series(["new", None, "a", "b", "c"]),
        by_line__a=pl.Series([None, float("nan"), float("inf"), 1e300, -1e300]),
        by_stop__a=pl.lit(None, pl.Float64),
    )
    answers = fitted.predict(odd)
    assert ((answers > 0) & (answers < 1)).all()
    assert answers[0] == fitted.predict(odd.with_columns(line=pl.lit("never seen")))[0]
    with pytest.raises(ModelRefused, match="trained with by_line__a, which the rows lack"):
        fitted.predict(odd.drop("by_line__a"))


def test_an_input_that_is_null_or_the_same_everywhere_adds_nothing() -> None:
    void = ROWS.with_columns(by_line__n=pl.lit(None, pl.Int64), by_stop__a=1.0)
    fitted = fit_logistic(SPEC, void)
    assert fitted.columns["by_line__n"] == (0.0, 1.0, True)
    without = fit_logistic(replace(SPEC, views=("by_line",)), void.drop("by_line__n"))
    np.testing.assert_allclose(fitted.predict(void), without.predict(void), atol=1e-3)


def test_the_constant_is_the_share_of_ones_and_one_class_is_refused() -> None:
    answers = baselines.baselines(SPEC, ROWS)
    assert set(answers) == {"constant", "logistic"}
    np.testing.assert_array_equal(answers["constant"](ROWS[:3]), np.full(3, ROWS["label"].cast(pl.Float64).mean()))
    with pytest.raises(TooFewLabels, match=r"late_trees: the .* training rows hold fewer than two classes"):
        baselines.baselines(SPEC, ROWS.with_columns(label=1))
