"""What a Feast retrieval asks of each feature view, and the answer as one Arrow table."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.repo_config import RepoConfig
from feast.utils import _parse_feature_ref

from ml_platform.features import feast_tables
from ml_platform.features.point_in_time import CHUNK, newest_known
from ml_platform.spec import DeclarationError

_EVENT, _KNOWN = "__event", "__known"  # beside keys and features of any name; Feast's own names begin like this, too


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of one feature view.

    keys: from the asked rows' column to the view's name of the entity column.
    features: from the answer's column to the view's name of the feature.
    ttl: None where values do not expire.
    """

    view: str
    source: DataSource
    keys: Mapping[str, str]
    features: Mapping[str, str]
    ttl: timedelta | None

    def rows(
        self, config: RepoConfig, *, first: datetime | None = None, last: datetime | None, known_by: datetime | None
    ) -> pl.DataFrame:
        """The view's rows with events in [first, last] under the asked names, as far as known by then; None: no limit.

        Raises:
            DeclarationError: the table lacks a column.
            MissingHistory: the table, or the version of it, is not there.
        """
        frame = feast_tables.scan(self.source, config)
        schema = frame.collect_schema()
        event, known = self.time_columns(schema)
        renamed = [pl.col(self._column(name, schema)).alias(key) for key, name in self.keys.items()]
        renamed.append(pl.col(event).alias(_EVENT))
        if known is not None:
            renamed.append(pl.col(known).alias(_KNOWN))
            frame = frame.filter(*within(schema, known, last=known_by))
        renamed += [pl.col(self._column(name, schema)).alias(out) for out, name in self.features.items()]
        with feast_tables.readable(self.source, config):
            return frame.filter(*within(schema, event, first=first, last=last)).select(renamed).collect()

    def time_columns(self, schema: pl.Schema) -> tuple[str, str | None]:
        """The table's columns of the event and, if there is one, of when it became known."""
        created = self.source.created_timestamp_column
        return self._column(self.source.timestamp_field, schema), self._column(created, schema) if created else None

    def _column(self, name: str, schema: pl.Schema) -> str:
        """The table's own name; sources name times in either vocabulary, and a mapping may name absent columns."""
        physical = {new: old for old, new in self.source.field_mapping.items()}
        for candidate in (physical.get(name, name), name):
            if candidate in schema:
                return candidate
        raise DeclarationError(
            f"the feature view {self.view} needs the column {physical.get(name, name)} of the source "
            f"{self.source.name}, which holds {', '.join(schema.names())}; correct the view, or the "
            f"source's field_mapping"
        )


def wanted(views: Iterable[FeatureView], references: Sequence[str], *, full_names: bool) -> list[Wanted]:
    """What the feature references ask of each view, as ``view:feature``; views that nothing asks of are left out.

    Raises:
        DeclarationError: a view without a source to read history from.
    """
    parsed = [_parse_feature_ref(reference) for reference in references]
    asked = [(f"{view}@v{version}" if version is not None else view, feature) for view, version, feature in parsed]
    found = []
    for view in views:
        projection = view.projection
        features = dict.fromkeys(feature for name, feature in asked if name == projection.name_to_use())
        if not features:
            continue
        if view.batch_source is None:
            raise DeclarationError(f"the feature view {view.name} has no batch source; give it one to read its history")
        prefix = f"{projection.name_alias or view.name}__" if full_names else ""
        entities = [entity.name for entity in view.entity_columns if entity.name != DUMMY_ENTITY_ID]
        found.append(
            Wanted(
                view=view.name,
                source=view.batch_source,
                keys={projection.join_key_map.get(name, name): name for name in entities},
                features={f"{prefix}{feature}": feature for feature in features},
                ttl=view.ttl or None,
            )
        )
    return found


def answered(entities: pa.Table, at: str, asked: Sequence[Wanted], config: RepoConfig, *, only_known: bool) -> pa.Table:
    """The asked rows in their order with one more column a feature, null where nothing was known.

    entities: key columns and the moment ``at``. only_known: whether rows that became known after ``at`` are out of
        sight.

    Raises:
        DeclarationError: a key column is missing, or a feature bears the name of a column that is there.
        StateError: a key or a time is of a type that cannot be compared.
        MissingHistory: a table, or the version of one, is not there.
    """
    _refuse_missing(entities, at, asked)
    # Nothing but keys and moments is copied out of the asked rows.
    narrow = entities.select(list(dict.fromkeys([at, *(key for view in asked for key in view.keys)])))
    questions = pl.DataFrame(pl.from_arrow(narrow))
    moments = questions[at].cast(pl.Datetime("us", "UTC"))
    last, oldest = moments.max(), moments.min()
    table = entities
    until = last if isinstance(last, datetime) else None

    def features(view: Wanted) -> dict[str, pa.ChunkedArray]:
        first = oldest - view.ttl if isinstance(oldest, datetime) and view.ttl else None
        rows = view.rows(config, first=first, last=until, known_by=until if only_known else None)
        found = newest_known(
            questions,
            rows,
            keys=list(view.keys),
            at=at,
            event=_EVENT,
            known=_KNOWN if _KNOWN in rows.columns else None,
            only_known=only_known,
            ttl=view.ttl,
        )
        return gathered(rows.select(*view.features), found)

    for view in asked:  # the rows of one are let go before those of the next are read
        for name, column in features(view).items():
            table = table.append_column(name, column)
    return table


