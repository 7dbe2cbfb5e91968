"""The page, the plots and the model card of a judged challenger."""

import re
from dataclasses import replace

import polars as pl
import pytest

from ml_platform import metrics
from ml_platform.evaluation.figures import losses_by_day, measure
from ml_platform.evaluation.gate import judge
from ml_platform.evaluation.plots import settled
from ml_platform.evaluation.report import Report, report
from ml_platform.spec import Fairness, ModelSpec
from ml_platform_tests.test_evaluation import scored
from ml_platform_tests.test_gate import GATED, evidence

FAIR = replace(GATED, fairness=Fairness(slices=("half",)), description="Trees with <seven> leaves.")


def made(rows: pl.DataFrame, spec: ModelSpec = FAIR, *, first: bool = False) -> Report:
    told = evidence(rows, first=first)
    judged = judge(told, spec)
    figures = measure(spec, told.scored, told.rows, judged, "America/New_York")
    return report(spec, 2, told.scored, figures, {"a": 0.7, "b": 0.3}, judged, {"version": 2, "code": "<abc>"})


def test_the_report_holds_measures_plots_groups_and_every_sentence() -> None:
    rows = scored()
    found = made(rows)
    assert found.measures["auc"] == metrics.auc(rows["label"], rows["challenger"])
    assert found.measures["champion_log_loss"] == metrics.log_loss(rows["label"], rows["champion"])
    assert found.measures["constant_auc"] == 0.5
    assert found.measures["logistic_brier"] > found.measures["brier"]
    drawn = ["ROC, precision-recall, lift", "Calibration", "Log-loss by day", "Gain by group", "Importance of inputs"]
    assert list(found.plots) == drawn
    assert all(png.startswith(b"\x89PNG") and len(png) > 5000 for png in found.plots.values())
    assert found.page.count("data:image/png") == 5
    assert "&lt;abc&gt;" in found.page
    assert "<th></th></tr>" not in found.page  # no head without a word
    for head in ("The gate", "Measures on the same rows", "Groups", "Fairness", "Where it comes from"):
        assert f"<h2>{head}</h2>" in found.page
    for name in ("sane", "champion", "slices", "baselines", "leak", "latency"):
        assert f'<td>{name}</td><td><b class="pass">pass</b></td>' in found.page
    assert "largest difference" in found.page
    interval = re.search(r"<td>AUC</td><td class=n>(\S+) <small>\((\S+) to (\S+)\)", found.page)
    assert interval is not None
    value, low, high = (float(interval[number]) for number in (1, 2, 3))
    assert low < value < high
    assert value == pytest.approx(found.measures["auc"], abs=1e-4)


def test_the_model_card_says_what_it_is_for_and_where_it_is_weak() -> None:
    card = made(scored()).card
    assert card.startswith("# late_trees version 2\n\n**pass**: it beats the champion")
    for head in ("What it is for", "What it was made of", "How good it is", "Where it is weak", "What it goes by"):
        assert f"\n## {head}\n" in card
    assert "Trees with <seven> leaves." in card
    assert re.search(r"\| auc \| 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\) \|", card)
    assert re.search(r"- half [01]: AUC 0\.\d{3}, log-loss 0\.\d{3} on 700 rows", card)
    assert "- a: 70.0%" in card


def test_a_first_version_has_no_champion_beside_it() -> None:
    found = made(scored().with_columns(champion=pl.lit(None, pl.Float64)), first=True)
    assert "champion_auc" not in found.measures
    assert "Gain by group" not in found.plots
    assert "challenger less champion" not in found.page


def test_what_cannot_be_measured_is_said_and_nothing_is_drawn_of_it() -> None:
    nothing = made(scored().with_columns(label=pl.lit(0, pl.Int8)))
    assert nothing.measures == {}
    assert list(nothing.plots) == ["Importance of inputs"]
    assert "not measured: all 1400 labels are 0" in nothing.page
    assert "Not measured: all 1400 labels are 0" in nothing.card
    rows = scored()
    mad = made(rows.with_columns(pl.Series([float("nan"), *rows["challenger"][1:]]).alias("challenger")))
    assert mad.measures == {}
    assert "not measured: 1 of 1400 of its predictions are no probabilities" in mad.page


def test_a_curve_begins_where_more_than_single_rows_decide() -> None:
    """The surest row of all is wrong: from its own point on, precision and lift rise from nothing."""
    rows = scored().sort("challenger", descending=True)
    rows = rows.with_columns(label=pl.when(pl.int_range(pl.len()) == 0).then(0).otherwise("label"))
    for curve in (metrics.precision_recall, metrics.lift):
        whole = curve(rows["label"], rows["challenger"])
        assert whole[1][0] == 0
        across, up = settled(whole)
        assert across[0] == pytest.approx(0.01, abs=0.005)
        assert up.min() > 0.2
        assert (across.tolist(), up.tolist()) == tuple(axis[-len(across) :].tolist() for axis in whole)


def test_losses_by_day_add_up() -> None:
    rows = scored()
    by_day = losses_by_day(rows)
    assert by_day.height == 7
    total = (by_day["challenger"] * by_day["rows"]).sum() / by_day["rows"].sum()
    assert total == pytest.approx(metrics.log_loss(rows["label"], rows["challenger"]))
