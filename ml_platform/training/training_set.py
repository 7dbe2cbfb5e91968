"""The rows a model learns from: what was asked, what was known at that moment, and the truth learned since."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import polars as pl

from ml_platform.features.request_values import RequestPlan
from ml_platform.features.windows import AS_OF, values_at
from ml_platform.spec import (
    ASKED_AT,
    HAPPENS_AT,
    KNOWN_AT,
    DeclarationError,
    FeatureView,
    ModelSpec,
    Task,
    TooFewLabels,
    View,
)
from ml_platform.spec.features import feature_name
from ml_platform.spec.request_views import request_fields

LABEL, LABEL_KNOWN_AT, PART = "label", "label_known_at", "part"
QUANTITY = "quantity"  # the truth as an amount, where the task declares one
TRAIN, HOLDOUT = "train", "holdout"
_TYPES = {"string": pl.String, "int64": pl.Int64}


def input_names(task: Task, views: Sequence[View]) -> list[str]:
    """The model's inputs in order: categorical entity columns, then each view's features."""
    return [*task.categorical, *(feature_name(view.name, feature) for view in views for feature in view.schema())]


def question_rows(task: Task, spine: pl.DataFrame, fields: Iterable[str] = ()) -> pl.DataFrame:
    """One row a question: key, entities, ``happens_at``, ``asked_at`` and the moment its features are as of.

    fields: further columns of the spine that a request brings.

    Raises:
        DeclarationError: the spine lacks a column that the task names.
    """
    derived = spine.with_columns(**task.derive)
    more = [name for name in fields if name != HAPPENS_AT]
    wanted = [*dict.fromkeys([task.key, *task.entities, *task.label.on, *more]), task.happens_at]
    missing = [name for name in wanted if name not in derived.columns]
    if missing:
        raise DeclarationError(
            f"task {task.name} needs {', '.join(missing)} in raw/{task.spine}, which holds "
            f"{', '.join(derived.columns)}; correct the task or add the column to its derive"
        )
    step = task.grid // timedelta(microseconds=1) or 1
    asked = pl.col(HAPPENS_AT) - task.lead
    on_grid = (asked.dt.epoch("us") // step * step).cast(pl.Datetime("us", "UTC"))
    rows = derived.select(*wanted[:-1], pl.col(task.happens_at).alias(HAPPENS_AT))
    return rows.with_columns(asked.alias(ASKED_AT), on_grid.alias(AS_OF))


def join_features(rows: pl.DataFrame, frames: Mapping[str, pl.DataFrame], views: Sequence[View]) -> pl.DataFrame:
    """Add each view's features as of the row's ``as_of``, those of request views last; rows keep number and order.

    frames: raw tables by name, reaching back from the first ``as_of`` as far as the views do.
        An entity without a row up to then has the view's empty values; one that is not named has nulls.
    """
    looked_up = [_values(rows, view, frames) for view in views if isinstance(view, FeatureView)]
    joined = pl.concat([rows, *looked_up], how="horizontal")
    computed = RequestPlan(views)
    return joined.hstack(computed.of_frame(joined)) if computed.names else joined


def _values(rows: pl.DataFrame, view: FeatureView, frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The view's features for each row; what many rows ask for alike is computed once."""
    keys = [pl.col(entity.name).cast(_TYPES[entity.dtype]) for entity in view.entities]
    asked = rows.select(*keys, AS_OF)
    found = values_at(view, frames, asked.unique(maintain_order=True))
    named = pl.all_horizontal(pl.col(name).is_not_null() for name in view.entity_names)
    values = asked.join(
        found, on=[*view.entity_names, AS_OF], how="left", nulls_equal=True, maintain_order="left", validate="m:1"
    )
    return values.select(
        pl.when(named).then(pl.col(name)).otherwise(None).alias(feature_name(view.name, name)) for name in view.schema()
    )


def training_rows(
    spec: ModelSpec,
    spine: pl.DataFrame,
    outcomes: pl.DataFrame,
    frames: Mapping[str, pl.DataFrame],
    views: Sequence[View],
    now: datetime,
    *,
    since: datetime | None = None,
) -> pl.DataFrame:
    """Labelled questions up to ``now`` in the model's reach, ordered by ``happens_at`` and key.

    Columns: key, ``happens_at``, ``as_of``, the inputs, ``label`` (0 or 1), ``label_known_at``, and ``quantity`` where
    the task declares one. A label that became
    known after ``now`` is not there; nor is a question about a row that was not yet known when it was asked.
    Of a corrected question the version counts that was known when it was asked, of a corrected label the newest.
    since: earliest ``happens_at`` (where features lack history before).
    """
    task = spec.task
    asked = questions_asked(task, spine, views).filter(pl.col(HAPPENS_AT) < now)
    starts = [moment for moment in (since, reach(spec, now)) if moment is not None]
    if starts:
        asked = asked.filter(pl.col(HAPPENS_AT) >= max(starts))
    truths = truths_at(task, outcomes, now).drop_nulls(LABEL)
    labelled = asked.join(truths, on=list(task.label.on), how="inner", validate="m:1")
    joined = join_features(labelled.sort(HAPPENS_AT, task.key), frames, views)
    return joined.select(set_columns(task, views))


