"""Random frames with gaps, NaN, ties and no rows at all, and random arguments for every shared expectation."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from ml_platform.spec import expectations as gxe

Rng = np.random.Generator
Make = Callable[[Rng], gxe.Expectation]

WORDS = [
    "a",
    "b",
    "ab",
    "abc",
    "ABC-1",
    "ABC-22",
    "2013-04-01",
    "2013-13-01",
    "not a day",
    '{"x": 1}',
    "[1",
    "",
    "é",
    "a\n",
]
REGEXES = ["a", "^a", "b$", "^[A-Z]{3}-\\d+$", "^a(?!b)", "(.)\\1", "[^a]", "x|c", "\\w+", "^$", "(?i)ABC", "a\\Z"]
FIRST = datetime(2013, 4, 1, tzinfo=UTC)


def frame(rng: Rng) -> pl.DataFrame:
    """Up to 30 rows; every twelfth has none."""
    rows = int(rng.integers(0, 30)) if rng.random() > 1 / 12 else 0
    few = rng.integers(-3, 4, rows)
    walk = np.cumsum(rng.integers(-1, 3, rows))
    reals = np.where(rng.random(rows) < 0.1, np.nan, np.round(rng.normal(0, 2, rows), 1))
    words = rng.choice(WORDS, rows)
    moments = [FIRST + timedelta(hours=int(hours)) for hours in rng.integers(0, 50, rows)]
    made = pl.DataFrame(
        {
            "few": pl.Series(few, dtype=pl.Int64),
            "walk": pl.Series(walk, dtype=pl.Int64),
            "more": pl.Series(rng.integers(-3, 4, rows), dtype=pl.Int64),
            "real": pl.Series(reals, dtype=pl.Float64),
            "other": pl.Series(np.round(reals + rng.integers(-1, 2, rows), 1), dtype=pl.Float64),
            "word": pl.Series(words.tolist(), dtype=pl.String),
            "letter": pl.Series(rng.choice(["a", "b", "c"], rows).tolist(), dtype=pl.String),
            "moment": pl.Series(moments, dtype=pl.Datetime("us", "UTC")),
            "doc": pl.Series(rng.choice(['{"x": 1}', '{"x": "a"}', "[]", "{}"], rows).tolist(), dtype=pl.String),
            "whole": pl.Series(rng.integers(0, 3, rows), dtype=pl.Int64),
        }
    )
    share = rng.choice([0.0, 0.1, 0.5, 1.0], p=[0.3, 0.5, 0.15, 0.05])
    gaps = {name: pl.Series(rng.random(rows) < share) for name in made.columns if name != "whole"}
    return made.with_columns(pl.when(~gap).then(pl.col(name)).alias(name) for name, gap in gaps.items())


def _pick(rng: Rng, values: Sequence[Any]) -> Any:
    return values[int(rng.integers(0, len(values)))]


def _some(rng: Rng, values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value for value in values if rng.random() < 0.6)


def _bounds(rng: Rng, low: float, high: float, *, whole: bool = False) -> dict[str, Any]:
    one, other = sorted(round(float(value), 1) for value in rng.uniform(low, high, 2))
    if whole:
        one, other = int(one), int(other)
    shape = rng.random()
    given: dict[str, Any] = {"min_value": one, "max_value": other}
    if shape < 0.2:
        del given["min_value"]
    elif shape < 0.4:
        del given["max_value"]
    return {**given, "strict_min": bool(rng.random() < 0.4), "strict_max": bool(rng.random() < 0.4)}


def _common(rng: Rng, *, mostly: bool = True) -> dict[str, Any]:
    """``mostly`` and a condition, each for a third."""
    given: dict[str, Any] = {}
    if mostly and rng.random() < 0.33:
        given["mostly"] = float(_pick(rng, [0.0, 0.5, 0.75, 0.9]))
    if rng.random() < 0.33:
        given["row_condition"] = condition(rng)
    return given


def condition(rng: Rng, depth: int = 0) -> gxe.RowCondition:
    """A comparison, a question of nullity, a membership, or two of them."""
    kind = int(rng.integers(0, 6 if depth == 0 else 4))
    if kind >= 4:
        one, other = condition(rng, 1), condition(rng, 1)
        return one & other if kind == 4 else one | other
    name = _pick(rng, ["few", "real", "letter", "whole"])
    column = gxe.Column(name)
    if kind == 0:
        return column.is_null() if rng.random() < 0.5 else column.is_not_null()
    values = ["a", "b", "z"] if name == "letter" else [-1, 0, 1.5, 2]
    if kind == 1:
        member = list(_some(rng, values)) or values[:1]
        return column.is_in(member) if rng.random() < 0.5 else column.is_not_in(member)
    value = _pick(rng, values)
    return _pick(rng, [column == value, column != value, column < value, column >= value])


def _number(rng: Rng) -> str:
    return str(_pick(rng, ["few", "walk", "real", "whole"]))


def _any(rng: Rng) -> str:
    return str(_pick(rng, ["few", "real", "word", "letter", "whole", "moment"]))


def _set(rng: Rng, column: str) -> tuple[Any, ...]:
    values = {"word": WORDS, "letter": ["a", "b", "c", "d"]}.get(column, [-3, -2, -1, 0, 1, 2, 3, 0.5, 1.5])
    return _some(rng, values)


def _with_set(rng: Rng, kind: type[Any], columns: Sequence[str], **more: Any) -> gxe.Expectation:
    column = str(_pick(rng, columns))
    return kind(column=column, value_set=_set(rng, column), **more)  # type: ignore[no-any-return]


def _quantiles(rng: Rng) -> gxe.Expectation:
    shares = sorted(float(share) for share in rng.choice([0.0, 0.1, 0.25, 0.5, 0.75, 1.0], 2, replace=False))
    ranges = [sorted(round(float(value), 1) for value in rng.uniform(-4, 4, 2)) for _ in shares]
    if rng.random() < 0.3:
        ranges[0][0] = None  # type: ignore[call-overload]
    return gxe.ExpectColumnQuantileValuesToBeBetween(
        column=_number(rng),
        quantile_ranges={"quantiles": shares, "value_ranges": ranges},
        allow_relative_error=_pick(rng, [False, "linear", "lower", "higher", "midpoint", "nearest"]),
        **_common(rng, mostly=False),
    )


_TEXTS = ["word", "letter"]
_SETS = ["few", "real", "word", "letter", "whole"]
_PAIRS = [("few", "more"), ("real", "other"), ("few", "real"), ("walk", "whole")]
_LISTS = [("few", "more"), ("few", "more", "whole"), ("real", "other"), ("whole", "few", "real")]


def _column(kind: Any, of: Callable[[Rng], str], **more: Callable[[Rng], Any]) -> Make:
    return lambda rng: kind(column=of(rng), **{k: make(rng) for k, make in more.items()}, **_common(rng))


def _bounded(kind: Any, low: float, high: float, of: Callable[[Rng], str] = _number, *, whole: bool = False) -> Make:
    return lambda rng: kind(column=of(rng), **_bounds(rng, low, high, whole=whole), **_common(rng, mostly=False))


def _pair(kind: Any, **more: Callable[[Rng], Any]) -> Make:
    def make(rng: Rng) -> gxe.Expectation:
        one, other = _pick(rng, _PAIRS)
        ignored = _pick(rng, ["both_values_are_missing", "either_value_is_missing", "neither"])
        given = {name: value(rng) for name, value in more.items()}
        return kind(column_A=one, column_B=other, ignore_row_if=ignored, **given, **_common(rng))  # type: ignore[no-any-return]

    return make


def _pair_in_set(rng: Rng) -> gxe.Expectation:
    """Without a condition: Great Expectations passes over it when it looks for failing rows, not when it counts all."""
    return gxe.ExpectColumnPairValuesToBeInSet(
        column_A="letter",
        column_B="word",
        ignore_row_if=_pick(rng, ["both_values_are_missing", "either_value_is_missing", "neither"]),
        value_pairs_set=_some(rng, _PAIR_SET) or _PAIR_SET,
        mostly=float(_pick(rng, [1.0, 0.5])),
    )


def _several(kind: Any, **more: Callable[[Rng], Any]) -> Make:
    def make(rng: Rng) -> gxe.Expectation:
        ignored = _pick(rng, ["all_values_are_missing", "any_value_is_missing", "never"])
        given = {name: value(rng) for name, value in more.items()}
        return kind(column_list=_pick(rng, _LISTS), ignore_row_if=ignored, **given, **_common(rng))  # type: ignore[no-any-return]

    return make


def _between(rng: Rng) -> gxe.Expectation:
    if rng.random() < 0.2:
        low, high = sorted((FIRST + timedelta(hours=int(hours))).isoformat() for hours in rng.integers(0, 50, 2))
        return gxe.ExpectColumnValuesToBeBetween(column="moment", min_value=low, max_value=high, **_common(rng))
    return gxe.ExpectColumnValuesToBeBetween(column=_number(rng), **_bounds(rng, -3, 3), **_common(rng))


def _text(rng: Rng) -> str:
    return str(_pick(rng, _TEXTS))


def _moment_or_number(rng: Rng) -> str:
    return str(_pick(rng, ["few", "walk", "real", "moment"]))


def _flag(rng: Rng) -> bool:
    return bool(rng.random() < 0.5)


# Of texts: with numbers Great Expectations fails to write down the pairs that it found (numpy's are no JSON).
_PAIR_SET = [("a", "a"), ("b", "ab"), ("c", None), (None, "a"), (None, "abc"), ("a", "b"), ("z", "z"), ("b", "b")]
_SHAPE = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
_TYPES = ("int64", "float64", "int", "float", "bool", "str")
SHARED: tuple[Make, ...] = (
    _column(gxe.ExpectColumnValuesToNotBeNull, _any),
    _column(gxe.ExpectColumnValuesToBeNull, _any),
    _column(gxe.ExpectColumnValuesToBeUnique, _any),
    lambda rng: _with_set(rng, gxe.ExpectColumnValuesToBeInSet, _SETS, **_common(rng)),
    lambda rng: _with_set(rng, gxe.ExpectColumnValuesToNotBeInSet, _SETS, **_common(rng)),
    _between,
    _column(gxe.ExpectColumnValuesToBeIncreasing, _moment_or_number, strictly=_flag),
    _column(gxe.ExpectColumnValuesToBeDecreasing, _moment_or_number, strictly=_flag),
    _column(
        gxe.ExpectColumnValueZScoresToBeLessThan,
        _number,
        threshold=lambda rng: float(_pick(rng, [0.5, 1.0, 1.5])),
        double_sided=_flag,
    ),
    _column(
        gxe.ExpectColumnValuesToNotBeOutliers,
        _number,
        method=lambda rng: _pick(rng, ["iqr", "std"]),
        multiplier=lambda rng: float(_pick(rng, [0.5, 1.0, 1.5])),
    ),
    lambda rng: gxe.ExpectColumnValueLengthsToBeBetween(
        column=_text(rng), **_bounds(rng, 0, 6, whole=True), **_common(rng)
    ),
    _column(gxe.ExpectColumnValueLengthsToEqual, _text, value=lambda rng: int(rng.integers(0, 4))),
    _column(gxe.ExpectColumnValuesToMatchRegex, _text, regex=lambda rng: _pick(rng, REGEXES)),
    _column(gxe.ExpectColumnValuesToNotMatchRegex, _text, regex=lambda rng: _pick(rng, REGEXES)),
    _column(
        gxe.ExpectColumnValuesToMatchRegexList,
        _text,
        regex_list=lambda rng: _some(rng, REGEXES) or ("a",),
        match_on=lambda rng: _pick(rng, ["any", "all"]),
    ),
    _column(gxe.ExpectColumnValuesToNotMatchRegexList, _text, regex_list=lambda rng: _some(rng, REGEXES) or ("a",)),
    _column(gxe.ExpectColumnValuesToMatchStrftimeFormat, _text, strftime_format=lambda rng: "%Y-%m-%d"),
    _column(gxe.ExpectColumnValuesToBeJsonParseable, _text),
    _column(gxe.ExpectColumnValuesToBeDateutilParseable, _text),
    # Others raise at a text that is no JSON.
    _column(gxe.ExpectColumnValuesToMatchJsonSchema, lambda rng: "doc", json_schema=lambda rng: dict(_SHAPE)),
    # Columns without gaps: pandas makes others of another type.
    lambda rng: gxe.ExpectColumnValuesToBeOfType(column="whole", type_=_pick(rng, _TYPES)),
    lambda rng: gxe.ExpectColumnValuesToBeInTypeList(column="whole", type_list=_some(rng, _TYPES) or _TYPES),
    lambda rng: gxe.ExpectColumnValuesToBeOfType(column="real", type_=_pick(rng, _TYPES)),
    _bounded(gxe.ExpectColumnMinToBeBetween, -4, 4),
    _bounded(gxe.ExpectColumnMaxToBeBetween, -4, 4),
    _bounded(gxe.ExpectColumnMeanToBeBetween, -2, 2),
    _bounded(gxe.ExpectColumnMedianToBeBetween, -2, 2),
    _bounded(gxe.ExpectColumnStdevToBeBetween, 0, 4),
    _bounded(gxe.ExpectColumnSumToBeBetween, -20, 20),
    _bounded(gxe.ExpectColumnUniqueValueCountToBeBetween, 0, 12, _any, whole=True),
    _bounded(gxe.ExpectColumnProportionOfUniqueValuesToBeBetween, 0, 1, _any),
    _bounded(gxe.ExpectColumnProportionOfNonNullValuesToBeBetween, 0, 1, _any),
    _quantiles,
    lambda rng: _with_set(
        rng, gxe.ExpectColumnMostCommonValueToBeInSet, _SETS, ties_okay=_flag(rng), **_common(rng, mostly=False)
    ),
    lambda rng: _with_set(rng, gxe.ExpectColumnDistinctValuesToBeInSet, _SETS, **_common(rng, mostly=False)),
    lambda rng: _with_set(rng, gxe.ExpectColumnDistinctValuesToContainSet, _SETS, **_common(rng, mostly=False)),
    lambda rng: _with_set(rng, gxe.ExpectColumnDistinctValuesToEqualSet, ["letter"], **_common(rng, mostly=False)),
    _pair(gxe.ExpectColumnPairValuesToBeEqual),
    _pair(gxe.ExpectColumnPairValuesAToBeGreaterThanB, or_equal=_flag),
    _pair_in_set,
    _several(gxe.ExpectCompoundColumnsToBeUnique),
    _several(gxe.ExpectSelectColumnValuesToBeUniqueWithinRecord),
    _several(gxe.ExpectMulticolumnValuesToBeEqual),
    _several(gxe.ExpectMulticolumnSumToEqual, sum_total=lambda rng: int(rng.integers(-2, 3))),
    lambda rng: gxe.ExpectTableRowCountToBeBetween(**_bounds(rng, 0, 30, whole=True), **_common(rng, mostly=False)),
    lambda rng: gxe.ExpectTableRowCountToEqual(value=int(rng.integers(0, 10)), **_common(rng, mostly=False)),
    lambda rng: gxe.ExpectTableColumnCountToEqual(value=int(rng.integers(9, 12))),
    lambda rng: gxe.ExpectTableColumnCountToBeBetween(
        min_value=int(rng.integers(0, 12)), max_value=int(rng.integers(12, 14))
    ),
    lambda rng: gxe.ExpectTableColumnsToMatchOrderedList(column_list=_columns(rng)),
    lambda rng: gxe.ExpectTableColumnsToMatchSet(column_set=_columns(rng), exact_match=_flag(rng)),
    lambda rng: gxe.ExpectColumnToExist(
        column=str(_pick(rng, ["few", "walk", "none"])), column_index=_pick(rng, [None, 0, 1, 2, 20])
    ),
)


def _columns(rng: Rng) -> list[str]:
    names = frame(np.random.default_rng(0)).columns
    way = int(rng.integers(0, 4))
    return [names, names[::-1], names[:-1], [*names, "more_yet"]][way]
