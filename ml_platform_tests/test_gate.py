"""The gate's questions one by one, and how their answers make one verdict."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from ml_platform.evaluation.criteria import (
    beats_all,
    fast_enough,
    no_leak,
    no_slice_regresses,
    sane,
    served_as_recomputed,
)
from ml_platform.evaluation.gate import Evidence, Judged, check_gate, judge, together
from ml_platform.evaluation.intervals import draw
from ml_platform.evaluation.slices import Answers, fairness_table, slice_table
from ml_platform.metrics import auc, log_loss
from ml_platform.monitoring.grouped import groups
from ml_platform.spec import (
    DeclarationError,
    Fairness,
    GatePolicy,
    ModelSpec,
    Project,
    RetrainPolicy,
    Slice,
    UnknownName,
    Verdict,
)
from ml_platform.stores.ledger import without_examples
from ml_platform.training.encoding import Encoding
from ml_platform_tests.test_evaluation import POLICY, scored
from ml_platform_tests.test_training import SPEC, VIEWS

SLICES = {"half": Slice(by=pl.col("half"), min_rows=100)}
GATED = replace(SPEC, gate=replace(POLICY, baselines=("constant", "logistic")), slices=SLICES)
ENCODING = Encoding(categories={}, numbers=["by_line__a"])


def evidence(rows: pl.DataFrame, **changed: Any) -> Evidence:
    """Rows with baselines and inputs: the logistic one knows a fifth of the truth."""
    odds = (rows["challenger"] / (1 - rows["challenger"])).log()
    inputs = rows.select("happens_at", "label", half=pl.int_range(pl.len()) % 2, by_line__a=odds)
    weak = 1 / (1 + (-(0.2 * odds - 0.8)).exp())
    told: dict[str, Any] = {
        "scored": rows.with_columns(constant=0.3, logistic=weak),
        "rows": inputs,
        "encoding": ENCODING,
        "weights": np.array([0.5, -1.0]),
        "latency_ms": [0.2] * 20,
        "timezone": "America/New_York",
    }
    return Evidence(**{**told, **changed})


def states(judged: Judged) -> dict[str, str]:
    return {name: verdict.state for name, verdict in judged.criteria.items()}


def test_a_better_challenger_passes_every_question() -> None:
    found = judge(evidence(scored(), skew={"desk": None}), GATED)
    asked = ["sane", "champion", "slices", "baselines", "leak", "latency", "skew"]
    assert states(found) == dict.fromkeys(asked, "pass")
    assert found.verdict.state == "pass"
    assert found.verdict.reason == found.criteria["champion"].reason
    assert {"gain", "logistic_gain", "worst_gain", "latency_ms_p95", "largest_weight"} <= set(found.verdict.measures)


def test_the_first_version_must_beat_the_constant_and_has_no_slices_to_lose() -> None:
    rows = scored().with_columns(champion=pl.lit(None, pl.Float64))
    found = judge(evidence(rows, first=True), GATED)
    assert found.verdict.state == "pass"
    assert found.verdict.reason.startswith("the first version; it beats the constant by +")
    assert "slices" not in found.criteria
    assert found.slices is not None
    assert found.slices["gain"].null_count() == found.slices.height == 2
    shuffled = rows.with_columns(pl.col("challenger").shuffle(seed=1))
    assert judge(evidence(shuffled, first=True), GATED).verdict.state == "fail"


@pytest.mark.parametrize("wrong", [float("nan"), -0.01, 1.01, float("inf")])
def test_predictions_that_are_no_probabilities_fail_before_anything_is_measured(wrong: float) -> None:
    rows = scored()
    broken = rows.with_columns(pl.Series([wrong, *rows["challenger"][1:]]).alias("challenger"))
    found = judge(evidence(rows, scored=broken), GATED)
    assert states(found) == {"sane": "fail"}
    assert found.verdict.reason.startswith("1 of 1400 of its predictions are no probabilities")
    mad = rows.with_columns(pl.Series([wrong, *rows["champion"][1:]]).alias("champion"))
    beaten = judge(evidence(mad), replace(GATED, slices={}))
    assert beaten.verdict.state == "pass"
    assert "1 of 1400 of the champion's predictions are no probabilities" in beaten.verdict.reason


def test_weights_are_numbers_within_the_bound() -> None:
    assert sane([0.5], [], 10).state == "pass"
    assert sane([0.5], [3.0, -9.9], 10).measures["largest_weight"] == 9.9
    assert "its largest weight is 11, 10 is allowed" in sane([0.5], [3.0, -11], 10).reason
    assert sane([0.5], [3.0, np.nan, np.inf], 10).reason == "2 of its 3 weights are no numbers"


def test_a_group_that_loses_stops_a_challenger_that_wins_on_the_whole() -> None:
    rows = scored(2800, days=14)
    odd = pl.int_range(pl.len()) % 2 == 1
    worse = rows.with_columns(challenger=pl.when(odd).then(1 - pl.col("challenger")).otherwise("challenger"))
    worse = worse.with_columns(champion=pl.when(odd).then("champion").otherwise(0.5))
    told = evidence(rows, scored=evidence(rows).scored.with_columns(worse["challenger"], worse["champion"]))
    found = judge(told, replace(GATED, gate=replace(GATED.gate, min_gain=-9.0)))
    assert found.criteria["champion"].state == "pass"
    assert found.criteria["slices"].state == "fail"
    assert found.criteria["slices"].reason.startswith(
        "1 of 2 groups lose to the champion beyond their margin (by half)"
    )
    assert "; for example half 1 -" in found.verdict.reason
    assert found.verdict.reason.startswith(f"{found.criteria['champion'].reason}; but ")
    assert "half 1" not in without_examples(found.verdict.reason)
    assert found.verdict.state == "fail"


def test_equal_models_lose_no_group_however_many_there_are() -> None:
    """Two models that are equally good and differ row by row: what is beyond a margin is chance."""
    draw_, refused = np.random.default_rng(4), 0
    for _ in range(20):
        day, group = np.repeat(np.arange(7), 900), draw_.integers(0, 40, 6300).astype(str)
        odds = draw_.normal(-1, 1, day.size) + draw_.normal(0, 0.5, 7)[day]
        labels = pl.Series(draw_.random(day.size) < 1 / (1 + np.exp(-odds)))
        one, other = (pl.Series(1 / (1 + np.exp(-(odds + draw_.normal(0, 0.5, day.size))))) for _ in range(2))
        declared = {"group": Slice(by=pl.col("group"), min_rows=50)}
        grouped = pl.DataFrame({"group": group})
        draws = draw(day, seed=1, resamples=1000)
        table = slice_table(Answers(labels=labels, challenger=one, rival=other), grouped, declared, draws)
        assert table["judged"].all()
        refused += no_slice_regresses(table).state == "fail"
    assert refused <= 3


def test_groups_are_what_a_plain_loop_finds() -> None:
    rows = evidence(scored()).rows.with_columns(distance=pl.Series([None, 10.0, 500.0, 999.0, 2000.0] * 280))
    declared = {
        "local_hour": Slice(by=pl.col("happens_at").dt.hour()),
        "distance": Slice(by=pl.col("distance"), bands=(500, 1000), min_rows=281),
    }
    found = groups(rows, declared, "America/New_York")
    assert found["distance"][:5].to_list() == ["(missing)", "below 500", "500 to 1000", "500 to 1000", "1000 and more"]
    assert found["local_hour"][0] == "19"  # midnight UTC
    answers = Answers(labels=scored()["label"], challenger=scored()["challenger"], rival=scored()["champion"])
    table = slice_table(answers, found, declared, draw(scored()["day"], seed=1, resamples=100))
    names = table.filter(slice="distance")["group"].to_list()
    assert names == ["below 500", "500 to 1000", "1000 and more", "(missing)"]
    hours = [int(each) for each in table.filter(slice="local_hour")["group"]]
    assert hours == sorted(hours) == sorted(set(hours))
    for row in table.iter_rows(named=True):
        mine = scored().filter(found[row["slice"]] == row["group"])
        assert (row["rows"], row["days"]) == (mine.height, mine["day"].n_unique())
        assert row["auc"] == pytest.approx(auc(mine["label"], mine["challenger"]))
        assert row["gain"] == pytest.approx(row["champion_log_loss"] - row["log_loss"])
        assert row["champion_log_loss"] == pytest.approx(log_loss(mine["label"], mine["champion"]))
        assert row["judged"] == (row["slice"] == "local_hour" and mine.height >= 300) or row["group"] == "500 to 1000"


def test_fairness_counts_who_is_called_rightly_and_wrongly() -> None:
    grouped = pl.DataFrame({"city": ["b", "b", "b", "a", "a"]})
    labels, given = pl.Series([1, 0, 1, 0, 0]), pl.Series([0.9, 0.8, 0.1, 0.6, 0.2])
    table = fairness_table(labels, given, grouped, Fairness(slices=("city",), threshold=0.6), {"city": 3})
    assert table["compared"].to_list() == [False, True]
    assert table["group"].to_list() == ["a", "b"]
    first, second = table.iter_rows(named=True)
    assert (first["called"], first["true_positive_rate"], first["false_positive_rate"]) == (0.5, None, 0.5)
    assert (second["rows"], second["true_positive_rate"], second["false_positive_rate"]) == (3, 0.5, 1.0)


def test_who_does_not_beat_a_baseline_fails() -> None:
    rows = scored()
    told = evidence(rows)
    better = told.scored.select(pl.col("challenger") * 0.1 + pl.col("label") * 0.9).to_series()
    found = judge(replace(told, scored=told.scored.with_columns(logistic=better)), GATED)
    assert states(found)["baselines"] == "fail"
    assert "; but it does not beat logistic regression: the gain is -0." in found.verdict.reason
    assert "constant" not in found.verdict.reason
    only = replace(GATED, gate=replace(GATED.gate, baselines=("constant",)))
    assert judge(replace(told, scored=told.scored.with_columns(logistic=better)), only).verdict.state == "pass"
    day = told.scored["day"].dt.day() % 2 == 0
    like = told.scored.select(pl.when(day).then(better).otherwise(0.5)).to_series()
    close = judge(replace(told, scored=told.scored.with_columns(logistic=like)), GATED)
    assert (states(close)["baselines"], close.verdict.state) == ("warn", "warn")
    assert "; it does not beat logistic regression: the gain is" in close.verdict.reason
    assert beats_all({}).state == "pass"


def test_latency_is_judged_by_the_slowest_twentieth() -> None:
    assert fast_enough([1.0] * 95 + [100.0] * 5, 10).state == "pass"
    late = fast_enough([1.0] * 90 + [100.0] * 10, 10)
    assert (late.state, late.measures["latency_ms_p50"]) == ("fail", 1.0)
    assert late.reason == "95% of single rows are answered within 100.00 ms, the budget is 10 ms"


def test_a_difference_in_what_is_served_warns() -> None:
    found = judge(evidence(scored(), skew={"desk": "3 of 10 values differ"}), GATED)
    assert (found.verdict.state, found.verdict.passed) == ("warn", True)
    assert found.verdict.reason.endswith("so a promotion will wait (desk: 3 of 10 values differ)")
    assert found.verdict.reason.startswith("it beats the champion")
    assert served_as_recomputed({"desk": None, "till": None}).reason == "desk, till served what is recomputed"


def test_an_auc_that_is_too_good_names_the_input_that_leaks() -> None:
    draw_ = np.random.default_rng(2)
    labels = draw_.integers(0, 2, 500)
    rows = pl.DataFrame(
        {
            "label": labels,
            "fair": draw_.normal(size=500) + labels,
            "gone_if_late": pl.Series(draw_.normal(size=500)).set(pl.Series(labels == 1), None),
        }
    )
    encoding = Encoding(categories={}, numbers=["fair", "gone_if_late"])
    assert no_leak(0.9, 0.98, rows, encoding).state == "pass"
    found = no_leak(0.99, 0.98, rows, encoding)
    assert (found.state, found.measures["likely_leak"]) == ("warn", "gone_if_late")
    assert "Most likely gone_if_late, whose AUC alone is 1.000; next fair with 0.7" in found.reason


def test_labels_that_are_not_mature_and_a_champion_that_cannot_answer_are_unknown() -> None:
    found = judge(evidence(scored(), maturity=0.5), GATED)
    assert states(found) == {"sane": "pass", "champion": "unknown", "latency": "pass"}
    assert found.verdict.reason.startswith("only 50% of the holdout's labels have arrived, 80% are needed")
    assert judge(evidence(scored(), stands="it cannot answer"), GATED).verdict.reason == "it cannot answer"
    few = judge(evidence(scored()), replace(GATED, gate=replace(GATED.gate, min_rows=5000)))
    assert (few.verdict.state, few.slices) == ("unknown", None)
    slow = judge(evidence(scored(), stands="it cannot answer", latency_ms=[99.0]), GATED)
    assert slow.verdict.state == "fail"


@pytest.mark.parametrize(
    ("given", "state"),
    [("pass warn", "warn"), ("pass unknown warn", "unknown"), ("unknown fail", "fail"), ("pass pass", "pass")],
)
def test_the_worst_answer_decides(given: str, state: str) -> None:
    criteria = {f"{n}": Verdict(state=cast("Any", each), reason=each) for n, each in enumerate(given.split())}
    assert together(criteria).state == state


def project_with(spec: ModelSpec, policies: Mapping[str, RetrainPolicy] | None = None) -> Project:
    return Project(
        name="trips",
        features="feature_defs",
        timezone="UTC",
        starts=date(2024, 3, 1),
        ready_from=date(2024, 3, 1),
        serves_from=date(2024, 4, 1),
        replay_until=date(2024, 4, 30),
        views={view.name: view for view in VIEWS},
        models={spec.name: spec},
        retrain_policies=policies or {},
    )


def test_a_holdout_as_long_as_the_cooldown_is_refused() -> None:
    spec = replace(SPEC, policy="p")
    check_gate(SPEC, project_with(SPEC))
    check_gate(spec, project_with(spec, {"p": RetrainPolicy(name="p", cooldown=timedelta(days=8))}))
    with pytest.raises(DeclarationError, match=r"late_trees: gate.holdout is 7 days.* policy p may retrain after 7"):
        check_gate(spec, project_with(spec, {"p": RetrainPolicy(name="p", cooldown=timedelta(days=7))}))


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"gate": GatePolicy(confidence=1.5)}, DeclarationError, "gate.confidence=1.5 is no limit"),
        ({"gate": GatePolicy(latency_budget_ms=0)}, DeclarationError, "gate.latency_budget_ms=0 is no limit"),
        ({"gate": GatePolicy(baselines=cast("Any", ("logistics",)))}, UnknownName, "did you mean logistic"),
        ({"slices": {"s": Slice(by=pl.col("by_lin__a"))}}, UnknownName, r"slice s.*did you mean by_line__a"),
        ({"slices": {"s": Slice(by=pl.col("line"), margin=-1)}}, DeclarationError, "slice s has margin=-1"),
        ({"fairness": Fairness(slices=("lines",))}, UnknownName, "fairness of model late_trees"),
    ],
)
def test_a_gate_that_cannot_judge_stops_the_definitions(
    changed: dict[str, Any], error: type[DeclarationError], says: str
) -> None:
    with pytest.raises(error, match=says):
        check_gate(replace(SPEC, **changed), project_with(SPEC))