def set_columns(task: Task, views: Sequence[View]) -> list[str]:
    """The columns of a training set, in order."""
    told = [LABEL, LABEL_KNOWN_AT, *([] if task.label.quantity is None else [QUANTITY])]
    return [task.key, HAPPENS_AT, AS_OF, *input_names(task, views), *told]


def questions_asked(task: Task, spine: pl.DataFrame, views: Sequence[View]) -> pl.DataFrame:
    """One row a question, as ``question_rows`` makes it: of a corrected one the version known when it was asked."""
    asked = question_rows(task, spine, request_fields(views)).with_columns(spine[KNOWN_AT].alias(KNOWN_AT))
    return _newest(asked.filter(pl.col(KNOWN_AT) <= pl.col(ASKED_AT)), [task.key]).drop(KNOWN_AT)


def truths_at(task: Task, outcomes: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Each truth known at ``now``, of a corrected one the newest: what it is joined on, ``label`` (null: there is
    none), ``label_known_at``, and ``quantity`` where the task declares one."""
    amount = [] if task.label.quantity is None else [task.label.quantity.cast(pl.Float64).alias(QUANTITY)]
    return _newest(outcomes.filter(pl.col(KNOWN_AT) <= now), task.label.on).select(
        *task.label.on, task.label.value.alias(LABEL), pl.col(KNOWN_AT).alias(LABEL_KNOWN_AT), *amount
    )


def _newest(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Of each fact the version known last."""
    if not rows.select(key).is_duplicated().any():
        return rows
    return rows.sort(KNOWN_AT, maintain_order=True).unique(key, keep="last", maintain_order=True)


def reach(spec: ModelSpec, now: datetime) -> datetime | None:
    """The earliest event that a training at ``now`` looks at; None: as far back as there is data."""
    return None if spec.train_window is None else now - spec.gate.holdout - spec.train_window


def split(rows: pl.DataFrame, spec: ModelSpec, now: datetime) -> pl.DataFrame:
    """The rows with their ``part``: ``holdout``, the newest events, and ``train``, what was learned before them.

    A row whose label became known only within the holdout belongs to neither: a model trained when the holdout
    began could not have known it.

    Raises:
        TooFewLabels: fewer than ``spec.min_rows`` to train on, or none to judge on.
    """
    held_from = now - spec.gate.holdout
    in_train = (pl.col(HAPPENS_AT) < held_from) & (pl.col(LABEL_KNOWN_AT) <= held_from)
    if spec.train_window is not None:
        in_train &= pl.col(HAPPENS_AT) >= held_from - spec.train_window
    in_holdout = pl.col(HAPPENS_AT).is_between(held_from, now, closed="left")
    part = pl.when(in_train).then(pl.lit(TRAIN)).when(in_holdout).then(pl.lit(HOLDOUT))
    parts = rows.with_columns(part.alias(PART)).drop_nulls(PART)
    counts = dict.fromkeys((TRAIN, HOLDOUT), 0) | dict(parts[PART].value_counts().iter_rows())
    if counts[TRAIN] < spec.min_rows or counts[HOLDOUT] == 0:
        raise TooFewLabels(
            f"model {spec.name} has {counts[TRAIN]} labelled rows to train on before {held_from.isoformat()} "
            f"({spec.min_rows} are needed) and {counts[HOLDOUT]} to be judged on after it (at least 1), of "
            f"{rows.height} known at {now.isoformat()}; wait for labels, or lower min_rows or gate.holdout"
        )
    return parts


def label_maturity(spec: ModelSpec, spine: pl.DataFrame, outcomes: pl.DataFrame, now: datetime) -> float:
    """Share (0..1) of the holdout's events whose outcome is known at ``now``, cancelled ones included.

    Raises:
        TooFewLabels: no event falls into the holdout.
    """
    task = spec.task
    within = pl.col(HAPPENS_AT).is_between(now - spec.gate.holdout, now, closed="left")
    events = question_rows(task, spine).filter(within)
    if events.is_empty():
        raise TooFewLabels(f"raw/{task.spine} holds no event in the {spec.gate.holdout} before {now.isoformat()}")
    known = outcomes.filter(pl.col(KNOWN_AT) <= now).select(task.label.on).unique()
    return events.join(known, on=list(task.label.on), how="semi").height / events.height


def content_hash(rows: pl.DataFrame) -> str:
    """A digest of names, types and values, the same wherever and however the rows are stored."""
    digest = hashlib.sha256()
    for column in rows.get_columns():
        digest.update(f"{column.name}:{column.dtype}".encode())
        digest.update(column.is_null().to_numpy().tobytes())
        if column.dtype == pl.String:
            # Lengths keep ("ab", "c") apart from ("a", "bc").
            digest.update(column.str.len_bytes().fill_null(0).to_numpy().tobytes())
            digest.update("".join(column.drop_nulls().to_list()).encode())
        else:
            digest.update(column.to_physical().fill_null(strategy="zero").to_numpy().tobytes())
    return digest.hexdigest()
