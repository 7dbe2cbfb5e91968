"""What a model loses without some of its inputs."""

from datetime import timedelta

import pytest

from ml_platform.evaluation.ablation import EVERYTHING, ablate, by_feature, by_view
from ml_platform.evaluation.plots import ablation as ablation_plot
from ml_platform.metrics import log_loss
from ml_platform.training.estimators import train
from ml_platform.training.training_set import split
from ml_platform_tests.test_training import SPEC, START, rows_of, world_of

NOW = START + timedelta(days=40)
PARTS = split(rows_of(world_of(40), NOW), SPEC, NOW)


def test_what_decides_is_lost_most_and_what_says_nothing_is_not() -> None:
    groups = by_view(SPEC, PARTS)
    assert groups == {"line": ["line"], "by_line": ["by_line__a", "by_line__n"], "by_stop": ["by_stop__a"]}
    found = ablate(SPEC, PARTS, groups, "UTC", threads=1)
    whole, *others = found.iter_rows(named=True)
    assert (whole["without"], whole["inputs"], whole["lost"], whole["importance"]) == (EVERYTHING, 4, 0, 1)
    assert whole["saved_training_s"] > 0
    assert whole["saved_us_a_row"] > 0
    assert [line["without"] for line in others] == ["by_line", "line", "by_stop"]
    assert others[0]["lost"] > others[0]["lost_low"] > 0
    assert abs(others[-1]["lost"]) < 0.01
    assert others[0]["importance"] > others[-1]["importance"]
    assert sum(line["importance"] for line in others) == pytest.approx(1)
    holdout = PARTS.filter(part="holdout")
    model = train(SPEC, PARTS.filter(part="train"), threads=1)
    assert whole["log_loss"] == log_loss(holdout["label"], model.predict(holdout))
    for line in others:
        assert line["lost"] == pytest.approx(line["log_loss"] - whole["log_loss"])
    assert ablation_plot(found).startswith(b"\x89PNG")


def test_every_input_can_be_left_out_alone() -> None:
    assert by_feature(SPEC, PARTS) == {name: [name] for name in ("line", "by_line__a", "by_line__n", "by_stop__a")}