def _refuse_missing(entities: pa.Table, at: str, asked: Sequence[Wanted]) -> None:
    taken = list(entities.column_names)
    for view in asked:
        missing = [key for key in view.keys if key not in entities.column_names]
        if missing:
            raise DeclarationError(
                f"the feature view {view.view} is joined on {', '.join(view.keys)}, but the asked rows lack "
                f"{', '.join(missing)}; they hold {', '.join(entities.column_names)}"
            )
        twice = [name for name in view.features if name in taken]
        if twice:
            raise DeclarationError(
                f"the feature {', '.join(twice)} of {view.view} bears the name of a column that is there already; drop "
                f"that column, or ask with full_feature_names=True"
            )
        taken += view.features


def gathered(values: pl.DataFrame, found: pl.Series) -> dict[str, pa.ChunkedArray]:
    """The values at the found row numbers, by column; a chunk at a time, so that the work needs little room."""
    parts = [arrow(values.select(pl.all().gather(part))) for part in _slices(found)]
    whole = pa.concat_tables(parts)
    return {name: whole[name] for name in whole.column_names}


def _slices(found: pl.Series) -> Iterator[pl.Series]:
    return (found.slice(start, CHUNK) for start in range(0, max(len(found), 1), CHUNK))


def snapshot(
    asked: Sequence[Wanted], config: RepoConfig, at: str, first: datetime, last: datetime, *, only_known: bool
) -> pa.Table:
    """Every entity that has a row with its event in [first, last] in one of the views, asked for at ``last``.

    An entity that some views do not know has nulls in the key columns of the others.
    """
    parts = [
        view.rows(config, first=first, last=last, known_by=last if only_known else None)
        .select(*view.keys)
        .drop_nulls()
        .unique(maintain_order=True)
        for view in asked
        if view.keys
    ]
    moment = pl.lit(last.astimezone(UTC)).cast(pl.Datetime("us", "UTC")).alias(at)
    if not parts:
        return arrow(pl.select(moment))
    return arrow(pl.concat(parts, how="diagonal_relaxed").unique(maintain_order=True).with_columns(moment))


def within(
    schema: pl.Schema, column: str, *, first: datetime | None = None, last: datetime | None = None
) -> list[pl.Expr]:
    """Conditions that a time column lies in [first, last]; None: no limit. A naive time is UTC.

    Raises:
        DeclarationError: the column holds no times.
    """
    dtype, times = schema[column], pl.col(column)
    if dtype == pl.Date or (isinstance(dtype, pl.Datetime) and dtype.time_unit == "ms"):
        dtype = pl.Datetime("us", dtype.time_zone if isinstance(dtype, pl.Datetime) else None)
        times = times.cast(dtype)  # a limit may be finer than the column
    if not isinstance(dtype, pl.Datetime):
        raise DeclarationError(f"the column {column} is {dtype} where a time is needed; store it as a timestamp")
    limits: list[tuple[Callable[[pl.Expr, pl.Expr], pl.Expr], datetime | None]] = [
        (pl.Expr.ge, first),
        (pl.Expr.le, last),
    ]
    return [compare(times, _literal(limit, dtype)) for compare, limit in limits if limit is not None]


def _literal(moment: datetime, dtype: pl.Datetime) -> pl.Expr:
    naive = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    literal = pl.lit(naive).cast(pl.Datetime(dtype.time_unit))
    return (
        literal
        if dtype.time_zone is None
        else literal.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
    )


def arrow(frame: pl.DataFrame) -> pa.Table:
    """The frame in the types that Feast knows: plain strings and lists."""
    return plain(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))


def plain(table: pa.Table) -> pa.Table:
    """The table with plain strings, bytes and lists in place of large ones, views and dictionaries."""
    return table.cast(pa.schema([field.with_type(_plain(field.type)) for field in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind
