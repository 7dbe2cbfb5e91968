"""What each input added: sums, an oracle for the trees, and what is said of models that do not add their inputs up."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.spec import NoContributions, scikit
from ml_platform.training.blend import blended
from ml_platform.training.contributions import Contributions, logistic, weighted
from ml_platform.training.encoding import Floats
from ml_platform.training.estimators import load, train
from ml_platform.training.lightgbm_trees import fit_trees
from ml_platform.training.model import Model
from ml_platform_tests.test_estimators import FOREST, LOGISTIC, NETWORK, REGRESSION
from ml_platform_tests.test_training import SPEC, START, rows_of, world_of


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return rows_of(world_of(40), START + timedelta(days=40))


@pytest.fixture(scope="module")
def network(rows: pl.DataFrame) -> Model:
    return train(NETWORK, rows, threads=1)


@pytest.fixture(scope="module", params=["trees", "network", "blend", "linear"])
def model(request: pytest.FixtureRequest, rows: pl.DataFrame, network: Model, tmp_path_factory: Any) -> Model:
    """As it is loaded from its files, which is what is explained."""
    folder: Path = tmp_path_factory.mktemp("model")
    if request.param == "blend":
        return load(blended([train(SPEC, rows, threads=1), network], [0.75, 0.25]).save(folder))
    specs = {"trees": SPEC, "linear": REGRESSION}
    made = network if request.param == "network" else train(specs[request.param], rows, threads=1)
    return load(made.save(folder))


def asked(model: Model, rows: pl.DataFrame) -> Floats:
    """Some rows, one with everything missing, one far away, one of an unseen category."""
    matrix = model.encoding.frame_matrix(rows.sample(12, seed=5))
    matrix[0] = np.nan
    matrix[1, len(model.encoding.categories) :] = 1e6
    matrix[2, : len(model.encoding.categories)] = np.nan
    return matrix


def test_contributions_and_base_are_the_raw_score_and_that_is_the_answer(model: Model, rows: pl.DataFrame) -> None:
    matrix = asked(model, rows)
    for row, answer in zip(matrix, model.predict_matrix(matrix), strict=True):
        found = model.contributions(row)
        assert found.values.shape == (len(model.encoding.inputs),)
        assert len(found.baselines) == len(model.encoding.inputs)
        assert np.isfinite(found.values).all()
        steps = "integrated gradients" in found.method  # an integral of finitely many steps
        assert abs(found.gap) < (1e-4 if steps else 1e-9)
        assert found.probability == pytest.approx(answer, abs=1e-6 if steps else 1e-12)
        assert found.scale == ("probability" if model.estimator == "blend" else "log-odds")


def test_what_the_model_learned_to_look_at_adds_most(model: Model, rows: pl.DataFrame) -> None:
    matrix = model.encoding.frame_matrix(rows.sample(60, seed=6))
    sizes = np.abs([model.contributions(row).values for row in matrix]).mean(axis=0)
    assert model.encoding.inputs[int(sizes.argmax())] in ("by_line__a", "line")


def test_an_input_that_stands_at_the_networks_baseline_adds_nothing(network: Model, rows: pl.DataFrame) -> None:
    row = network.encoding.frame_matrix(rows.head(1))[0]
    baselines = network.contributions(row).baselines
    at = [place for place, value in enumerate(baselines) if value is not None]
    assert len(at) == len(network.encoding.numbers)
    row[at] = [baselines[place] for place in at]
    assert network.contributions(row).values[at] == pytest.approx(0, abs=1e-12)


def test_of_trees_they_are_shapley_values_by_their_definition(rows: pl.DataFrame) -> None:
    """Of small trees: every subset of inputs, the others left to the rows that came by in training."""
    spec = replace(SPEC, parameters={"num_leaves": 4, "min_data_in_leaf": 20, "learning_rate": 0.3})
    trees = fit_trees(spec, rows, 5, threads=1)
    nodes = [tree["tree_structure"] for tree in trees.booster.dump_model()["tree_info"]]
    for row in trees.encoding.frame_matrix(rows.sample(6, seed=2)):
        found = trees.contributions(row)
        wanted = [_shapley(nodes, row, place) for place in range(len(row))]
        assert found.values == pytest.approx(np.array(wanted), abs=1e-9)
        assert found.base == pytest.approx(sum(_expected(node, row, frozenset()) for node in nodes), abs=1e-9)


def _shapley(nodes: list[Mapping[str, Any]], row: Floats, place: int) -> float:
    others = [each for each in range(len(row)) if each != place]
    total = 0.0
    for size in range(len(others) + 1):
        weight = factorial(size) * factorial(len(others) - size) / factorial(len(row))
        for known in map(frozenset, combinations(others, size)):
            total += weight * sum(_expected(n, row, known | {place}) - _expected(n, row, known) for n in nodes)
    return total


def _expected(node: Mapping[str, Any], row: Floats, known: frozenset[int]) -> float:
    """A tree's mean answer where only these inputs are known."""
    if "leaf_value" in node:
        return float(node["leaf_value"])
    left, right = node["left_child"], node["right_child"]
    if node["split_feature"] in known:
        return _expected(left if _goes_left(node, row[node["split_feature"]]) else right, row, known)
    counts = [child.get("internal_count", child.get("leaf_count")) for child in (left, right)]
    parts = [_expected(child, row, known) * count for child, count in zip((left, right), counts, strict=True)]
    return sum(parts) / sum(counts)


