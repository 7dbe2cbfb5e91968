"""Whether a request view keeps its promise: each value of its own row alone, of its declared type, whatever the row."""

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from ml_platform.spec import (
    ASKED_AT,
    HAPPENS_AT,
    KNOWN_AT,
    Computed,
    DeclarationError,
    ModelSpec,
    Project,
    RequestView,
    UnknownName,
)
from ml_platform.spec.features import feature_name
from ml_platform.spec.request_views import POLARS_TYPES

_RESERVED = (ASKED_AT, KNOWN_AT, "as_of", "label", "label_known_at", "part")  # columns of questions and training sets
_WHOLE = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.Boolean)  # those that fit int64
_FITS: Mapping[str, tuple[type[pl.DataType], ...]] = {
    "int64": _WHOLE,
    "float64": (*_WHOLE, pl.Float32, pl.Float64),
    "string": (pl.String,),
    "bool": (pl.Boolean,),
    "timestamp": (pl.Datetime,),
}
# Rows as nasty as they come: missing, zero, beyond what fits, clocks that change, years far away.
_SAMPLES: Mapping[str, tuple[Any, ...]] = {
    "string": (None, "", "a", "b", "JFK", "É", "-7.5"),
    "int64": (None, 0, 1, -1, 7, 7, 2**40, -(2**62)),
    "float64": (None, 0.0, -0.0, 1.5, -3.25, 1e300, -1e300, 1e-300, float("nan"), float("inf")),
    "bool": (None, True, False),
    "timestamp": (
        None,
        datetime(1900, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2013, 3, 10, 2, 30, tzinfo=UTC),  # New York's clocks go forward at 2 (7 in UTC), back on 3 November
        datetime(2013, 3, 10, 7, 30, tzinfo=UTC),
        datetime(2013, 11, 3, 1, 30, tzinfo=UTC),
        datetime(2013, 11, 3, 5, 30, 0, 1, tzinfo=UTC),
        datetime(2013, 11, 3, 6, 30, tzinfo=UTC),
        datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ),
}
_ROWS = 24


def check_request_view(view: RequestView, project: Project) -> None:
    """Whatever the view names must be there; its expressions are tried out on made-up rows.

    Raises:
        DeclarationError: a name is taken or unknown, an expression looks at other rows, fails or is of another type.
    """
    file = f"{project.features.replace('.', '/')}/views/{view.name}.py"
    _check_names(view, file)
    looked_up = {
        feature_name(stored.name, name): kind
        for stored in project.views.values()
        for name, kind in stored.schema().items()
    }
    known = {**looked_up, **view.of_request}
    for feature in view.features:
        where = f"{file}: feature {feature.name}"
        _check_reads(feature, where, known, project)
        _check_rows_stand_alone(feature, where)
        try_out(feature, where, known)


def check_use(view: RequestView, spec: ModelSpec, project: Project) -> None:
    """A model that names the view must name what it reads before it, and its questions must bring its columns.

    Raises:
        DeclarationError: a view that is read stands behind it or not at all, or a column is of another type.
        UnknownName: the task's spine holds no such column.
    """
    before = spec.views[: spec.views.index(view.name)]
    for read in view.views_read:
        if read not in before:
            raise DeclarationError(
                f"model {spec.name} uses the request view {view.name}, which reads values of {read}; name {read} "
                f"before it in the model's views"
            )
    task = spec.task
    raw = pl.LazyFrame(schema=dict(project.tables[task.spine].columns))
    spine = raw.with_columns(**task.derive).collect_schema()
    for name, kind in view.request.items():
        column = task.happens_at if name == HAPPENS_AT else name
        if column not in spine:
            raise UnknownName(f"column of {task.spine} (request column of view {view.name})", column, spine.names())
        naive = kind == "timestamp" and getattr(spine[column], "time_zone", None) is None
        if naive or not isinstance(spine[column], _FITS[kind]):
            raise DeclarationError(
                f"view {view.name} declares the request column {name} as {kind}, but {column} of {task.spine}, which "
                f"model {spec.name} is trained on, is {spine[column]}; correct the one or derive the other in the task"
            )


