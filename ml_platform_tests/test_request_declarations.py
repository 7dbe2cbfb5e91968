"""Request views that do not keep their promise stop the project from loading, with file, feature and cure."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ml_platform.resources.request_views import try_out
from ml_platform.spec import Computed, DeclarationError, UnknownName
from ml_platform_tests.project_world import FILES, Loader, loader

VIEW = """
import polars as pl
from ml_platform.spec import Computed, Entity, RequestView
at, paid, shop, known, a = map(pl.col, ("asked_at", "paid", "shop", "shops__paid_sum_1h", "happens_at"))
asked = RequestView(entities=(Entity(name="shop"),), request={{"paid": "float64", "happens_at": "timestamp"}},
    description="", features=(Computed("x", VALUE, "KIND"),))
"""
MODELS = FILES["models/returns.py"].replace('("shops",)', '("shops", "asked")')


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Loader]:
    with loader(tmp_path) as loads:
        yield loads


def files(value: str, kind: str = "float64", **changed: str) -> dict[str, str]:
    view = VIEW.replace("VALUE", value).replace("KIND", kind)
    for old, new in changed.items():
        assert old in view
        view = view.replace(old, new)
    return {"repo/views/asked.py": view, "models/returns.py": MODELS}


def test_it_is_found_beside_the_other_views(load: Loader) -> None:
    found = load(files("known / paid"))
    assert (list(found.views), list(found.request_views)) == (["shops"], ["asked"])
    assert [view.name for view in found.views_of(found.models["returns"])] == ["shops", "asked"]
    assert found.request_views["asked"].views_read == ("shops",)


FINE = {
    "times in a zone, with clocks that change": ("a.dt.convert_time_zone('America/New_York').dt.weekday()", "int64"),
    "a duration": ("(a - at).dt.total_minutes(fractional=True)", "float64"),
    "a truth": ("shop == 'JFK'", "int64"),
    "a truth as a number": ("shop.is_in(['a', 'b'])", "float64"),
    "a look-up": ("shop.replace_strict({{'a': 1}}, default=None, return_dtype=pl.Int64)", "int64"),
    "constants that are computed": ("(a - pl.datetime(2013, 1, 1, time_zone='UTC')) / pl.duration(hours=2)", "float64"),
    "a condition": ("pl.when(paid > 0).then(known).otherwise(pl.lit(0.0))", "float64"),
    "over columns of the row": ("pl.max_horizontal(paid, known).fill_null(0)", "float64"),
    "a text read as a number": ("shop.cast(pl.Int64, strict=False)", "int64"),
    "what has no finite answer": ("(known / paid).log()", "float64"),
    "a list from elsewhere": ("shop.is_in(pl.Series(['a', 'b', 'c']))", "int64"),
    "a narrow number": ("paid.cast(pl.Float32)", "float64"),
}


@pytest.mark.parametrize("what", FINE)
def test_what_is_made_of_one_row_is_accepted(load: Loader, what: str) -> None:
    assert load(files(*FINE[what])).request_views["asked"].schema() == {"x": FINE[what][1]}


ACROSS = {
    "a mean": "paid - paid.mean()",
    "a truth about all": "(shop == 'JFK').any()",
    "a count": "paid + pl.len()",
    "a number of rows": "pl.int_range(pl.len()) + paid",
    "a shift": "paid.shift(1)",
    "over": "paid.max().over('shop')",
    "over, row by row": "paid.over('shop')",
    "a rank": "paid.rank()",
    "a running sum": "paid.cum_sum()",
    "the value before": "paid.forward_fill()",
    "filled with the mean": "paid.fill_null(strategy='mean')",
    "filled with an aggregate": "paid.fill_null(paid.max())",
    "a difference": "paid.diff()",
    "duplicates": "paid.is_duplicated()",
    "membership in itself": "paid.is_in(paid.implode())",
    "a rolling mean": "paid.rolling_mean(2)",
    "sorted": "paid.sort()",
    "fewer rows": "paid.filter(paid > 0)",
    "more rows": "pl.concat_list(paid, known).explode()",
    "one row": "paid.first()",
    "by quantiles": "paid.qcut(4).to_physical()",
    "shuffled": "paid.shuffle(seed=1)",
    "inside a condition": "pl.when(paid > paid.median()).then(paid)",
}


@pytest.mark.parametrize("what", ACROSS)
def test_what_looks_at_other_rows_is_refused(load: Loader, what: str) -> None:
    says = r"repo/views/asked\.py: feature x looks at more than its own row .*as a window of a feature view"
    with pytest.raises(DeclarationError, match=says):
        load(files(ACROSS[what]))


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "codes that differ from process to process": (
        files("shop.cast(pl.Categorical).to_physical()", "int64"),
        "feature x makes a Categorical, whose codes hang on what the process saw before",
    ),
    "a Python function": (
        files("paid.map_elements(lambda value: value + 1, return_dtype=pl.Float64)"),
        "feature x holds a Python function or .*; write it with Polars' other expressions",
    ),
    "a pattern": (files("pl.sum_horizontal(pl.col('^p.*$'))"), "feature x selects columns by pattern, type or place"),
    "a type": (files("pl.sum_horizontal(pl.col(pl.Float64))"), "feature x selects columns by pattern, type or place"),
    "a constant": (files("pl.lit(1.0)"), "feature x reads no column, so it is the same for every row; leave it out"),
    "a text": (files("shop"), "feature x is String, but declared as float64; cast it or correct the declaration"),
    "a fraction as whole": (files("paid", "int64"), "feature x is Float64, but declared as int64"),
    "beyond 64 bits": (files("shop.hash()", "int64"), "feature x is UInt64, but declared as int64"),
    "a moment": (files("a", "int64"), "feature x is Datetime.* but declared as int64"),
    "an unknown type": (files("paid", "int32"), "feature x declares the value type 'int32'; write int64 or float64"),
    "a cast that can fail": (files("shop.cast(pl.Int64)", "int64"), r"feature x fails for some rows .*strict=False"),
    "a division to whole": (files("(known / paid).cast(pl.Int64)", "int64"), "feature x fails for some rows"),
    "a local time that does not exist": (
        files("a.dt.replace_time_zone(None).dt.replace_time_zone('America/New_York').dt.hour()", "int64"),
        "feature x fails for some rows",
    ),
    "types that do not go together": (files("shop + paid"), "feature x fails for some rows"),
    "a row's number": (files("pl.lit(pl.Series([1.0, 2.0])) + paid"), "feature x fails for some rows"),
    "no feature": (files("paid", **{'Computed("x", paid, "float64"),': ""}), r"asked\.py declares no feature; add one"),
    "a feature twice": (
        files('paid, "float64"), Computed("x", known'),
        r"asked\.py declares x twice; rename one of them",
    ),
    "a name of ours": (
        files("paid", **{'"paid":': '"asked_at": "timestamp", "paid":'}),
        r"request column 'asked_at', a name that is taken .*; rename it or leave it out",
    ),
    "an entity as a column": (
        files("paid", **{'"paid":': '"shop": "string", "paid":'}),
        "request column 'shop', a name",
    ),
    "a looked-up value as a column": (
        files("paid", **{'"paid":': '"shops__paid_sum_1h": "float64", "paid":'}),
        "request column 'shops__paid_sum_1h', a name that is taken",
    ),
    "a column of an unknown type": (
        files("paid", **{'"float64", "happens_at"': '"decimal", "happens_at"'}),
        "request column paid as 'decimal'; write string, int64, float64, bool, timestamp",
    ),
    "a moment of another type": (
        files("paid", **{'"timestamp"': '"int64"'}),
        "request column happens_at as 'int64'; write timestamp",
    ),
    "a column of another type than the spine's": (
        files("paid.str.len_chars()", "int64", **{'"paid": "float64"': '"paid": "string"'}),
        "request column paid as string, but paid of sales, which model returns is trained on, is Float64; correct",
    ),
    "a column that the spine lacks": (
        files("pl.col('weight')", **{'"paid":': '"weight": "float64", "paid":'}),
        r"no column of sales \(request column of view asked\) named 'weight'",
    ),
    "an entity of another type": (
        files("paid + shop", **{'name="shop"': 'name="shop", dtype="int64"'}),
        "views shops and asked declare the entity shop as string and as int64",
    ),
    "a column that is an entity elsewhere": (
        files("paid", **{'entities=(Entity(name="shop"),), request={{': 'request={{"shop": "string", '}),
        "view shops declares shop as entity, asked as request column; choose one",
    ),
    "an entity that the task does not have": (
        files("paid", **{'entities=(Entity(name="shop"),)': 'entities=(Entity(name="till"),)'}),
        "model returns uses view asked, whose entity till is not among the task's entities",
    ),
    "a view that the model does not use": (
        {**files("known"), "models/returns.py": FILES["models/returns.py"].replace('("shops",)', '("asked",)')},
        "model returns uses the request view asked, which reads values of shops; name shops before it",
    ),
    "a view that stands behind it": (
        {**files("known"), "models/returns.py": MODELS.replace('("shops", "asked")', '("asked", "shops")')},
        "name shops before it in the model's views",
    ),
    "another request feature": (
        {
            **files("paid"),
            "repo/views/more.py": files("pl.col('asked__x')", **{"asked =": "more ="})["repo/views/asked.py"],
        },
        r"repo/views/more\.py: feature x reads asked__x, which is itself computed when asked; write that expression",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_computed_alike_everywhere_is_refused(load: Loader, what: str) -> None:
    changed, says = REFUSED[what]
    with pytest.raises(DeclarationError, match=says):
        load({**changed})


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("pl.col('payd') + 1", "'payd'; did you mean paid"),
        ("pl.col('shops__paid_sum_2h')", "'shops__paid_sum_2h'; did you mean shops__paid_sum_1h"),
        ("pl.col('shops__paid_mean_1h')", "'shops__paid_mean_1h'; did you mean shops__paid_sum_1h"),
        ("pl.col('happend_at').dt.hour()", "'happend_at'; did you mean happens_at"),
    ],
)
def test_a_column_that_does_not_exist_comes_with_the_near_ones(load: Loader, value: str, near: str) -> None:
    says = rf"no entity, request column or looked-up value for .*repo/views/asked\.py: feature x named {near}"
    with pytest.raises(UnknownName, match=says):
        load(files(value))


def test_the_trial_on_made_up_rows_finds_what_looks_at_others_by_itself() -> None:
    """Should Polars call something separable that is not."""
    for value in (pl.col("a") - pl.col("a").mean(), pl.col("a").shift(1), pl.col("a") * pl.len()):
        with pytest.raises(DeclarationError, match="here gives a row another value when it is asked alone"):
            try_out(Computed("x", value), "here", {"a": "float64"})
    try_out(Computed("x", pl.col("a") * 2), "here", {"a": "float64"})


def test_a_file_of_neither_kind_is_refused(load: Loader) -> None:
    with pytest.raises(DeclarationError, match=r"asked\.py declares no FeatureView or RequestView; add one or remove"):
        load({"repo/views/asked.py": "X = 1"})