def _goes_left(node: Mapping[str, Any], value: float) -> bool:
    if node["decision_type"] == "==":
        return not np.isnan(value) and str(int(value)) in node["threshold"].split("||")
    if np.isnan(value):
        if node["missing_type"] == "NaN":
            return bool(node["default_left"])
        value = 0.0
    return bool(value <= node["threshold"])


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (FOREST.parameters, "RandomForestClassifier: of scikit-learn's models only LogisticRegression adds its inputs"),
        (
            scikit(
                ("sklearn.impute.SimpleImputer", {"keep_empty_features": True}),
                ("sklearn.decomposition.PCA", {}),
                ("sklearn.linear_model.LogisticRegression", {}),
            ),
            "no contributions for PCA before LogisticRegression: its coefficients are not those of single inputs",
        ),
        (
            scikit(
                ("sklearn.impute.SimpleImputer", {"add_indicator": True, "keep_empty_features": True}),
                ("sklearn.linear_model.LogisticRegression", {"max_iter": 300}),
            ),
            "no contributions for steps that add or drop inputs before LogisticRegression",
        ),
    ],
)
def test_a_model_that_does_not_add_its_inputs_up_says_so(rows: pl.DataFrame, steps: Any, says: str) -> None:
    model = train(replace(REGRESSION, parameters=steps), rows, threads=1)
    with pytest.raises(NoContributions, match=says):
        model.contributions(model.encoding.frame_matrix(rows.head(1))[0])


def test_a_scaled_regression_is_its_coefficients(rows: pl.DataFrame) -> None:
    model: Any = train(replace(REGRESSION, parameters=LOGISTIC), rows, threads=1)
    row = model.encoding.frame_matrix(rows.head(1))[0]
    *_, scaler, regression = (step for _, step in model.fitted.steps)
    known = np.where(np.isnan(row), scaler.mean_, row)
    wanted = regression.coef_[0] * (known - scaler.mean_) / scaler.scale_
    assert model.contributions(row).values == pytest.approx(wanted)


def part(values: list[float], base: float) -> Contributions:
    told: dict[str, Any] = {"scale": "log-odds", "method": "m", "baseline": "b", "baselines": (None,) * len(values)}
    return Contributions(values=np.array(values), base=base, raw=base + float(np.sum(values)), **told)


NUMBERS = st.floats(-20, 20)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=3), st.data())
def test_a_blend_adds_up_whatever_its_members_say(
    members: list[tuple[float, float, float]], data: st.DataObject
) -> None:
    weights = np.array(data.draw(st.lists(st.floats(0.1, 1), min_size=len(members), max_size=len(members))))
    shares = [float(share) for share in weights / weights.sum()]
    parts = [part([one, two], base) for one, two, base in members]
    found = weighted(parts, shares, ["m"] * len(parts))
    assert found.raw == pytest.approx(sum(s * logistic(p.raw) for s, p in zip(shares, parts, strict=True)))
    assert found.gap == pytest.approx(0, abs=1e-9)