def _check_names(view: RequestView, file: str) -> None:
    names = [feature.name for feature in view.features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        what = f"declares {', '.join(twice)} twice; rename one of them" if twice else "declares no feature; add one"
        raise DeclarationError(f"{file} {what}")
    for name, kind in view.request.items():
        if name in _RESERVED or name in view.entity_names or "__" in name:
            raise DeclarationError(
                f"{file} declares the request column {name!r}, a name that is taken (entities, looked-up values, "
                f"{', '.join(_RESERVED)} need no declaring); rename it or leave it out"
            )
        if kind not in POLARS_TYPES or (name == HAPPENS_AT and kind != "timestamp"):
            fits = "timestamp" if name == HAPPENS_AT else ", ".join(POLARS_TYPES)
            raise DeclarationError(f"{file} declares the request column {name} as {kind!r}; write {fits}")


def _check_reads(feature: Computed, where: str, known: Mapping[str, str], project: Project) -> None:
    if feature.value_type not in ("int64", "float64"):
        raise DeclarationError(f"{where} declares the value type {feature.value_type!r}; write int64 or float64")
    if feature.value.meta.has_multiple_outputs():
        raise DeclarationError(f"{where} selects columns by pattern, type or place; name each one it reads")
    if not feature.reads:
        raise DeclarationError(f"{where} reads no column, so it is the same for every row; leave it out")
    for name in feature.reads:
        if name.partition("__")[0] in project.request_views:
            raise DeclarationError(
                f"{where} reads {name}, which is itself computed when asked; write that expression out instead"
            )
        if name not in known:
            raise UnknownName(f"entity, request column or looked-up value for {where}", name, known)


def _check_rows_stand_alone(feature: Computed, where: str) -> None:
    try:
        part = next(_across_rows(feature.value), None)
    except pl.exceptions.PolarsError as error:
        raise DeclarationError(
            f"{where} holds a Python function or an expression over list elements ({error}), so nobody can tell "
            f"whether it looks at one row and whether it was changed; write it with Polars' other expressions"
        ) from error
    if "Categorical" in feature.value.meta.serialize(format="json"):
        raise DeclarationError(
            f"{where} makes a Categorical, whose codes hang on what the process saw before; write replace_strict(...)"
        )
    if part is not None:
        raise DeclarationError(
            f"{where} looks at more than its own row ({str(part)[:80]}), of which a request holds few; write it of one "
            f"row's columns, or declare the part over many rows as a window of a feature view"
        )


def _across_rows(value: pl.Expr) -> Iterator[pl.Expr]:
    """The parts that are no function of one row, by Polars' own account of each part."""
    meta, parts = value.meta, value.meta.pop()
    if not parts and not meta.root_names():  # a constant, or pl.len()
        across = meta.is_scalar() and not meta.is_literal()
    else:
        across = not meta.is_row_separable() or (bool(meta.root_names()) and not meta.is_length_preserving())
    if across:
        yield value
    for part in parts:
        yield from _across_rows(part)


def try_out(feature: Computed, where: str, known: Mapping[str, str]) -> None:
    """On made-up rows at once and on each alone: the same values, of the declared type, and no failure.

    known: column -> type. where: how the feature is called in an error.

    Raises:
        DeclarationError: an evaluation failed, or gave another value or type.
    """
    draw = random.Random(2013)  # the same rows each time
    kinds = {name: known[name] for name in feature.reads}
    drawn = {name: [None, *draw.choices(_SAMPLES[kind], k=_ROWS)] for name, kind in kinds.items()}
    rows = pl.DataFrame(drawn, {name: POLARS_TYPES[kind] for name, kind in kinds.items()})
    try:
        found = rows.lazy().select(feature.value).collect_schema().dtypes()[0]
        if not isinstance(found, _FITS[feature.value_type]):
            raise DeclarationError(
                f"{where} is {found}, but declared as {feature.value_type}; cast it or correct the declaration"
            )
        whole = rows.select(feature.exact())
        alone = [rows[n : n + 1].select(feature.exact()) for n in range(rows.height)]
    except pl.exceptions.PolarsError as error:
        said = str(error).splitlines()[0]
        raise DeclarationError(
            f"{where} fails for some rows ({said}); write it so that it is null where it has no answer "
            f"(cast(..., strict=False), when(...).then(...))"
        ) from error
    if whole.height != rows.height or not whole.equals(pl.concat(alone)):
        raise DeclarationError(f"{where} gives a row another value when it is asked alone; make it one row's business")
