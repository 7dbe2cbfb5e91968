"""LightGBM's quick way for one row: the same bits as its ordinary one, on whatever is asked."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.spec import ModelRefused
from ml_platform.training.encoding import Encoding
from ml_platform.training.lightgbm_trees import Trees, trees
from ml_platform.training.single_row import SingleRow, golden_rows, refuse_differing

KNOWN = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def model() -> Trees:
    """Trees on two categories and six numbers, with missing values; of one number nothing else, one is a constant."""
    import lightgbm as lgb

    draw = np.random.default_rng(3)
    matrix = draw.normal(size=(4000, 8))
    matrix[:, :2] = draw.integers(0, len(KNOWN), (4000, 2))
    matrix[:, 7] = 1.5
    matrix[draw.random(matrix.shape) < 0.1] = np.nan
    matrix[:, 6] = np.nan
    label = np.nan_to_num(matrix[:, 2]) * np.nan_to_num(matrix[:, 3]) + (matrix[:, 0] == 2) > 0.3
    encoding = Encoding({"first": KNOWN, "second": KNOWN}, [f"n{n}" for n in range(6)])
    names = {"feature_name": encoding.inputs, "categorical_feature": [0, 1]}
    settings = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1}
    booster = lgb.train(settings, lgb.Dataset(matrix, label.astype(int), **names), num_boost_round=60)
    return trees(encoding, booster.model_to_string(num_iteration=-1), {})


def drawn(count: int, seed: int) -> list[tuple[Any, ...]]:
    """Rows of values in the order of the inputs: known and unknown categories, numbers of all sizes, missing ones."""
    draw = np.random.default_rng(seed)
    numbers = draw.normal(size=(count, 6)) * 10.0 ** draw.integers(-6, 7, (count, 6))
    numbers[draw.random(numbers.shape) < 0.1] = np.nan
    rows = []
    for row in numbers.tolist():
        values: list[Any] = [None if draw.random() < 0.1 else value for value in row]
        values[0] = int(draw.integers(-(2**40), 2**40))
        rows.append((*draw.choice([*KNOWN, "unseen", ""], 2).tolist(), *values))
    return [(None, None, *[None] * 6), *rows]


def test_one_row_is_answered_as_many_are_to_the_bit(model: Trees) -> None:
    rows = drawn(3000, 1)
    expected = model.predict_matrix(model.encoding.ordered_matrix(rows))
    assert [model.predict_row(row) for row in rows] == expected.tolist()
    assert len(set(expected.tolist())) > 500  # the rows are told apart
    for count in (1, 2, 3, 4, 5, 17):
        assert model.predict_ordered(rows[:count]) == expected[:count].tolist()
    assert model.predict_ordered([]) == []


def test_values_in_order_are_encoded_as_frames_and_mappings_are(model: Trees) -> None:
    rows, inputs = drawn(200, 2), model.encoding.inputs
    mappings = [dict(zip(inputs, row, strict=True)) for row in rows]
    matrix = model.encoding.ordered_matrix(rows)
    assert np.array_equal(matrix, model.encoding.matrix(mappings), equal_nan=True)
    frame = pl.DataFrame(mappings, infer_schema_length=None).fill_nan(None)
    assert np.array_equal(matrix, model.encoding.frame_matrix(frame), equal_nan=True)


def test_threads_do_not_share_a_row(model: Trees) -> None:
    rows = drawn(2000, 3)
    expected = model.predict_matrix(model.encoding.ordered_matrix(rows)).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(model.predict_row, rows, chunksize=50)) == expected
    again: SingleRow = pickle.loads(pickle.dumps(model.single))
    assert [again(model.encoding.codes(row)) for row in rows[:50]] == expected[:50]


def test_what_is_no_number_is_refused(model: Trees) -> None:
    row = drawn(1, 4)[1]
    for wrong in ((*row[:-1], "north"), row[:-1], (*row, 1.0), (*row[:-1], [1.0])):
        with pytest.raises(ModelRefused, match="is no number"):
            model.predict_row(wrong)
    assert 0 <= model.predict_row(row) <= 1


def test_golden_rows_reach_categories_missing_values_and_what_training_never_saw(model: Trees) -> None:
    rows = golden_rows(model.booster)
    assert rows.shape[1] == 8
    assert np.isnan(rows[0]).all()
    assert np.isnan(rows).any(axis=0).all()
    assert {-1.0, 0.0, 3.0, 4.0} <= set(rows[:, 0].tolist())
    assert len(set(model.predict_matrix(rows).tolist())) > 20
    assert np.array_equal(rows, golden_rows(model.booster), equal_nan=True)


def test_a_model_whose_single_rows_differ_is_refused(model: Trees) -> None:
    refuse_differing(model.booster, model.single)

    def other(row: Any) -> float:
        return float(np.nextafter(model.single(row), 1.0)) if row[2] > 0 else model.single(row)

    with pytest.raises(ModelRefused, match=r"one by one than together \(\d+ differ\)"):
        refuse_differing(model.booster, other)  # type: ignore[arg-type]
